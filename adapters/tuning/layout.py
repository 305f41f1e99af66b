"""Mask groups beside a text: ids, positions, visibility and labels (design note sec. 2.2-2.4).

A sample is a token stream with the spans that the model itself wrote. An *anchor* is the number
of real tokens that a group sees: the group's masks stand on the positions from there on, and
mask m is trained to give the token one position later, in place and without a shift:
`tokens[anchor + 1 + m]`. The token at the anchor itself is the bonus token, the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapters.visibility import as_matrix, chain, lay_out

IGNORE = -100


@dataclass(frozen=True, slots=True)
class Sample:
    """token_ids: a text. spans: half-open ranges of it that are the model's own answers."""

    token_ids: list[int]
    spans: list[tuple[int, int]]

    def anchors(self) -> list[int]:
        """Every place a group can be trained at: one known token at least follows the bonus."""
        return [a for start, end in self.spans for a in range(start, end - 1)]


@dataclass(frozen=True, slots=True)
class MaskGroups:
    """The mask rows of a batch of samples; group after group, padded to equal numbers.

    positions: int64 `[samples, rows]`. labels: int64 `[samples, rows]`, IGNORE where unknown.
    visible: bool `[samples, rows, context + rows]`: the real tokens, then the mask rows.
    previous: int64 `[samples, rows]`, the token before the one a mask is to give: the bonus
        token for a group's first mask, the label of the mask before for the others.
    """

    positions: Tensor
    labels: Tensor
    visible: Tensor
    previous: Tensor


def mask_groups(
    samples: Sequence[Sample], anchors: Sequence[Sequence[int]], masks: int
) -> MaskGroups:
    """Lay a group of `masks` masks at every anchor of every sample."""
    context = max(len(s.token_ids) for s in samples)
    rows = max(len(a) for a in anchors) * masks
    positions = np.zeros((len(samples), rows), np.int64)
    labels = np.full((len(samples), rows), IGNORE, np.int64)
    previous = np.zeros((len(samples), rows), np.int64)
    visible = np.zeros((len(samples), rows, context + rows), np.bool_)
    # A padding row sees itself: its softmax must not be empty.
    visible[:, np.arange(rows), context + np.arange(rows)] = True
    for i, (sample, places) in enumerate(zip(samples, anchors, strict=True)):
        real, used = len(sample.token_ids), len(places) * masks
        layout = lay_out(chain(real), [(anchor - 1, masks) for anchor in places])
        positions[i, :used] = layout.positions[real:]
        seen = as_matrix(layout.words[real:], real + used)
        visible[i, :used, :real] = seen[:, :real]
        visible[i, :used, context : context + used] = seen[:, real:]
        for group, anchor in enumerate(places):
            end = next(e for s, e in sample.spans if s <= anchor < e)
            known = sample.token_ids[anchor : min(end, anchor + 1 + masks)]
            first = group * masks
            labels[i, first : first + len(known) - 1] = known[1:]
            previous[i, first : first + len(known) - 1] = known[:-1]
    return MaskGroups(*(torch.from_numpy(a) for a in (positions, labels, visible, previous)))
