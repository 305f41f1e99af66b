"""What a grammar costs a step, and what two libraries take for a token's mask.

The step: an answer under a schema against as many tokens of free text after the same prompt,
decoded plainly so that every step has one row, and the schema's answer once more with drafts: of
what the schema forces alone, of all others, of all. Sides take turns within a round; the ratio is
that of the steps' median times, the speed that of whole answers.

The libraries (`--libraries`): llguidance, and xgrammar where it is installed, along the same text,
at the model's vocabulary and at one of up to 128,000 tokens trained on Python's own library; with
and without lengths that bound the schema's strings.

    python -m benchmarks.structured_output --libraries
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from adapters.format import BitaAdapter
from benchmarks import report
from engine.config import EngineConfig
from engine.engine import Engine
from engine.load import base_shape
from engine.model.loader import load_model
from engine.request import JSON_STYLE, Grammar, Request, SamplingParams
from engine.speculation.sources import NAMES
from models import DEFAULT_ADAPTER, DEFAULT_MODEL

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 30}, "maxItems": 5},
        "when": {
            "type": "object",
            "properties": {"day": {"enum": ["mon", "tue", "wed"]}, "hour": {"type": "integer"}},
            "required": ["day", "hour"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "when"],
    "additionalProperties": False,
}
TEXT = (
    '{"name": "Alexandra the Great, of Macedon", "age": 33, "tags": ["horses", '
    '"elephants and camels", "roads"], "when": {"day": "mon", "hour": 13}}'
)
PROMPT = "<|im_start|>user\nTell me who is coming and when.<|im_end|>\n<|im_start|>assistant\n"
VOCABULARY = 128_000


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds of all sides")
    parser.add_argument("--streams", type=int, default=1, help="answers at once")
    parser.add_argument("--threads", type=int, default=1, help="of the forward")
    parser.add_argument("--libraries", action="store_true", help="compare libraries as well")
    report.add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table, results = steps(args.rounds, args.streams)
    tables = [table]
    if args.libraries:
        tables.append(libraries(results))
    results["machine"] = report.machine()
    report.publish(tables, results, args.markdown)


def steps(rounds: int, streams: int) -> tuple[report.Table, dict[str, Any]]:
    """Time of a step with and without a grammar."""
    loaded = load_model(DEFAULT_MODEL, "cpu", "float32")
    adapter = BitaAdapter.load(DEFAULT_ADAPTER, base_shape(loaded))
    engine = Engine(EngineConfig(model=str(DEFAULT_MODEL)), loaded, {"bita": adapter})
    prompt = Tokenizer.from_file(f"{DEFAULT_MODEL}/tokenizer.json").encode(PROMPT).ids
    schema = Grammar("json_schema", json.dumps(SCHEMA), "schema")
    engine.grammars.compile(schema)

    def run(
        grammar: Grammar | None, drafters: tuple[str, ...], tokens: int
    ) -> tuple[list[float], int]:
        params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=grammar is None)
        wanted = {name: name in drafters for name in NAMES}
        for i in range(streams):
            engine.add(Request(str(i), prompt, params, drafters=wanted, grammar=grammar))
        seconds, count = [], 0
        engine.step()  # the prompts
        while engine.has_work:
            started = time.perf_counter()
            count += sum(len(output.token_ids) for output in engine.step())
            seconds.append(time.perf_counter() - started)
        return seconds, count

    tokens = run(schema, (), 200)[1] // streams
    sides: dict[str, tuple[Grammar | None, tuple[str, ...]]] = {
        "free": (None, ()),
        "schema": (schema, ()),
        "schema, what it forces drafted": (schema, ("grammar",)),
        "schema, others draft": (schema, tuple(name for name in NAMES if name != "grammar")),
        "schema, all draft": (schema, NAMES),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    wholes: dict[str, list[float]] = {name: [] for name in sides}
    counts: dict[str, int] = {}
    for _ in range(rounds):
        for name, (grammar, drafters) in sides.items():
            seconds, counts[name] = run(grammar, drafters, tokens + 1)
            times[name] += seconds
            wholes[name].append(sum(seconds))
    table = report.Table(
        f"a step of {streams} answers, {tokens} tokens each",
        ("side", "ms/step", "tokens/step", "schema's speed"),
    )
    results: dict[str, Any] = {"streams": streams, "tokens": tokens, "sides": {}}
    for name, seconds in times.items():
        row = {
            "ms_per_step": statistics.median(seconds) * 1e3,
            "tokens_per_step": counts[name] * rounds / len(seconds),
            "speed_of_schema": report.ratio(wholes["schema"], wholes[name]),
        }
        results["sides"][name] = row
        table.add(name, *row.values())
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    results["ratio"] = medians["schema"] / medians["free"]
    table.add("ratio schema : free", results["ratio"], "", "")
    return table, results


def libraries(results: dict[str, Any]) -> report.Table:
    """Microseconds of a mask along `TEXT`, milliseconds of compiling."""
    table = report.Table(
        "a mask along one answer",
        ("library", "vocabulary", "strings", "compile ms", "mask us, mean", "median", "highest"),
    )
    results["libraries"] = []
    own = Tokenizer.from_file(f"{DEFAULT_MODEL}/tokenizer.json")
    bounded = json.dumps(SCHEMA)
    schemas = {"any length": re.sub(r', "maxLength": \d+', "", bounded), "maxLength": bounded}
    measures = {"llguidance": _llguidance, "xgrammar": _xgrammar}
    for tokenizer, kind, name in itertools.product((own, _trained()), schemas, measures):
        try:
            compiling, masks = measures[name](tokenizer, schemas[kind], tokenizer.encode(TEXT).ids)
        except ImportError:
            continue
        us = [seconds * 1e6 for seconds in masks]
        row = [name, tokenizer.get_vocab_size(), kind, compiling * 1e3]
        row += [statistics.mean(us), statistics.median(us), max(us)]
        results["libraries"].append(dict(zip(table.columns, row, strict=True)))
        table.add(*row)
    return table


def _llguidance(tokenizer: Tokenizer, schema: str, ids: list[int]) -> tuple[float, list[float]]:
    size = tokenizer.get_vocab_size()
    tokens = LLTokenizer(tokenizer.to_str(), size, [0])
    bits = torch.empty(-(-size // 32), dtype=torch.int32)

    def compiled() -> LLMatcher:
        source = LLMatcher.grammar_from_json_schema(schema, overrides=JSON_STYLE)
        return LLMatcher(tokens, source)

    def mask(matcher: LLMatcher) -> None:
        matcher.unsafe_compute_mask_ptr(bits.data_ptr(), bits.numel() * 4)

    return _along(ids, compiled, mask, lambda matcher, token: matcher.consume_token(token))


def _xgrammar(tokenizer: Tokenizer, schema: str, ids: list[int]) -> tuple[float, list[float]]:
    import xgrammar

    size = tokenizer.get_vocab_size()
    vocabulary = [tokenizer.id_to_token(token) for token in range(size)]
    info = xgrammar.TokenizerInfo(
        vocabulary, xgrammar.VocabType.BYTE_LEVEL, vocab_size=size, stop_token_ids=[0]
    )
    bits = xgrammar.allocate_token_bitmask(1, size)

    def compiled() -> Any:
        compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        grammar = compiler.compile_json_schema(schema, any_whitespace=True)
        return xgrammar.GrammarMatcher(grammar)

    return _along(
        ids,
        compiled,
        lambda matcher: matcher.fill_next_token_bitmask(bits),
        lambda matcher, token: matcher.accept_token(token),
    )


def _along(
    ids: list[int],
    compiled: Callable[[], Any],
    mask: Callable[[Any], object],
    consume: Callable[[Any, int], bool],
) -> tuple[float, list[float]]:
    """Seconds of compiling and of each mask; the second time, when nothing is made anew."""
    for _ in range(2):
        started = time.perf_counter()
        matcher = compiled()
        compiling = time.perf_counter() - started
        masks = []
        for token in ids:
            started = time.perf_counter()
            mask(matcher)
            masks.append(time.perf_counter() - started)
            assert consume(matcher, token)
    return compiling, masks


def _trained() -> Tokenizer:
    """A byte-level vocabulary, as large as it becomes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    files = Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")
    texts = (
        file.read_text("utf-8", errors="ignore")
        for file in files
        if "site-packages" not in file.parts
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


if __name__ == "__main__":
    main()
