"""A request whose computation goes wrong ends alone: its neighbours' tokens are what they were."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import engine.choosing
import engine.emission
import engine.engine
from engine.choosing import NOT_FINITE
from engine.engine import Engine
from engine.grammar.constraint import Constraint
from engine.model.selftest import VOCAB
from engine.process import _add
from engine.request import FinishReason, Grammar, Request, RequestOutput, SamplingParams
from engine.sequence import Sequence
from engine.speculation.drafter import Drafter
from tests import factories, grammars

POISONED = "poisoned"
FAILED = "The server could not compute this request."
PROMPTS = factories.prompts(6, longest=30)
Poison = Callable[[pytest.MonkeyPatch], dict[str, Any]]


@pytest.fixture(scope="module")
def model() -> Any:
    return factories.tiny_model("Llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grammars.model_folder(tmp_path_factory.mktemp("model"))


def build(model: Any, folder: Path) -> Engine:
    adapter = factories.random_adapter(model)
    loaded = factories.load(model, "Llama", eos=(grammars.END,))
    return factories.engine(
        loaded, {"a": adapter}, model=str(folder), tree="auto", max_num_batched_tokens=64
    )


def others() -> list[Request]:
    half = len(PROMPTS) // 2
    sampled = factories.requests(PROMPTS[:half], temperature=1.0, seed=3, logprobs=2)
    greedy = factories.requests(PROMPTS[half:])
    for number, request in enumerate(greedy, start=half):
        object.__setattr__(request, "request_id", str(number))
    return sampled + greedy


@pytest.fixture(scope="module")
def alone(model: Any, folder: Path) -> dict[str, list[int]]:
    """The tokens of the others where nobody is poisoned."""
    return factories.run(build(model, folder), others())


def raises_for(owner: Any, name: str, patch: pytest.MonkeyPatch, of: Callable[..., str]) -> None:
    """Have a function raise where `of` its arguments is the poisoned request, from its 3rd call."""
    real, calls = getattr(owner, name), []

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        if of(*args) == POISONED:
            calls.append(1)
            if len(calls) >= 3:
                raise ZeroDivisionError("poison")
        return real(*args, **kwargs)

    patch.setattr(owner, name, poisoned)


def in_processors(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    raises_for(
        engine.choosing, "_processed", patch, lambda item, *_: item.sequence.request.request_id
    )
    return {"temperature": 1.0, "seed": 1, "top_k": 9}


def in_log_probabilities(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    raises_for(engine.emission, "logprobs", patch, lambda _, __, top: POISONED if top == 9 else "")
    return {"logprobs": 9}


def in_bookkeeping(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    raises_for(Sequence, "append", patch, lambda sequence, _: sequence.request.request_id)
    return {}


def in_a_drafter(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    raises_for(Sequence, "chains", patch, lambda sequence: sequence.request.request_id)
    return {}


def in_a_grammar(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    raises_for(Constraint, "allowed", patch, lambda *_: POISONED)
    return {"grammar": Grammar("regex", "[a-z]{20}", "regex")}


@pytest.mark.parametrize(
    "poison", [in_processors, in_log_probabilities, in_bookkeeping, in_a_drafter, in_a_grammar]
)
def test_an_exception_for_one_request_ends_it_alone(
    model: Any,
    folder: Path,
    alone: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
    poison: Poison,
) -> None:
    fields = poison(monkeypatch)
    grammar = fields.pop("grammar", None)
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": 24, **fields})
    poisoned = Request(POISONED, [5, 6, 7], params, grammar=grammar)
    served = build(model, folder)
    outputs = factories.run_outputs(served, [*others(), poisoned])
    assert tokens_of(outputs) == alone
    failed(outputs[POISONED], FAILED)
    assert served.scheduler.pool.usage == 0


@pytest.mark.parametrize("length", [20, 150], ids=["whole", "in chunks"])
def test_numbers_that_are_not_finite_end_their_request_alone(
    model: Any, folder: Path, alone: dict[str, list[int]], length: int
) -> None:
    """They reach the step buffer, which nobody may read later: a mask makes no zero of them."""
    seen = {t for prompt in PROMPTS for t in prompt} | {t for out in alone.values() for t in out}
    bad = min(set(range(VOCAB)) - seen)
    broken = copy.deepcopy(model)
    broken.get_input_embeddings().weight.data[bad] = float("nan")
    served = build(broken, folder)
    prompt = [bad if place == length // 2 else place % VOCAB for place in range(length)]
    params = SamplingParams(temperature=0.0, max_tokens=24)
    for arrives in (0, 3):
        requests = [*others(), Request(POISONED, prompt, params)]
        outputs = factories.run_outputs(served, requests, [0] * len(alone) + [arrives])
        assert tokens_of(outputs) == alone
        failed(outputs[POISONED], NOT_FINITE)
    assert served.scheduler.pool.usage == 0
    storage = served.runner.storage
    assert storage.keys.isfinite().all()
    assert storage.values.isfinite().all()


def test_logits_that_are_not_finite_end_their_request_alone(
    model: Any, folder: Path, alone: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine.engine.verify

    def broken(scheduled: Any, logits: torch.Tensor, ends: Any) -> Any:
        logits = logits.clone()
        first = 0
        for item in scheduled:
            if item.sequence.request.request_id == POISONED and item.sequence.num_generated > 2:
                logits[first] = torch.nan
            first += item.num_nodes
        return real(scheduled, logits, ends)

    monkeypatch.setattr(engine.engine, "verify", broken)
    params = SamplingParams(temperature=0.0, max_tokens=24)
    outputs = factories.run_outputs(
        build(model, folder), [*others(), Request(POISONED, [5, 6, 7], params)]
    )
    assert tokens_of(outputs) == alone
    failed(outputs[POISONED], NOT_FINITE)


def test_what_nobody_foresaw_while_a_request_is_added_refuses_it(
    model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, sent = build(model, folder), []
    monkeypatch.setattr(Drafter, "__init__", lambda *_: 1 / 0)

    class Connection:
        sendall = sent.append

    _add(served, Connection(), Request("a", [1, 2, 3]))  # type: ignore[arg-type]
    assert b"Refused" in sent[0]
    assert not served.has_work


def tokens_of(outputs: dict[str, list[RequestOutput]]) -> dict[str, list[int]]:
    return {
        name: [t for output in found for t in output.token_ids]
        for name, found in outputs.items()
        if name != POISONED
    }


def failed(outputs: list[RequestOutput], why: str) -> None:
    *before, last = outputs
    assert all(output.error is None and output.finish_reason is None for output in before)
    assert (last.finish_reason, last.error, last.token_ids) == (FinishReason.ABORT, why, [])
