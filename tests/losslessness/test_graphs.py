"""Recorded forwards say what `generate` says, whatever is drafted.

There is no GPU to record on here. What stands in for a graph computes the recorded call again, on
the tensors it was recorded with: a step that depended on anything else would come out wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

pytest.importorskip("triton")
from engine.attention import paged
from engine.model import build, graphs
from engine.model.graphs import GraphedRunner, Outputs, Record
from tests import factories
from tests.oracle import OracleEngine


def replaying() -> Record:
    """Records as a graph does: the same call, on the same tensors, into the same outputs."""

    def record(call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], object]]:
        outputs = call()

        def replay() -> None:
            for kept, fresh in zip(outputs, call(), strict=True):
                kept.copy_(fresh)

        return outputs, replay

    return record


def refusing() -> Record:
    """Records nothing, like a model that waits for the device in its forward."""

    def record(call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], object]]:
        raise RuntimeError("operation not permitted when stream is capturing")

    return record


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels on the CPU, and few sizes: the interpreter's time goes by programs."""
    if torch.cuda.is_available():
        pytest.skip("interprets; the kernels are compiled where a GPU is")
    monkeypatch.setattr(paged, "JOINED", 256)
    monkeypatch.setattr(graphs, "ROWS", (12,))
    monkeypatch.setattr(graphs, "CONTEXTS", (64,))
    monkeypatch.setattr(build, "pick_backend", lambda *_: paged.PagedStep)


def decode(architecture: str, record: Callable[[], Record], tokens: int = 4) -> GraphedRunner:
    """Answer two prompts, drafts right most of the time, and compare with `generate`."""
    model = factories.tiny_model(architecture)
    prompts = factories.prompts(2, longest=12)
    expected = [factories.generate(model, prompt, tokens) for prompt in prompts]
    kind = type("Replayed", (GraphedRunner,), {"make_record": staticmethod(record)})
    engine = factories.engine(
        factories.load(model, architecture),
        {"bita": factories.random_adapter(model)},
        build=partial(build.build_runner, kind=kind),
    )
    OracleEngine({str(i): tokens for i, tokens in enumerate(expected)}, 0.7).patch(engine)
    got = factories.run(engine, factories.requests(prompts, max_tokens=tokens), [0, 1])
    assert list(got.values()) == expected
    assert engine.stats().speculation.num_accepted_tokens > 0
    assert isinstance(engine.runner, GraphedRunner)
    return engine.runner


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("architecture", [pytest.param("Gemma2", marks=pytest.mark.slow), "Llama"])
def test_greedy_output_is_that_of_generate(architecture: str) -> None:
    """Gemma 2 has windows and soft-capping, Llama here two query heads a KV head."""
    assert decode(architecture, replaying).num_recordings == 1


@pytest.mark.usefixtures("interpreted")
def test_a_model_that_cannot_be_recorded_runs_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "bita.engine"):
        runner = decode("Llama", refusing, tokens=3)
    assert not runner.num_recordings
    warnings = [r.getMessage() for r in caplog.records if "CUDA graphs" in r.getMessage()]
    assert len(warnings) == 1
    assert "not permitted when stream is capturing" in warnings[0]


@pytest.mark.usefixtures("interpreted")
def test_a_recording_that_computes_something_else_is_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wrong() -> Record:
        def record(call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], object]]:
            logits, hidden = call()
            return (logits + logits.abs().max(), hidden), lambda: None

        return record

    with caplog.at_level(logging.WARNING, "bita.engine"):
        runner = decode("Llama", wrong, tokens=3)
    assert not runner.num_recordings
    assert "of the largest off" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("architecture", ["Gemma2", "Llama", "Qwen3"])
def test_graphs_on_a_gpu_change_no_token(architecture: str) -> None:
    model = factories.tiny_model(architecture)
    prompts = factories.prompts(4)
    expected = [factories.generate(model, prompt) for prompt in prompts]
    loaded = replace(factories.load(model.to("cuda"), architecture), device=torch.device("cuda"))
    engine = factories.engine(
        loaded,
        {"bita": factories.random_adapter(model)},
        build=partial(build.build_runner, kind=GraphedRunner),
        attention="triton",
    )
    assert isinstance(engine.runner, GraphedRunner)
    assert engine.runner.num_recordings > 0
    got = factories.run(engine, factories.requests(prompts))
    assert list(got.values()) == expected
