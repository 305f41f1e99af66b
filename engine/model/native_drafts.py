"""Drafts ranked by our own kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.kernels.cpu.drafts import PackedDraftHead
from engine.sampling.sampler import start
from engine.speculation.bita import Descent, Level, Ranked


@dataclass(frozen=True, slots=True)
class NativeDraftHead:
    """A `bita.Head`. tokens: the draft vocabulary, `[n]`; None for the whole one."""

    packed: PackedDraftHead
    tokens: list[int] | None

    def descend(self, hidden: Tensor, masks: Sequence[int]) -> Descent:
        """As `Head.descend`."""
        return _Descent(self, hidden, masks)


class _Descent:
    """As `Descent`."""

    def __init__(self, head: NativeDraftHead, hidden: Tensor, masks: Sequence[int]) -> None:
        self._head, self._hidden, self._masks = head, hidden.contiguous(), masks
        self._states: Tensor | None = None

    def rank(self, level: Level, width: int) -> Ranked:
        """As `Descent.rank`."""
        starts = [None if key is None else start(key) for key in level.keys]
        numbers = [*self._masks, *level.rows, *level.path, *level.before]
        self._states, best, shares = self._head.packed.rank_level(
            self._hidden, numbers, self._states, starts, level.scales, level.temperature, width
        )
        if (tokens := self._head.tokens) is not None:
            best = [[tokens[output] for output in row] for row in best]
        return best, shares
