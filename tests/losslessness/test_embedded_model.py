"""The embedded model, as shipped, in float32: with its adapter exactly what it says without."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from adapters.format import BitaAdapter
from benchmarks.losslessness import prompts_of
from engine.answers import EngineAnswers
from engine.config import EngineConfig
from engine.engine import Engine
from engine.load import base_shape
from engine.model.loaded import LoadedModel
from engine.model.loader import load_model
from models import DEFAULT_ADAPTER, DEFAULT_MODEL
from tests import factories

COUNT = 16
MAX_TOKENS = 32


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(DEFAULT_MODEL, "cpu", "float32")


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return prompts_of(Path(DEFAULT_MODEL), COUNT)


@pytest.fixture(scope="module")
def expected(prompts: list[list[int]]) -> list[list[int]]:
    """What transformers' own model and `generate` say."""
    model = AutoModelForCausalLM.from_pretrained(DEFAULT_MODEL, dtype="float32")
    return [factories.generate(model, p, MAX_TOKENS, stop=True) for p in prompts]


def engine(loaded: LoadedModel, tree: str, **config: int) -> Engine:
    adapter = BitaAdapter.load(DEFAULT_ADAPTER, base_shape(loaded))
    memory = 1 << 27
    settings = EngineConfig(model=str(DEFAULT_MODEL), tree=tree, kv_cache_memory=memory, **config)
    return Engine(settings, loaded, {"bita": adapter})


@pytest.mark.parametrize("tree", ["comb", "chain", "fitted:12", "auto"])
def test_every_tree_gives_the_tokens_of_generate(loaded, prompts, expected, tree) -> None:  # type: ignore[no-untyped-def]
    assert EngineAnswers(engine(loaded, tree)).answers(prompts, MAX_TOKENS) == expected


def test_one_at_a_time_gives_the_same_tokens(loaded, prompts, expected) -> None:  # type: ignore[no-untyped-def]
    source = EngineAnswers(engine(loaded, "comb", max_num_seqs=1))
    assert source.answers(prompts, MAX_TOKENS) == expected


def test_the_adapter_saves_forwards(loaded, prompts) -> None:  # type: ignore[no-untyped-def]
    fast = engine(loaded, "comb")
    EngineAnswers(fast).answers(prompts, MAX_TOKENS)
    lengths = fast.stats().speculation.acceptance_lengths
    mean = sum(n * (i + 1) for i, n in enumerate(lengths)) / sum(lengths)
    assert mean > 1.5
