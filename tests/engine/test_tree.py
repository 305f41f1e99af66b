"""The shape of draft trees, and what they carry."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speculation.tree import DraftTree, TreeTopology

some = settings(max_examples=50, deadline=None)


@st.composite
def topologies(draw: st.DrawFn) -> TreeTopology:
    """Any tree of up to 12 nodes; siblings have ranks 0, 1, ... in order."""
    parents, ranks = [-1], [0]
    for node in range(1, draw(st.integers(1, 12))):
        parent = draw(st.integers(0, node - 1))
        ranks.append(parents.count(parent))
        parents.append(parent)
    masks = draw(st.lists(st.integers(0, 4), min_size=len(parents), max_size=len(parents)))
    return TreeTopology(tuple(parents), tuple(ranks), tuple(masks))


def candidates(depth: int, width: int) -> list[list[int]]:
    """Tokens that say where they stand: 100 * (depth) + rank."""
    return [[100 * (d + 1) + rank for rank in range(width)] for d in range(depth)]


def tree_of(tokens: tuple[int, ...], parents: tuple[int, ...]) -> DraftTree:
    nothing = (0,) * len(tokens)
    return DraftTree(tokens, TreeTopology(parents, nothing, nothing), nothing)


def filled(topology: TreeTopology) -> DraftTree:
    return topology.fill(7, candidates(max(topology.depths), topology.num_ranks))


@some
@given(topologies())
def test_depths_children_and_rows_follow_from_the_parents(topology: TreeTopology) -> None:
    nodes = range(len(topology.parents))
    for node in nodes[1:]:
        assert topology.depths[node] == topology.depths[topology.parents[node]] + 1
        assert node in topology.children[topology.parents[node]]
    assert sorted(c for children in topology.children for c in children) == list(nodes[1:])
    assert topology.depths[0] == 0
    assert topology.num_rows == len(nodes) + sum(topology.masks)
    assert topology.num_ranks == 1 + max(topology.ranks)


@some
@given(topologies(), st.integers(0, 12))
def test_pruning_takes_the_deep_nodes_and_leaves_the_others_as_they_were(
    topology: TreeTopology, depth: int
) -> None:
    kept = [node for node, d in enumerate(topology.depths) if d <= depth]
    pruned = topology.pruned(depth)
    assert pruned.depths == tuple(topology.depths[node] for node in kept)
    assert pruned.ranks == tuple(topology.ranks[node] for node in kept)
    assert pruned.masks == tuple(topology.masks[node] for node in kept)
    assert [kept[p] for p in pruned.parents[1:]] == [topology.parents[n] for n in kept[1:]]
    assert pruned.pruned(depth) == pruned


@some
@given(topologies())
def test_every_node_carries_the_candidate_of_its_depth_and_rank(topology: TreeTopology) -> None:
    tree = filled(topology)
    tree.check_integrity()
    assert tree.topology == topology
    assert tree.num_drafts == len(topology.parents) - 1
    assert tree.token_ids[0] == 7
    for node in range(1, len(tree.token_ids)):
        assert tree.token_ids[node] == 100 * topology.depths[node] + topology.ranks[node]


@some
@given(topologies(), st.integers(0, 4))
def test_depths_without_candidates_are_left_out(topology: TreeTopology, depth: int) -> None:
    tree = topology.fill(7, candidates(depth, topology.num_ranks))
    tree.check_integrity()
    assert tree.topology == topology.pruned(depth)
    assert max(tree.topology.depths) == min(depth, max(topology.depths))


@some
@given(topologies())
def test_without_candidates_only_the_root_is_left(topology: TreeTopology) -> None:
    tree = topology.fill(7)
    assert tree == TreeTopology.root(topology.masks[0]).fill(7)
    assert tree.num_drafts == 0


@some
@given(topologies())
def test_a_path_leads_from_below_the_root_down_to_its_node(topology: TreeTopology) -> None:
    tree = filled(topology)
    for node, depth in enumerate(topology.depths):
        path = tree.path(node)
        assert len(path) == depth
        assert [0, *path][-1] == node
        assert [topology.parents[n] for n in path] == [0, *path][:-1]


@some
@given(topologies())
def test_a_child_is_found_by_its_token_and_no_other_node_is(topology: TreeTopology) -> None:
    tree = filled(topology)
    for node in range(len(tree.token_ids)):
        for token in {*tree.token_ids, 99}:
            found = [
                child
                for child, parent in enumerate(topology.parents)
                if parent == node and tree.token_ids[child] == token
            ]
            assert tree.child(node, token) == (found[0] if found else None)


@pytest.mark.parametrize(("width", "masks"), [(1, 1), (3, 2), (5, 3), (5, 5)])
def test_a_comb_extends_only_the_best_node_of_each_depth(width: int, masks: int) -> None:
    comb = TreeTopology.comb(width, masks)
    sizes = [comb.depths.count(depth) for depth in range(masks + 1)]
    assert sizes == [1, *(width - depth for depth in range(masks))]
    parents = [node for node, children in enumerate(comb.children) if children]
    assert [comb.depths[node] for node in parents] == list(range(masks))
    assert {comb.ranks[node] for node in parents} == {0}
    assert set(comb.masks) == {masks}


def test_the_papers_comb_has_13_nodes_and_39_masks() -> None:
    comb = TreeTopology.comb(5, 3)
    assert (len(comb.parents), sum(comb.masks), comb.num_rows) == (13, 39, 52)


def test_a_chain_is_one_path_and_a_root_is_one_row_and_its_masks() -> None:
    chain = TreeTopology.chain(3)
    assert chain.depths == (0, 1, 2, 3)
    assert chain.num_rows == 4 + 4 * 3
    assert filled(chain).path(3) == [1, 2, 3]
    assert TreeTopology.root(0).num_rows == 1
    assert TreeTopology.root(3).num_rows == 4


@some
@given(topologies())
def test_a_load_to_time_has_all_rows_of_the_tree(topology: TreeTopology) -> None:
    tree = topology.fill_with(3)
    assert tree.topology.num_rows == topology.num_rows
    assert set(tree.token_ids) == {3}


def test_ambiguous_trees_are_caught() -> None:
    twins = tree_of((7, 1, 1), (-1, 0, 0))
    with pytest.raises(AssertionError, match="node 2 repeats a sibling's token 1"):
        twins.check_integrity()
    upside_down = tree_of((7, 1, 2), (-1, 2, 0))
    with pytest.raises(AssertionError, match="node 1 comes before its parent 2"):
        upside_down.check_integrity()
    tree_of((7, 1, 1), (-1, 0, 1)).check_integrity()
