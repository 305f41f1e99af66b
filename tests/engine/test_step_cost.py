"""The machine's cost curve: kept on disk, measured anew where it cannot be read or kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import step_cost
from engine.config import EngineConfig
from engine.engine import Engine
from engine.speculation.cost import StepCostModel
from tests import factories

CURVE = StepCostModel((1, 4), (0.5, 0.75), 0.25)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "bita" / "step-cost"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most rows of every measurement made."""
    made: list[int] = []

    def measure(
        forward: object, rank: object, few: object, max_rows: int, *_: object
    ) -> StepCostModel:
        made.append(max_rows)
        return CURVE

    monkeypatch.setattr(step_cost, "measure", measure)
    return made


def start(architecture: str = "Llama", **config: int) -> Engine:
    model = factories.tiny_model(architecture)
    adapters = {"bita": factories.random_adapter(model)}
    # A small cache, for the start to be quick.
    settings = EngineConfig(model="tiny", kv_cache_memory=1 << 24, **config)
    return Engine(settings, factories.load(model, architecture), adapters)


def test_a_second_start_measures_nothing(folder: Path, measured: list[int]) -> None:
    assert start().cost == start().cost == CURVE
    assert len(measured) == len(list(folder.iterdir())) == 1


def test_another_model_or_limit_has_a_curve_of_its_own(folder: Path, measured: list[int]) -> None:
    start()
    start("Qwen2")
    start(max_num_batched_tokens=8)
    assert len(measured) == len(list(folder.iterdir())) == 3
    assert measured[-1] == 8


def test_a_broken_file_is_measured_over(folder: Path, measured: list[int]) -> None:
    start()
    for spoiled in ("", "{", '{"rows": [1]}', "[]", '"rows"'):
        (file,) = folder.iterdir()
        file.write_text(spoiled)
        assert start().cost == CURVE
    assert len(measured) == 6
    start()
    assert len(measured) == 6


def test_a_folder_that_cannot_be_written_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[int]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert start().cost == start().cost == CURVE
    assert len(measured) == 2


def test_a_fixed_tree_needs_no_curve(folder: Path, measured: list[int]) -> None:
    model = factories.tiny_model("Llama")
    engine = factories.engine(
        factories.load(model, "Llama"), {"bita": factories.random_adapter(model)}, tree="comb"
    )
    assert engine.cost is None
    assert not measured


def test_a_real_forward_is_timed(folder: Path) -> None:
    cost = start().cost
    assert cost is not None
    assert cost.rows[0] == 1
    assert all(seconds > 0 for seconds in cost.seconds)
