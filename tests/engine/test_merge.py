"""Chains and masks' children in one tree, and which rows of chains pay."""

from __future__ import annotations

import itertools
import random

import pytest

from engine.speculation.cost import Load, StepCostModel
from engine.speculation.drafter import Chain
from engine.speculation.growth import Unranked, grow, mask_groups
from engine.speculation.planner import Adaptive
from engine.speculation.sources import BITA, GRAMMAR, NGRAM, PREDICTION
from engine.speculation.tree import MAX_ROWS, DraftTree
from tests.engine.test_growth import Table

PROMISE = [0.8, 0.5, 0.3]
ONE = Load(1, 0)
FLAT = StepCostModel((1, 64, 256), (1.0, 1.2, 2.0))
STEEP = StepCostModel((1, 64, 256), (1.0, 64.0, 256.0))


def chain(source: int, tokens: list[int], share: float = 0.9) -> Chain:
    return Chain(source, tokens, [share] * len(tokens))


def paths(tree: DraftTree) -> dict[tuple[int, ...], int]:
    """Tokens from the root down to every node -> who proposed it."""
    return {
        tuple(tree.token_ids[n] for n in tree.path(node)): tree.sources[node]
        for node in range(1, len(tree.token_ids))
    }


def test_chains_that_begin_alike_share_their_nodes() -> None:
    chains = [chain(NGRAM, [1, 2, 3]), chain(PREDICTION, [1, 2, 4, 5])]
    (tree,) = grow(Unranked([9], [1.0]), 0.05, (), [chains])
    tree.check_integrity()
    both = NGRAM | PREDICTION
    assert paths(tree) == {
        (1,): both,
        (1, 2): both,
        (1, 2, 3): NGRAM,
        (1, 2, 4): PREDICTION,
        (1, 2, 4, 5): PREDICTION,
    }


def test_what_a_grammar_forces_leaves_no_room_for_others() -> None:
    """The table's children of 100 are 1000, 1001, ..."""
    forced = chain(GRAMMAR, [7, 8, 9], 1.0)
    others = [chain(NGRAM, [7, 8, 4]), chain(PREDICTION, [5, 6])]
    (tree,) = grow(Table([2]), 0.05, PROMISE, [[*others, forced]])
    assert paths(tree) == {(7,): NGRAM | GRAMMAR, (7, 8): NGRAM | GRAMMAR, (7, 8, 9): GRAMMAR}
    assert tree.reached[-1] == 1.0


def test_a_chain_joins_the_masks_children_of_its_tokens_and_goes_on_below_them() -> None:
    """The table's children of 100 are 1000, 1001, ... and theirs begin with ten times as much."""
    own = chain(PREDICTION, [1000, 10001, 7, 8, 9])
    (tree,) = grow(Table([2]), 0.05, PROMISE, [[own]])
    tree.check_integrity()
    found = paths(tree)
    assert found[1000,] == found[1000, 10001] == BITA | PREDICTION
    assert found[1001,] == BITA
    assert found[1000, 10001, 7, 8, 9] == PREDICTION
    assert max(tree.topology.depths) == 5


def test_children_of_one_node_are_together_no_likelier_than_one() -> None:
    contradicting = [chain(NGRAM, [1, 2], 0.9), chain(PREDICTION, [3, 4], 0.9)]
    (tree,) = grow(Unranked([9], [1.0]), 0.4, (), [contradicting])
    assert set(paths(tree)) == {(1,), (3,), (1, 2), (3, 4)}
    (tree,) = grow(Unranked([9], [1.0]), 0.51, (), [contradicting])
    assert not paths(tree)


def test_only_the_trees_own_chains_are_merged_in() -> None:
    trees = grow(Table([2, 2]), 0.05, PROMISE, [[chain(NGRAM, [7, 8, 9])], []])
    assert NGRAM in trees[0].sources
    assert set(trees[1].sources) == {0, BITA}
    assert trees[1] == grow(Table([2, 2]), 0.05, PROMISE)[1]


def test_a_chain_is_as_long_as_it_is_worth() -> None:
    for threshold in (0.8, 0.5, 0.2):
        (tree,) = grow(Unranked([9], [1.0]), threshold, (), [[chain(NGRAM, list(range(20)))]])
        assert 0.9**tree.num_drafts >= threshold > 0.9 ** (tree.num_drafts + 1)


@pytest.mark.parametrize("masks", [0, 3, 6])
def test_rows_are_bounded_whatever_is_proposed(masks: int) -> None:
    rng = random.Random(masks)
    chains = [
        chain(source, [rng.randrange(3) for _ in range(90)], 0.999)
        for source in (NGRAM, PREDICTION, PREDICTION, NGRAM)
    ]
    ranker = Table([masks], 0.9) if masks else Unranked([9], [1.0])
    (tree,) = grow(ranker, 1e-6, [0.9] * masks, [chains])
    tree.check_integrity()
    assert tree.topology.num_rows == MAX_ROWS


def test_where_a_chain_was_cut_it_goes_on_and_needs_fewer_masks() -> None:
    parents, reached = [-1, 0], [1.0, 0.9]
    assert mask_groups(parents, reached, 0.1, PROMISE)[1] == 3
    assert mask_groups(parents, reached, 0.1, PROMISE, {1: 0.8})[1] == 1
    assert mask_groups(parents, reached, 0.1, PROMISE, {1: 1.0})[1] == 0


def test_chains_are_drafted_as_far_as_their_rows_pay() -> None:
    chains = [[chain(NGRAM, list(range(40)), 0.95)]]

    def drafts(cost: StepCostModel) -> int:
        return Adaptive((), cost).draft(Unranked([9], [1.0]), chains, ONE)[0].num_drafts

    assert drafts(STEEP) == 0
    assert drafts(FLAT) == 40
    counts = [drafts(StepCostModel((1, 64), (1.0, most))) for most in (2.0, 4.0, 16.0, 32.0)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 2


def test_the_rows_taken_are_those_that_raise_the_steps_rate_most() -> None:
    cost = StepCostModel((1, 4, 8, 64), (1.0, 1.3, 1.35, 4.0))
    shares = [0.5, 0.9, 0.9, 0.9, 0.9, 0.4, 0.9, 0.9]
    worth = list(itertools.accumulate([1.0, *shares], lambda a, b: a * b))
    rates = [sum(worth[: n + 1]) / cost(n + 1, ONE) for n in range(len(worth))]
    best = max(range(len(rates)), key=rates.__getitem__)
    chains = [[Chain(NGRAM, list(range(8)), shares)]]
    assert Adaptive((), cost).draft(Unranked([9], [1.0]), chains, ONE)[0].num_drafts == best > 0


def test_chains_pay_where_masks_do_not() -> None:
    """Two sequences: a chain's rows earn in this step, masks only in the next."""
    hopeless = [[0.05], [0.05]]
    planner = Adaptive(hopeless, StepCostModel((1, 64), (1.0, 4.0)))
    assert planner.threshold(ONE) == 1.0
    (tree,) = planner.draft(Table([2]), [[chain(PREDICTION, [1, 2, 3], 0.9)]], ONE)
    assert tree.num_drafts == 3
    assert sum(tree.topology.masks) == 0


def test_a_busy_engine_drafts_shorter_chains() -> None:
    planner = Adaptive((), StepCostModel((1, 32, 256), (1.0, 1.3, 12.0)))
    lengths = []
    for streams in (1, 8, 64):
        own = [[chain(NGRAM, list(range(40)), 0.9)] for _ in range(streams)]
        trees = planner.draft(Unranked([9] * streams, [1.0] * streams), own, Load(streams, 0))
        lengths.append(trees[0].num_drafts)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 10
    assert lengths[-1] <= 2
