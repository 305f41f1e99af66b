"""Trees grown by worth, trees of a given shape, and that serving drafts as tuning trained."""

import random
from collections.abc import Sequence

import pytest
import torch

from adapters.successor import Successor
from adapters.tuning.target import TargetModel
from adapters.tuning.trainer import Contexts, run_groups
from engine.speculation.bita import Branches, DraftHead, Guide, MaskGroup, Parent
from engine.speculation.growth import MAX_NODES, fill, grow, mask_groups
from engine.speculation.tree import MAX_ROWS, DraftTree, TreeTopology
from tests.adapters import tiny


class Table:
    """Ranks children from random, descending shares that depend on the parent's token."""

    def __init__(self, sizes: list[int], confidence: float = 0.6) -> None:
        self.sizes, self.roots = sizes, [100 + i for i in range(len(sizes))]
        self.trusts = [1.0] * len(sizes)
        self.confidence = confidence
        self.calls: list[list[Parent]] = []

    def rank(
        self, parents: Sequence[Parent], width: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        self.calls.append(list(parents))
        tokens, shares = [], []
        for parent in parents:
            rng = random.Random(parent.token)
            first = parent.token * 10
            tokens.append([first + rank for rank in range(width)])
            top = self.confidence * rng.uniform(0.7, 1.3)
            shares.append([top * (1 - top) ** rank for rank in range(width)])
        return tokens, shares


def reached(tree: DraftTree, confidence: float) -> list[float]:
    """Probability of every node, from the table again."""
    table, out = Table([9], confidence), [1.0]
    for node in range(1, len(tree.token_ids)):
        parent = tree.topology.parents[node]
        _, shares = table.rank([Parent(0, tree.token_ids[parent], 0)], 8)
        out.append(out[parent] * shares[0][tree.topology.ranks[node]])
    return out


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.05])
def test_a_grown_tree_holds_exactly_the_nodes_worth_the_threshold(threshold: float) -> None:
    tree = grow(Table([3]), threshold, [0.8, 0.5, 0.3])[0]
    tree.check_integrity()
    worth = reached(tree, 0.6)
    assert min(worth) >= threshold
    larger = grow(Table([3]), threshold / 2, [0.8, 0.5, 0.3])[0]
    left_out = set(larger.token_ids) - set(tree.token_ids)
    others = [
        w for w, t in zip(reached(larger, 0.6), larger.token_ids, strict=True) if t in left_out
    ]
    assert all(w < threshold for w in others)


def test_a_tree_is_no_deeper_than_its_mask_group() -> None:
    trees = grow(Table([1, 4, 2], 0.95), 0.01, [0.9] * 4)
    assert [max(tree.topology.depths) for tree in trees] == [1, 4, 2]
    assert [tree.token_ids[0] for tree in trees] == [100, 101, 102]


def test_a_confident_drafter_gets_a_chain_and_an_unsure_one_a_bush() -> None:
    sure = grow(Table([4], 0.76), 0.1, [0.9] * 4)[0].topology
    unsure = grow(Table([4], 0.3), 0.05, [0.9] * 4)[0].topology
    assert max(sure.depths) == 4
    assert max(unsure.depths) < 4
    assert len(unsure.children[0]) > len(sure.children[0])


def test_a_drafter_that_is_not_trusted_gets_fewer_rows() -> None:
    table = Table([4, 4, 4], 0.7)
    table.roots, table.trusts = [100] * 3, [1.0, 0.5, 0.05]
    full, half, none = (tree.topology for tree in grow(table, 0.1, [0.9, 0.8, 0.7, 0.6]))
    assert full.num_rows > half.num_rows > none.num_rows == 1


def test_a_level_that_cannot_bring_what_it_costs_is_not_ranked() -> None:
    deep, flat = Table([4], 0.5), Table([4], 0.5)
    grow(deep, 0.1, [0.9] * 4)
    tree = grow(flat, 0.1, [0.9] * 4, level=0.6)[0]
    assert len(deep.calls) == 4
    assert max(tree.topology.depths) == len(flat.calls) < 4
    nothing = grow(Table([4], 0.7), 0.01, [0.9] * 4, level=1.0)[0]
    assert nothing.num_drafts == 0


def test_rows_are_capped_whatever_they_are_worth() -> None:
    tree = grow(Table([8], 0.45), 1e-6, [0.99] * 8)[0].topology
    assert len(tree.parents) == MAX_NODES
    assert tree.num_rows == MAX_ROWS


def test_masks_stand_behind_nodes_that_are_likely_to_be_the_last() -> None:
    # A root with two children: the first is accepted with 0.8, its own child with 0.7.
    sizes = mask_groups([-1, 0, 0, 1], [1.0, 0.8, 0.05, 0.7], 0.1, [0.9, 0.8, 0.4])
    assert sizes[3] == 3  # the last accepted one with 0.7
    assert sizes[0] == 2  # with 0.15
    assert sizes[2] == 0  # with 0.05
    assert mask_groups([-1], [1.0], 1.0, [0.9]) == (0,)


def test_a_child_names_its_parent_in_the_call_before() -> None:
    table = Table([3, 3], 0.7)
    grow(table, 0.1, [0.8] * 3)
    for before, call in zip(table.calls, table.calls[1:], strict=False):
        for parent in call:
            assert parent.token // 10 == before[parent.before].token
            assert parent.group == before[parent.before].group


def test_a_given_shape_is_filled_with_each_parents_own_children() -> None:
    comb = TreeTopology.comb(4, 3)
    full, short = fill(comb, Table([3, 1]))
    assert full.topology == comb
    assert short.topology == comb.pruned(1)
    for tree in (full, short):
        tree.check_integrity()
        for node in range(1, len(tree.token_ids)):
            parent = tree.token_ids[tree.topology.parents[node]]
            assert tree.token_ids[node] == parent * 10 + tree.topology.ranks[node]


@pytest.mark.parametrize("rank", [0, 5])
def test_serving_ranks_the_true_path_as_tuning_trained_it(rank: int) -> None:
    """The successor head is led by known tokens in both, and gives equal probabilities."""
    masks, anchor = 3, 10
    model = tiny.llama()
    sample = tiny.answered(model, 1)[0]
    target = TargetModel(model)
    torch.manual_seed(0)
    prompts = torch.randn(tiny.LAYERS, 2, tiny.KV_HEADS, 2, tiny.HEAD_DIM)
    embeddings = torch.randn(masks, tiny.HIDDEN)
    shapes = Successor.shapes(tiny.HIDDEN, masks, rank)
    successor = Successor(**{n: torch.randn(s) for n, s in shapes.items()}) if rank else None

    def trained(head: Successor | None) -> torch.Tensor:
        contexts = Contexts(target, 0)
        logits, _ = run_groups(target, [sample], [[anchor]], prompts, embeddings, contexts, head)
        return logits[0]

    keep, target.head = target.head, torch.nn.Identity()
    hidden = trained(None)
    target.head = keep
    group = MaskGroup(hidden, sample.token_ids[anchor], [None] * masks)
    temperatures = [0.5, 1.0, 2.0]
    guide = None
    if successor is not None:
        guide = Guide(successor, lambda tokens: successor.read_token(target.embedding(tokens)))
    branches = Branches([group, group], temperatures, DraftHead(target.head, guide=guide))
    expected = (trained(successor) / torch.tensor(temperatures)[:, None]).softmax(dim=-1)
    for mask in range(masks):
        token = sample.token_ids[anchor + mask]
        parents = [Parent(0, token, 0), Parent(1, token, min(mask, 1))]
        tokens, shares = branches.rank(parents, 4)
        assert tokens[0] == tokens[1] == expected[mask].topk(4).indices.tolist()
        assert shares[0] == pytest.approx(expected[mask].topk(4).values.tolist(), rel=1e-3)
