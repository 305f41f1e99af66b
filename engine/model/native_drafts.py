"""Drafts ranked by our own kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.cpu.drafts import PackedDraftHead
from engine.sampling.sampler import perturbed
from engine.speculation.bita import Descent, Level, Ranked


@dataclass(frozen=True, slots=True)
class NativeDraftHead:
    """A `bita.Head`. tokens, names: the draft vocabulary, `[n]`; None for the whole one."""

    packed: PackedDraftHead
    tokens: Tensor | None
    names: list[int] | None

    @classmethod
    def of(cls, packed: PackedDraftHead, tokens: Tensor | None) -> NativeDraftHead:
        """With the tokens as the interpreter knows them."""
        return cls(packed, tokens, None if tokens is None else tokens.tolist())

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
        packed, noise = self._head.packed, None
        if any(key is not None for key in level.keys):
            nothing = torch.zeros(len(level.rows), packed.outputs)
            noise = perturbed(nothing, level.keys, level.scales, self._head.tokens)
        numbers = [*self._masks, *level.rows, *level.path, *level.before]
        self._states, best, shares = packed.rank_level(
            self._hidden, numbers, self._states, noise, level.temperature, width
        )
        if (names := self._head.names) is not None:
            best = [[names[output] for output in row] for row in best]
        return best, shares
