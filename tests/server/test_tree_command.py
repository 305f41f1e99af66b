"""bita tree: what it prints, and what it says where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import step_cost
from engine.speculation.cost import StepCostModel
from server.cli import main
from server.commands import tree


def test_budgets_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {4, 64} <= set(tree.BUDGETS)
    monkeypatch.setattr(tree, "BUDGETS", (4, 8, 16))  # the larger ones take half a minute
    assert main(["tree"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    assert {"fitted:4", "fitted:16", "comb", "chain"} <= set(names)
    lengths = [
        float(line.split()[-1]) for line in lines if line.split()[:1][0:1] and "fitted:" in line
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] > 1


def test_a_budget_is_drawn_node_by_node(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tree", "--rows", "8"]) == 0
    out = capsys.readouterr().out
    assert "root" in out
    assert "rank 1" in out
    assert "tokens a forward" in out


def test_the_cost_is_shown_with_what_the_planner_makes_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []

    def measure(
        forward: object, rank: object, few: object, max_rows: int, *_: object
    ) -> StepCostModel:
        measured.append(max_rows)
        return StepCostModel((1, 32, 64), (0.01, 0.012, 1.0))

    monkeypatch.setattr(step_cost, "measure", measure)
    assert main(["tree", "--show"]) == 0
    assert main(["tree", "--show"]) == 0
    assert len(measured) == 1
    out = capsys.readouterr().out
    assert "1.20x" in out
    assert "sequences" in out
    assert main(["tree", "--measure"]) == 0
    assert len(measured) == 2


def test_what_stands_in_the_way_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["tree", "--rows", "0"]) == 1
    assert main(["tree", "--adapter", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("bita tree: ") for line in lines)
    assert str(tmp_path) in lines[1]
