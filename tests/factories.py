"""Tiny random models of many architectures, adapters for them, and engines around both."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import torch
import transformers
from transformers import AutoModelForCausalLM

from adapters.format import AdapterConfig, BitaAdapter
from adapters.profile import HitProfile
from adapters.successor import Successor
from engine.attention.interface import NAME
from engine.config import EngineConfig
from engine.engine import Engine
from engine.model.build import Build, build_runner
from engine.model.facts import model_facts
from engine.model.loaded import LoadedModel
from engine.model.runner import Route
from engine.model.selftest import VOCAB, shrink
from engine.request import Request, RequestOutput, SamplingParams
from engine.speculation.cost import StepCostModel

INTERFACE = [
    *("Llama", "Qwen2", "Qwen3", "Mistral", "Gemma2", "Gemma3Text", "Phi3", "GPTNeoX"),
    *("OPT", "GPT2", "Granite", "Olmo2", "Llama4Text", "Mixtral", "Qwen3Moe"),
]
MASK = ["Falcon", "GPTJ"]
COST = StepCostModel((1, 64, 256), (1.0, 1.5, 6.0))


def tiny_config(architecture: str, ranks: int = 1) -> Any:
    """A shrunk default configuration, for instance of "Llama", that so many ranks can share."""
    config = getattr(transformers, f"{architecture}Config")()
    if architecture in ("Llama", "Mistral", "Qwen2", "Phi3"):
        config.num_key_value_heads = config.num_attention_heads // 2
    if architecture == "Mistral":
        config.sliding_window = 12
    return shrink(config, ranks)


def tiny_model(architecture: str, seed: int = 0, ranks: int = 1) -> Any:
    """A random model in float32 whose tokens vary, and that so many ranks can share."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        tiny_config(architecture, ranks), attn_implementation="eager", dtype=torch.float32
    ).eval()
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.mul_(3.0)
    return model


def load(model: Any, architecture: str, eos: tuple[int, ...] = ()) -> LoadedModel:
    """The model as the loader would hand it to the engine."""
    route = Route.MASK if architecture in MASK else Route.INTERFACE
    if route is Route.INTERFACE:
        model.set_attn_implementation(NAME)
    return LoadedModel(
        model=model,
        facts=model_facts(model.config),
        route=route,
        architecture=architecture,
        eos_token_ids=eos,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def random_adapter(
    model: Any, seed: int = 1, prompts: int = 4, masks: int = 3, rank: int = 6, drafted: int = 0
) -> BitaAdapter:
    """An adapter nobody tuned: its drafts are noise, which must change no output.

    drafted: size of its draft vocabulary, 0 for all tokens.
    """
    facts = model_facts(model.config)
    generator = torch.Generator().manual_seed(seed)
    kv_shape = (facts.num_layers, 2, facts.num_kv_heads, prompts, facts.head_dim)
    width = model.get_input_embeddings().weight.shape[1]
    rates = [[0.4 / (rank + 1) for rank in range(5)] for _ in range(masks)]
    config = AdapterConfig(
        model_type=model.config.model_type,
        hidden_size=facts.hidden_size,
        num_layers=facts.num_layers,
        num_kv_heads=facts.num_kv_heads,
        head_dim=facts.head_dim,
        vocab_size=facts.vocab_size,
        num_prompts=prompts,
        num_masks=masks,
        profile=HitProfile(rates=rates, counts=[100] * masks),
        successor_rank=rank,
        num_draft_tokens=drafted,
    )
    shapes = Successor.shapes(width, masks, rank).items()
    head = {name: torch.randn(shape, generator=generator) for name, shape in shapes}
    return BitaAdapter(
        config,
        torch.randn(kv_shape, generator=generator),
        torch.randn(masks, width, generator=generator),
        Successor(**head) if rank else None,
        torch.randperm(VOCAB, generator=generator)[:drafted].sort().values if drafted else None,
    )


def engine(
    loaded: LoadedModel,
    adapters: Mapping[str, BitaAdapter] | None = None,
    build: Build = build_runner,
    **config: Any,
) -> Engine:
    """An engine with small blocks, so that tests cross block borders often.

    build: how its runner is made. With the tree "auto" its rows cost what `COST` says, on every
    machine.
    """
    defaults: dict[str, Any] = {
        "model": "tiny",
        "tree": "comb",
        "block_size": 4,
        "max_num_batched_tokens": 256,
        "kv_cache_memory": 1 << 24,
    }
    with mock.patch("engine.engine.step_cost", return_value=COST):
        return Engine(EngineConfig(**{**defaults, **config}), loaded, adapters or {}, build)


def prompts(count: int, seed: int = 0, longest: int = 40) -> list[list[int]]:
    """Random prompts of random lengths."""
    rng = random.Random(seed)
    return [[rng.randrange(VOCAB) for _ in range(rng.randint(2, longest))] for _ in range(count)]


def requests(
    prompts: Sequence[list[int]], max_tokens: int = 24, speculation: bool = True, **sampling: Any
) -> list[Request]:
    """A request a prompt, greedy unless told otherwise."""
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": max_tokens, **sampling})
    return [
        Request(str(i), prompt, params, speculation=speculation) for i, prompt in enumerate(prompts)
    ]


def run(
    engine: Engine, requests: Sequence[Request], arrivals: Sequence[int] | None = None
) -> dict[str, list[int]]:
    """Serve the requests, number i from step `arrivals[i]` on; the tokens of each."""
    return {
        name: [t for o in outputs for t in o.token_ids]
        for name, outputs in run_outputs(engine, requests, arrivals).items()
    }


def run_outputs(
    engine: Engine, requests: Sequence[Request], arrivals: Sequence[int] | None = None
) -> dict[str, list[RequestOutput]]:
    """As `run`, with all outputs; invariants are checked after every step."""
    outputs: dict[str, list[RequestOutput]] = {r.request_id: [] for r in requests}
    pending = sorted(
        zip(arrivals or [0] * len(requests), requests, strict=True), key=lambda p: p[0]
    )
    step = 0
    while pending or engine.has_work:
        while pending and pending[0][0] <= step:
            engine.add(pending.pop(0)[1])
        for output in engine.step():
            outputs[output.request_id].append(output)
        engine.scheduler.check_integrity()
        step += 1
        assert step < 10_000, "the engine makes no progress"
    return outputs


def generate(model: Any, prompt: list[int], max_tokens: int = 24, stop: bool = False) -> list[int]:
    """What transformers' `generate` gives for a prompt, greedily, with its stock attention.

    stop: end at the model's end-of-sequence token; otherwise always `max_tokens` tokens.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            output = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                max_new_tokens=max_tokens,
                min_new_tokens=None if stop else max_tokens,
                do_sample=False,
                pad_token_id=0,
            )
    finally:
        model.set_attn_implementation(before)
    return output[0, len(prompt) :].tolist()
