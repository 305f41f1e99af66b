"""A compiled model says what the model says; where it cannot be compiled, the start says why."""

from __future__ import annotations

import functools
import shutil

import pytest
import torch

from engine.errors import EngineError
from engine.model.linears import OneDnnLinear, pack, packing
from tests import factories

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
slow = (
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU takes g++"),
)


@pytest.mark.parametrize(
    ("architecture", "backend"),
    [
        *(pytest.param(a, "aot_eager", marks=slow) for a in ("Llama", "Gemma2")),
        *(pytest.param(a, "inductor", marks=slow) for a in ("Llama", "Gemma2", "Mistral", "GPT2")),
    ],
)
def test_greedy_output_is_that_of_generate(
    architecture: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first backend captures the same graphs and compiles nothing, so that it is quick."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    model = factories.tiny_model(architecture)
    prompts = factories.prompts(8)
    expected = [factories.generate(model, prompt) for prompt in prompts]
    adapters = {"bita": factories.random_adapter(model)}
    engine = factories.engine(factories.load(model, architecture), adapters, compile=True)
    got = factories.run(engine, factories.requests(prompts), [0, 0, 0, 1, 3, 5, 9, 40])
    assert list(got.values()) == expected
    assert engine.stats().rows["mask"] > 0


@pytest.mark.parametrize("backend", [pytest.param("inductor", marks=slow), "eager"])
def test_packed_layers_of_a_compiled_model_say_what_the_usual_ones_say(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second backend runs what was captured as it is."""
    if packing(torch.float32) is None:
        pytest.skip("no library packs layers here")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    model = factories.tiny_model("Llama")
    prompts = factories.prompts(8)
    expected = [factories.generate(model, prompt) for prompt in prompts]
    pack(model, OneDnnLinear)
    adapters = {"bita": factories.random_adapter(model)}
    engine = factories.engine(factories.load(model, "Llama"), adapters, compile=True)
    assert list(factories.run(engine, factories.requests(prompts)).values()) == expected


def test_a_model_whose_attention_is_its_own_is_not_compiled() -> None:
    loaded = factories.load(factories.tiny_model("Falcon"), "Falcon")
    with pytest.raises(EngineError, match="falcon model cannot be compiled"):
        factories.engine(loaded, compile=True)


def test_a_compiler_that_fails_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        def forward(*_: object, **__: object) -> None:
            raise RuntimeError("no C++ compiler found\nand much more")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    loaded = factories.load(factories.tiny_model("Llama"), "Llama")
    with pytest.raises(EngineError) as error:
        factories.engine(loaded, compile=True)
    assert str(error.value) == "the model cannot be compiled here: no C++ compiler found"
