"""Choosing a token at every node, with noise that belongs to a position, not to a forward.

Gumbel-max: argmax(logits + noise) is a sample of softmax(logits). Since the noise is keyed by
(seed, position), a tree, another batch or a restart choose the same token (up to rounding).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.request import SamplingParams

_WORD = (1 << 64) - 1


def choose(
    logits: Tensor, params: SamplingParams, seed: int, positions: Sequence[int]
) -> list[int]:
    """A token for every row of processed logits, float32 `[nodes, vocab]`.

    positions: of the token that each row chooses; rows of equal position share their noise.
    """
    if not params.greedy:
        vocab = logits.shape[-1]
        drawn = {p: noise(seed, p, vocab) for p in set(positions)}
        logits = logits + torch.stack([drawn[p] for p in positions]).to(logits.device)
    return logits.argmax(dim=-1).tolist()


def noise(seed: int, position: int, vocab: int) -> Tensor:
    """Gumbel noise of one position, float32 `[vocab]`, on the CPU."""
    generator = torch.Generator().manual_seed(_mix(seed, position))
    return -torch.empty(vocab).exponential_(generator=generator).log()


def _mix(seed: int, position: int) -> int:
    """One 64-bit key of both (splitmix64, Steele 2014): near keys give unrelated noise."""
    z = (_splitmix(seed & _WORD) + position) & _WORD
    return _splitmix(z) & ((1 << 63) - 1)


def _splitmix(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)
