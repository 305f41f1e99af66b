"""What a tree is worth, against counting every way a step can go."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speculation.fit import expected_length, fit_tree
from engine.speculation.tree import TreeTopology

Hits = list[list[float]]
HITS: Hits = [[0.6, 0.15, 0.08], [0.5, 0.15, 0.05], [0.4, 0.1, 0.05]]
SURE: Hits = [[0.97, 0.01], [0.96, 0.01], [0.95, 0.01]]


def steps(topology: TreeTopology, hits: Hits, group: int) -> list[tuple[float, int, int]]:
    """Every way a step drafted by `group` masks can go: probability, tokens, next group.

    At each depth one rank is right, or none; the step ends where the right one is no child.
    """
    outcomes = []
    for ranks in itertools.product(range(len(hits[0]) + 1), repeat=len(hits)):
        chance, node = 1.0, 0
        for depth, rank in enumerate(ranks):
            row = hits[depth]
            chance *= row[rank] if rank < len(row) else 1 - sum(row)
        path = 0
        for rank in ranks[:group]:
            children = [c for c in topology.children[node] if topology.ranks[c] == rank]
            if not children:
                break
            node, path = children[0], path + 1
        outcomes.append((chance, path + 1, topology.masks[node]))
    return outcomes


def exact_length(topology: TreeTopology, hits: Hits) -> float:
    """Mean tokens of a step in the long run."""
    groups = len(hits) + 1
    move, tokens = np.zeros((groups, groups)), np.zeros(groups)
    for group in range(groups):
        for chance, emitted, after in steps(topology, hits, group):
            move[group, after] += chance
            tokens[group] += chance * emitted
    # There is always a way to miss, so to the root's group: the long run is one, and unique.
    equations = np.vstack([move.T - np.eye(groups), np.ones(groups)])
    shares = np.linalg.lstsq(equations, np.eye(groups + 1)[-1], rcond=None)[0]
    return float(shares @ tokens)


@st.composite
def profiles(draw: st.DrawFn) -> Hits:
    """Hit rates of up to three masks and three ranks, that leave room for a miss."""
    masks, ranks = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    hits = []
    for _ in range(masks):
        weights = [draw(st.floats(0.01, 1.0)) for _ in range(ranks)]
        scale = draw(st.floats(0.05, 0.98)) / sum(weights)
        hits.append(sorted((w * scale for w in weights), reverse=True))
    return hits


@st.composite
def drafting(draw: st.DrawFn) -> tuple[TreeTopology, Hits]:
    """A tree that hit rates reach, with groups of any length."""
    hits = draw(profiles())
    parents, ranks, depths = [-1], [0], [0]
    for _ in range(draw(st.integers(0, 6))):
        open_ = [
            n
            for n, depth in enumerate(depths)
            if depth < len(hits) and parents.count(n) < len(hits[0])
        ]
        if not open_:
            break
        parent = draw(st.sampled_from(open_))
        ranks.append(parents.count(parent))
        parents.append(parent)
        depths.append(depths[parent] + 1)
    groups = draw(st.lists(st.integers(0, len(hits)), min_size=len(parents), max_size=len(parents)))
    return TreeTopology(tuple(parents), tuple(ranks), tuple(groups)), hits


@settings(deadline=None)
@given(drafting())
def test_the_expected_length_is_the_mean_of_every_way_steps_can_go(
    case: tuple[TreeTopology, Hits],
) -> None:
    topology, hits = case
    assert expected_length(topology, hits) == pytest.approx(exact_length(topology, hits), rel=1e-6)


@pytest.mark.parametrize("hit", [0.5, 0.95, 1.0])
def test_a_short_group_behind_a_likely_node_is_paid_for_a_step_later(hit: float) -> None:
    """Two tokens, then a single one, for nothing was drafted; and again."""
    tree = TreeTopology((-1, 0), (0, 0), (1, 0))
    assert expected_length(tree, [[hit]]) == pytest.approx(1 + hit / (1 + hit))


def test_groups_that_are_seldom_left_short_are_left_short_in_the_end() -> None:
    """Without masks behind the root, one wrong draft is the end of drafting."""
    tree = TreeTopology((-1, 0), (0, 0), (0, 1))
    assert expected_length(tree, [[0.99]]) == pytest.approx(1.0)


def test_full_groups_make_every_step_alike() -> None:
    chain = TreeTopology.chain(3)
    first, second, third = (row[0] for row in HITS)
    assert expected_length(chain, HITS) == pytest.approx(
        1 + first + first * second + first * second * third
    )


def test_plain_decoding_emits_one_token() -> None:
    assert expected_length(TreeTopology.root(0), HITS) == 1.0
    assert expected_length(TreeTopology.root(3), HITS) == 1.0


@pytest.mark.parametrize("hits", [HITS, SURE, [[0.05, 0.04, 0.03]] * 2])
@pytest.mark.parametrize("rows", [2, 5, 9, 16, 30])
def test_a_fitted_tree_keeps_to_its_rows_and_drafts_what_is_measured(hits: Hits, rows: int) -> None:
    tree = fit_tree(hits, rows)
    assert tree.num_rows <= rows
    assert max(tree.depths) <= len(hits)
    assert max(tree.masks) <= len(hits)
    assert tree.num_ranks <= len(hits[0])
    siblings = [(p, r) for p, r in zip(tree.parents, tree.ranks, strict=True)]
    assert len(set(siblings)) == len(siblings)
    for children in tree.children:
        assert [tree.ranks[c] for c in children] == list(range(len(children)))


@pytest.mark.parametrize("hits", [HITS, SURE])
def test_as_soon_as_there_are_rows_for_a_draft_and_its_mask_they_are_used(hits: Hits) -> None:
    assert [fit_tree(hits, rows) for rows in (1, 2)] == [TreeTopology.root(0)] * 2
    for rows in range(3, 12):
        assert fit_tree(hits, rows).depths.count(1) >= 1
        assert expected_length(fit_tree(hits, rows), hits) > 1.3


@pytest.mark.parametrize("rows", [4, 6, 8])
def test_no_tree_of_so_few_rows_is_worth_a_twentieth_more(rows: int) -> None:
    """Growing greedily is checked against all trees, with groups of any length."""
    hits = [row[:2] for row in HITS[:2]]
    best = max(exact_length(tree, hits) for tree in every_tree(2, 2, rows))
    assert expected_length(fit_tree(hits, rows), hits) >= 0.95 * best


def every_tree(masks: int, ranks: int, rows: int) -> list[TreeTopology]:
    """All trees of at most `rows` rows, without those that leave out a better sibling."""
    shapes = {((-1,), (0,))}
    frontier = shapes
    while frontier:
        larger = set()
        for parents, taken in frontier:
            depths = TreeTopology(parents, taken, (0,) * len(parents)).depths
            for parent, depth in enumerate(depths):
                rank = parents.count(parent)
                if depth < masks and rank < ranks and len(parents) < rows and parent >= parents[-1]:
                    larger.add(((*parents, parent), (*taken, rank)))
        shapes = shapes | larger
        frontier = larger
    return [
        TreeTopology(parents, taken, groups)
        for parents, taken in shapes
        for groups in itertools.product(range(masks + 1), repeat=len(parents))
        if len(parents) + sum(groups) <= rows
    ]
