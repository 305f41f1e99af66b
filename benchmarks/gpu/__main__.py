"""Is the GPU path right, and how fast is it? One command, from the checkout, within 8 minutes.

Needs torch, transformers and triton with what those need, nothing else and no installation:

    python -m benchmarks.gpu            # on a machine with a GPU
    python -m benchmarks.gpu --small    # anywhere: that all of it runs; its times mean nothing

First the kernels against the float32 oracle at real shapes, then what bf16 does to greedy output
(`benchmarks/losslessness.py`), then times: attention of a layer, whole steps of a random model of
Llama-2-7B's shape. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

GIB = 1 << 30
LARGEST_ERROR = 1e-4
"""Of an output in float32; inputs are standard normal."""


def correctness(small: bool) -> dict[str, float]:
    """Largest error by model and kind of layer."""
    from benchmarks.gpu.cases import Shape, largest_error, named_cases, real_shapes
    from engine.attention.paged import PagedStep

    if small:
        tiny = Shape(4, 2, 12, 8, past=40, prefill=10, device="cpu")
        return {"tiny": largest_error(PagedStep, tiny, named_cases(20, 32)["plain"])}
    shapes, cases = real_shapes(), named_cases(window=1000, chunk=512)
    # Not the product of both: every pair is two kernels to compile.
    wanted = [(model, "plain") for model in shapes if model != "Gemma-2-9B"]
    wanted += [("Gemma-2-9B", "softcap"), ("Llama-3-8B", "chunk")]
    wanted += [("Llama-3-8B", "softcap, window, sinks")]
    return {f"{m}, {c}": largest_error(PagedStep, shapes[m], cases[c]) for m, c in wanted}


def losslessness(small: bool) -> dict[str, Any]:
    """G2 to G4 in bf16."""
    from transformers import AutoTokenizer

    from benchmarks.losslessness import prompts_of, report
    from models import DEFAULT_ADAPTER, DEFAULT_MODEL

    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_MODEL, local_files_only=True)

    def render(messages: Any, tools: Any) -> str:
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
        return str(tokenizer.apply_chat_template(messages, tools=tools, **options))

    count, tokens, device = (1, 4, "cpu") if small else (24, 64, "cuda")
    prompts = prompts_of(DEFAULT_MODEL, count, render)
    kernels = "sdpa" if small else "triton"
    return report(DEFAULT_MODEL, DEFAULT_ADAPTER, prompts, "comb", device, tokens, kernels)


def attention(small: bool) -> list[dict[str, Any]]:
    """Kernel against torch's attention."""
    from benchmarks.gpu.attention import compare, served_shapes
    from benchmarks.gpu.cases import Shape

    if small:
        return compare({"tiny": Shape(2, 1, 16, 8, device="cpu")}, [1], [20])
    return compare(served_shapes(), [1, 16], [512, 4096])


def steps(small: bool) -> dict[str, Any]:
    """Plain step and 52-row step."""
    from transformers import LlamaConfig

    from benchmarks.gpu.steps import measure, random_llama

    if small:
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
        config = LlamaConfig(vocab_size=128, num_attention_heads=4, **sizes)
        loaded = random_llama(config, torch.device("cpu"), torch.float32)
        return measure(loaded, prompt=20, steps=4, copied=1 << 24)
    loaded = random_llama(LlamaConfig(), torch.device("cuda"), torch.bfloat16)
    return measure(loaded, prompt=512, steps=64, copied=4 * GIB)


STAGES: dict[str, Callable[[bool], Any]] = {
    "correctness": correctness,
    "losslessness": losslessness,
    "attention": attention,
    "steps": steps,
}


def passed(results: dict[str, Any]) -> bool:
    """Whether all that must hold holds; times are for reading."""
    errors, lossless = results.get("correctness", {}), results.get("losslessness", {})
    return max(errors.values(), default=0.0) < LARGEST_ERROR and all(
        lossless.get(name, True)
        for name in ("g2_every_divergence_is_a_tie", "g3_no_more_than_stock")
    )


def main() -> None:
    """Run the stages, say what each found, and print one JSON document at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny sizes, kernels interpreted")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    args = parser.parse_args()
    if args.small:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    elif not torch.cuda.is_available():
        sys.exit("torch sees no GPU; --small runs without one")
    results: dict[str, Any] = {
        "device": "cpu" if args.small else torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    seconds = {}
    failed = False
    for name in args.stages:
        started = time.perf_counter()
        try:
            results[name] = STAGES[name](args.small)
        except Exception as error:  # time on a GPU is scarce: the other stages still tell something
            traceback.print_exc()
            results[name], failed = {"error": repr(error)}, True
        seconds[name] = round(time.perf_counter() - started, 1)
        print(f"{name}: {seconds[name]} s")
        found = results[name] if isinstance(results[name], list) else results[name].items()
        print(*(f"  {line}" for line in found), sep="\n", flush=True)
    results |= {"seconds": seconds, "passed": not failed and passed(results)}
    print(json.dumps(results))
    sys.exit(not results["passed"])


if __name__ == "__main__":
    main()
