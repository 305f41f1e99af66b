"""Whatever a tree drafts, what is emitted is what decoding one token at a time gives."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speculation.tree import DraftTree, TreeTopology
from engine.speculation.verify import Acceptance, walk

some = settings(max_examples=50, deadline=None)
VOCAB = 4


class Text:
    """A deterministic model: the next token depends on all tokens before it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def next(self, tokens: list[int]) -> int:
        return random.Random(f"{self.seed} {tokens}").randrange(VOCAB)

    def answer(self, tokens: list[int], length: int) -> list[int]:
        """The next `length` tokens, one at a time."""
        tokens = list(tokens)
        for _ in range(length):
            tokens.append(self.next(tokens))
        return tokens[-length:]

    def chosen(self, prompt: list[int], tree: DraftTree) -> list[int]:
        """What a forward chooses at every node: the token after the path that leads there."""
        return [
            self.next([*prompt, *(tree.token_ids[n] for n in [0, *tree.path(node)])])
            for node in range(len(tree.token_ids))
        ]


@st.composite
def trees(draw: st.DrawFn) -> DraftTree:
    """Any tree whose siblings carry different tokens, in no order."""
    parents, ranks, tokens = [-1], [0], [draw(st.integers(0, VOCAB - 1))]
    free = {0: list(range(VOCAB))}
    for node in range(1, draw(st.integers(1, 20))):
        parent = draw(st.sampled_from([n for n, left in free.items() if left]))
        tokens.append(free[parent].pop(draw(st.integers(0, len(free[parent]) - 1))))
        ranks.append(parents.count(parent))
        parents.append(parent)
        free[node] = list(range(VOCAB))
    masks = tuple(range(len(parents)))
    topology = TreeTopology(tuple(parents), tuple(ranks), masks)
    return DraftTree(tuple(tokens), topology, topology.bita)


@some
@given(trees(), st.lists(st.integers(0, VOCAB - 1), max_size=4), st.integers(0, 1000))
def test_the_emitted_tokens_are_those_of_decoding_one_at_a_time(
    tree: DraftTree, prompt: list[int], seed: int
) -> None:
    text = Text(seed)
    acceptance = walk(tree, text.chosen(prompt, tree))
    emitted = acceptance.tokens(tree)
    assert emitted == text.answer([*prompt, tree.token_ids[0]], len(acceptance.path) + 1)


@some
@given(trees(), st.integers(0, 1000))
def test_no_draft_that_is_right_is_left_behind(tree: DraftTree, seed: int) -> None:
    """The accepted path is the longest of the tree's paths that the answer begins with."""
    text = Text(seed)
    acceptance = walk(tree, text.chosen([], tree))
    longest = 0
    for node, depth in enumerate(tree.topology.depths):
        drafted = [tree.token_ids[n] for n in tree.path(node)]
        if depth and drafted == text.answer([tree.token_ids[0]], depth):
            longest = max(longest, depth)
    assert len(acceptance.path) == longest


@some
@given(trees(), st.integers(0, 1000))
def test_the_path_is_one_of_the_tree_and_ends_at_the_last_node(tree: DraftTree, seed: int) -> None:
    acceptance = walk(tree, Text(seed).chosen([], tree))
    assert acceptance.path == tree.path(acceptance.last_node)
    assert tree.child(acceptance.last_node, acceptance.bonus_token) is None


CHAIN = TreeTopology.chain(3).fill(9, [[1], [2], [3]])


@pytest.mark.parametrize(
    ("chosen", "path", "bonus"),
    [
        ([5, 2, 3, 4], [], 5),  # never right: what comes after a wrong draft is of no use
        ([1, 2, 3, 4], [1, 2, 3], 4),  # always right
        ([1, 5, 3, 4], [1], 5),  # right at first
    ],
    ids=["never", "always", "sometimes"],
)
def test_drafts_are_accepted_up_to_the_first_wrong_one(
    chosen: list[int], path: list[int], bonus: int
) -> None:
    assert walk(CHAIN, chosen) == Acceptance(path, bonus)


def test_a_bare_root_emits_the_token_chosen_there() -> None:
    tree = TreeTopology.root(3).fill(9)
    acceptance = walk(tree, [4])
    assert acceptance.tokens(tree) == [4]
    assert acceptance.last_node == 0


def test_a_token_that_stands_elsewhere_in_the_tree_is_not_accepted() -> None:
    """Node 3 carries the token chosen at node 1, but hangs on node 2."""
    topology = TreeTopology((-1, 0, 0, 2), (0, 0, 1, 0), (0, 0, 0, 0))
    tree = DraftTree((9, 1, 2, 5), topology, topology.bita)
    assert walk(tree, [1, 5, 8, 8]) == Acceptance([1], 5)
