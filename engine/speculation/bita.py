"""The BiTA drafter: logits of the accepted node's mask group become candidates."""

from __future__ import annotations

from torch import Tensor

from engine.speculation.tree import Candidates


def propose(logits: Tensor, sizes: list[int], ranks: int) -> list[Candidates | None]:
    """The `ranks` likeliest tokens of every mask, group by group.

    logits: float32 `[masks of all groups, vocab]`. sizes: masks of each group; an empty group
    drafts nothing.
    """
    top = logits.softmax(dim=-1).topk(ranks, dim=-1)
    tokens, probabilities = top.indices.tolist(), top.values.tolist()
    drafts: list[Candidates | None] = []
    first = 0
    for size in sizes:
        rows = slice(first, first + size)
        drafts.append(Candidates(tokens[rows], probabilities[rows]) if size else None)
        first += size
    return drafts
