"""Choosing a token at every node, with noise that belongs to a position, not to a forward.

Gumbel-max: argmax(logits + noise) is a sample of softmax(logits). Since the noise is keyed by
(seed, position), a tree, another batch or a restart choose the same token (up to rounding).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.request import SamplingParams

_WORD = (1 << 64) - 1


def choose(
    logits: Tensor,
    params: SamplingParams,
    seed: int,
    positions: Sequence[int],
    drawn: dict[int, Tensor] | None = None,
) -> list[int]:
    """A token for every row of processed logits, float32 `[nodes, vocab]`; ties: the lowest id.

    positions: of the token that each row chooses; rows of equal position share their noise.
    drawn: noise by position, kept between steps: what drafts were rejected at comes again, and
        to draw noise takes longer than to choose with it.
    """
    if not params.greedy:
        vocab = logits.shape[-1]
        distinct = sorted(set(positions))
        known = {} if drawn is None else drawn
        for passed in [position for position in known if position < distinct[0]]:
            del known[passed]
        for position in distinct:
            if position not in known:
                known[position] = noise(seed, position, vocab)
        values = torch.stack([known[position] for position in distinct])
        rows = torch.tensor([distinct.index(position) for position in positions])
        logits = logits + values.to(logits.device)[rows.to(logits.device)]
    return logits.argmax(dim=-1).tolist()


def noise(seed: int, position: int, vocab: int) -> Tensor:
    """Gumbel noise of one position, float32 `[vocab]`, on the CPU.

    Philox (Salmon 2011) is keyed by both numbers as they are (modulo 2^64), so no two positions
    of any two seeds share noise; torch's CPU generator would keep 32 bits of them.
    """
    key = np.array([seed & _WORD, position & _WORD], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    # In float64: float32 draws are exactly 0, hence infinite noise, once in some million.
    gumbel = -np.log(generator.standard_exponential(vocab))
    return torch.from_numpy(gumbel.astype(np.float32))
