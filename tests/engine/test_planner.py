"""Trees fitted to hit rates, and the choice among them."""

import itertools
import random
from dataclasses import replace

import pytest

from engine.speculation.cost import Load, StepCostModel
from engine.speculation.fit import expected_length, fit_tree
from engine.speculation.planner import PLAIN, THRESHOLDS, Adaptive, named
from engine.speculation.tree import TreeTopology

ONE = Load(1, 0)
HITS = [[0.6, 0.15, 0.08], [0.5, 0.15, 0.05], [0.4, 0.1, 0.05]]


def simulated_length(topology: TreeTopology, hits: list[list[float]], steps: int) -> float:
    """Tokens a step when every depth hits a rank with its probability, group lengths included."""
    rng = random.Random(0)
    group, emitted = len(hits), 0
    for _ in range(steps):
        node, depth = 0, 0
        while depth < group:
            draw = rng.random()
            rank = next((r for r, h in enumerate(_sums(hits[depth])) if draw < h), None)
            children = [
                i
                for i, parent in enumerate(topology.parents)
                if parent == node and topology.ranks[i] == rank
            ]
            if rank is None or not children:
                break
            node, depth = children[0], depth + 1
        emitted += depth + 1
        group = topology.masks[node]
    return emitted / steps


def _sums(values: list[float]) -> list[float]:
    return [sum(values[: i + 1]) for i in range(len(values))]


@pytest.mark.parametrize("rows", [4, 8, 16, 24])
def test_the_expected_length_is_what_a_simulation_gives(rows: int) -> None:
    tree = fit_tree(HITS, rows)
    assert expected_length(tree, HITS) == pytest.approx(
        simulated_length(tree, HITS, 40_000), abs=0.03
    )


def test_more_rows_are_never_worse_and_never_exceeded() -> None:
    trees = [fit_tree(HITS, rows) for rows in range(1, 40)]
    lengths = [expected_length(tree, HITS) for tree in trees]
    assert all(tree.num_rows <= rows for rows, tree in enumerate(trees, 1))
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(lengths))
    assert lengths[0] == 1.0


def test_a_fitted_tree_beats_the_comb_at_its_size() -> None:
    comb = TreeTopology.comb(5, 3)
    assert comb.num_rows == 52
    hits = [[*row, 0.02, 0.02] for row in HITS]
    assert expected_length(fit_tree(hits, 52), hits) >= expected_length(comb, hits)


def test_flat_cost_speculates_and_linear_cost_does_not() -> None:
    flat = Adaptive(HITS, StepCostModel((1, 256), (1.0, 1.01)))
    linear = Adaptive(HITS, StepCostModel((1, 256), (1.0, 256.0)))
    assert flat.threshold(ONE) == min(THRESHOLDS)
    assert flat.first(ONE) == TreeTopology.root(3)
    assert linear.threshold(ONE) == 1.0
    assert linear.first(ONE) == PLAIN


def test_a_busy_engine_asks_more_of_a_row() -> None:
    planner = Adaptive(HITS, StepCostModel((1, 32, 256), (1.0, 1.3, 12.0)))
    thresholds = [planner.threshold(Load(n, 0)) for n in (1, 4, 16, 64)]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]


def test_what_steps_with_drafts_take_besides_counts_against_them() -> None:
    planner = Adaptive(HITS, StepCostModel((1, 256), (1.0, 1.01)))
    both, drafts = replace(ONE, overhead=9.0), replace(ONE, drafting=9.0)
    assert planner.threshold(both) == min(THRESHOLDS)
    assert planner.threshold(drafts) == 1.0


def test_names_of_trees() -> None:
    assert named("comb", HITS) == TreeTopology.comb(5, 3)
    assert named("chain", HITS) == TreeTopology.chain(3)
    assert named("fitted:12", HITS).num_rows <= 12
    for wrong in ("", "fitted:", "fitted:x", "bush"):
        with pytest.raises(ValueError, match="tree must be"):
            named(wrong, HITS)


def test_cost_is_linear_between_and_beyond_its_points() -> None:
    cost = StepCostModel((1, 3, 5), (1.0, 2.0, 6.0))
    assert [cost(n, ONE) for n in (1, 2, 3, 4, 7)] == [1.0, 1.5, 2.0, 4.0, 10.0]


def test_a_tree_is_filled_as_deep_as_something_was_drafted() -> None:
    comb = TreeTopology.comb(4, 3)
    full = comb.fill(9, [list(range(4))] * 3)
    short = comb.fill(9, [list(range(4))])
    full.check_integrity()
    assert full.num_drafts == 9
    assert short.token_ids == (9, 0, 1, 2, 3)
    assert comb.fill(9).token_ids == (9,)
    assert full.path(5) == [1, 5]
    assert full.child(1, 2) == 7
