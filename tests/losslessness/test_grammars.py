"""Under a grammar: the tokens of plain constrained decoding, whatever is drafted."""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tokenizers import Tokenizer

from engine.engine import Engine
from engine.grammar.constraint import Constraint
from engine.model.loaded import LoadedModel
from engine.request import FinishReason, Grammar, Request, RequestOutput
from tests import factories, grammars
from tests.oracle import OracleEngine

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "ok": {"type": "boolean"},
        "n": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 4},
    },
    "required": ["name", "ok", "n"],
    "additionalProperties": False,
}
GRAMMARS = {
    "json_schema": Grammar("json_schema", json.dumps(SCHEMA), "f"),
    "regex": Grammar("regex", r"[a-f]{3}-([0-9]{2}|true){2,5}\.", "f"),
    "choice": Grammar("choice", json.dumps(["true", "truename", 'a "b"\n/c', "null"]), "f"),
    "ebnf": Grammar("ebnf", 'root ::= "(" (root | [a-z]){1,3} ")" | [0-9]', "f"),
}
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.3, "seed": 4},
    "all at once": {
        "temperature": 0.9,
        "seed": 1,
        "top_p": 0.8,
        "min_p": 0.01,
        "frequency_penalty": 1.0,
        "repetition_penalty": 1.3,
        "logit_bias": {5: 30.0},
        "min_tokens": 8,
        "logprobs": 2,
    },
}

QUICK = [("comb, not pruned", "greedy"), ("auto", "sampled")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grammars.model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return factories.load(factories.tiny_model("Llama"), "Llama", eos=(grammars.END,))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return grammars.ascii_tokenizer()


def requests(speculation: bool, max_tokens: int = 40, **sampling: Any) -> list[Request]:
    """Two prompts for every grammar."""
    prompts = factories.prompts(2 * len(GRAMMARS), seed=3)
    plain = factories.requests(prompts, max_tokens, speculation, **sampling)
    order = list(GRAMMARS.values()) * 2
    return [replace(r, grammar=g) for r, g in zip(plain, order, strict=True)]


def tokens(outputs: dict[str, list[RequestOutput]]) -> dict[str, list[int]]:
    return {name: [t for o in parts for t in o.token_ids] for name, parts in outputs.items()}


def drafted_by_an_oracle(engine: Engine, expected: dict[str, list[int]], pruned: bool) -> None:
    OracleEngine(expected, right=0.8).patch(engine)
    draft = engine.drafting.draft

    def prune(scheduled, batch, output, accepted):  # type: ignore[no-untyped-def]
        with mock.patch.object(Constraint, "prune", lambda _, tree: tree):
            draft(scheduled, batch, output, accepted)
        for sequence in engine.sequences.values():
            if pruned and sequence.draft is not None and sequence.constraint is not None:
                sequence.draft = sequence.constraint.prune(sequence.draft)

    engine.drafting.draft = prune  # type: ignore[method-assign]


def matches(name: str, text: str) -> bool:
    match name:
        case "json_schema":
            value = json.loads(text)
            return (
                list(value) == SCHEMA["required"]
                and len(value["name"]) <= 6
                and isinstance(value["ok"], bool)
                and all(isinstance(n, int) for n in value["n"])
            )
        case "choice":
            return text in json.loads(GRAMMARS["choice"].text)
        case "regex":
            return re.fullmatch(GRAMMARS["regex"].text, text) is not None
    return text.count("(") == text.count(")")


@pytest.mark.parametrize(
    ("drafting", "sampling"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in product(["comb", "comb, not pruned", "chain", "auto"], SAMPLING)
    ],
)
def test_drafts_change_no_token(loaded, folder, tokenizer, drafting, sampling) -> None:  # type: ignore[no-untyped-def]
    plain = factories.run_outputs(
        factories.engine(loaded, model=str(folder)), requests(False, **SAMPLING[sampling])
    )
    expected = tokens(plain)
    tree = drafting.split(",")[0]
    adapters = {"a": factories.random_adapter(loaded.model)}
    fast = factories.engine(loaded, adapters, model=str(folder), tree=tree)
    if tree == "comb":
        drafted_by_an_oracle(fast, expected, pruned=drafting == "comb")
    drafted = factories.run_outputs(fast, requests(True, **SAMPLING[sampling]))
    assert tokens(drafted) == expected
    if tree == "comb":
        assert fast.stats().speculation.num_accepted_tokens > 20
    for outputs, name in zip(drafted.values(), [*GRAMMARS, *GRAMMARS], strict=True):
        text = tokenizer.decode([t for o in outputs for t in o.token_ids])
        if outputs[-1].finish_reason is FinishReason.STOP:
            assert matches(name, text), text
    assert sum(o[-1].finish_reason is FinishReason.STOP for o in drafted.values()) > 5


def test_plain_constrained_decoding_is_the_masked_argmax(loaded, folder) -> None:  # type: ignore[no-untyped-def]
    """The oracle reads the whole text anew for every token, with a matcher of its own."""
    engine = factories.engine(loaded, model=str(folder))
    wanted = requests(False, max_tokens=10)
    got = factories.run(engine, wanted)
    model = loaded.model
    model.set_attn_implementation("eager")
    try:
        for request in wanted:
            assert request.grammar is not None
            answer: list[int] = []
            while grammars.END not in answer and len(answer) < 10:
                matcher = engine.grammars.compile(request.grammar)._matcher
                assert matcher.try_consume_tokens(answer) == len(answer)
                mask = int.from_bytes(matcher.compute_bitmask(), "little")
                row = model(torch.tensor([[*request.token_ids, *answer]])).logits[0, -1]
                allowed = [t for t in range(factories.VOCAB) if mask >> t & 1]
                answer.append(max(allowed, key=lambda t: float(row[t])))
            assert got[request.request_id] == answer
    finally:
        model.set_attn_implementation(factories.NAME)


def test_a_preempted_answer_goes_on_in_its_grammar(loaded, folder) -> None:  # type: ignore[no-untyped-def]
    sampling = SAMPLING["sampled"]
    expected = factories.run(
        factories.engine(loaded, model=str(folder)), requests(False, **sampling)
    )
    token_bytes = 2 * loaded.facts.num_layers * loaded.facts.num_kv_heads * loaded.facts.head_dim
    adapters = {"a": factories.random_adapter(loaded.model)}
    memory = token_bytes * 4 * 4 * 40
    tight = factories.engine(loaded, adapters, model=str(folder), kv_cache_memory=memory)
    assert factories.run(tight, requests(True, **sampling)) == expected
    assert tight.stats().num_preemptions > 0


def test_what_a_grammar_forces_is_drafted_and_always_right(loaded, folder) -> None:  # type: ignore[no-untyped-def]
    grammar = Grammar("regex", "the answer is (yes|no), and that is what it was all about", "f")
    plain = replace(factories.requests([[7, 9, 11]], 80, speculation=False)[0], grammar=grammar)
    expected = factories.run(factories.engine(loaded, model=str(folder)), [plain])
    engine = factories.engine(loaded, model=str(folder), tree="auto")
    drafting = replace(plain, speculation=True, drafters={"ngram": False})
    assert factories.run(engine, [drafting]) == expected
    stats = engine.stats()
    drafted = stats.speculation.drafted_by_source["grammar"]
    assert drafted == stats.speculation.accepted_by_source["grammar"] > 30
    assert stats.num_forwards < 12


def test_repeated_text_is_drafted_and_kept(loaded, folder) -> None:  # type: ignore[no-untyped-def]
    grammar = Grammar("regex", r"((ab|true)12){20}", "f")
    plain = replace(factories.requests([[7, 9, 11]], 80, speculation=False)[0], grammar=grammar)
    expected = factories.run(factories.engine(loaded, model=str(folder)), [plain])
    engine = factories.engine(loaded, model=str(folder), tree="auto")
    assert factories.run(engine, [replace(plain, speculation=True)]) == expected
    assert engine.stats().speculation.num_accepted_tokens > 4
