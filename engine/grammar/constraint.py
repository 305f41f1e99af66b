"""One sequence's place in its grammar, and what it allows at every node of a draft tree."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engine.speculation.tree import DraftTree

if TYPE_CHECKING:
    from llguidance import LLMatcher


class Constraint:
    """Stands behind the last emitted token; every look at a tree leaves it there.

    matcher: of this sequence alone. ends: tokens that end an answer, allowed where the grammar may
        end; they are no part of what it reads. vocab_size: of the logits.
    failed: the grammar can go on with no token this model has, or outgrew its limits.
    """

    def __init__(self, matcher: LLMatcher, ends: Collection[int], vocab_size: int) -> None:
        self._matcher, self._ends, self._vocab_size = matcher, frozenset(ends), vocab_size
        self._words = -(-vocab_size // 32)
        self.failed = False

    def advance(self, tokens: list[int]) -> None:
        """Take emitted tokens, none of which ended the answer."""
        if self._matcher.try_consume_tokens(tokens) < len(tokens):
            self.failed = True

    def forced(self) -> list[int]:
        """The tokens that must come next, since the grammar allows no others."""
        return [] if self.failed else self._matcher.compute_ff_tokens()

    def prune(self, tree: DraftTree) -> DraftTree:
        """The tree without the nodes that the grammar forbids, and without all below them."""
        kept = sorted(node for node, _ in self._walk(tree))
        return tree if len(kept) == len(tree.token_ids) else tree.keeping(kept)

    def allowed(self, tree: DraftTree, num_early: int = 0) -> Tensor:
        """Which tokens may follow every node, each on its own path: bool `[nodes, vocab]`, CPU.

        Rows of nodes that cannot be accepted allow everything: no choice falls there.
        num_early: rows less deep than this allow no end, unless they allow nothing else.
        """
        bits = np.full((len(tree.token_ids), self._words), -1, dtype=np.int32)
        row_bytes = self._words * 4
        may_end: list[int] = []
        open_nodes: list[int] = []
        for node, ended in self._walk(tree):
            if ended:
                continue
            open_nodes.append(node)
            self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data + node * row_bytes, row_bytes)
            if self._matcher.is_accepting():
                may_end.append(node)
        rows = np.unpackbits(
            bits.view(np.uint8), axis=1, count=self._vocab_size, bitorder="little"
        ).view(np.bool_)
        ends = list(self._ends)
        for node in may_end:
            rows[node, ends] = True
        for node in open_nodes:
            if tree.topology.depths[node] < num_early:
                rest = rows[node].copy()
                rest[ends] = False
                if rest.any():
                    rows[node] = rest
        stuck = ~rows.any(axis=1)
        if self._matcher.is_error() or stuck.any():
            self.failed = True
            rows[stuck] = True
        return torch.from_numpy(rows)

    def _walk(self, tree: DraftTree) -> Iterator[tuple[int, bool]]:
        """Allowed nodes, the matcher standing behind each in turn, and whether they end the answer.

        Depth first: what separates two nodes is rolled back. Nothing comes below an end.
        """
        children, depths = tree.topology.children, tree.topology.depths
        behind = 0
        yield 0, False
        stack = list(reversed(children[0]))
        while stack:
            node = stack.pop()
            token, above = tree.token_ids[node], depths[node] - 1
            if behind > above:
                self._matcher.rollback(behind - above)
                behind = above
            if token in self._ends:
                if self._matcher.is_accepting() or self._matcher.validate_tokens([token]):
                    yield node, True
            elif self._matcher.try_consume_tokens([token]):
                behind += 1
                yield node, False
                stack += reversed(children[node])
        if behind:
            self._matcher.rollback(behind)
