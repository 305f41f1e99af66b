"""Choosing a token at every node, with noise that belongs to a position, not to a forward.

Gumbel-max: argmax(logits + noise) is a sample of softmax(logits). Since the noise is a function of
(seed, position, token), a tree, another batch or a restart choose the same token (up to rounding).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

Key = tuple[int, int]
"""Seed and position: whose noise."""

_WORD = (1 << 64) - 1
# SplitMix64 (Steele, Lea, Flood 2014, fig. 17): the increment, and the two multipliers of its mix.
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_UNIFORM_BITS = 52


def choose(logits: Tensor, keys: Sequence[Key | None]) -> list[int]:
    """A token for every row of processed logits, float32 `[rows, vocab]`; ties: the lowest id.

    keys: of the noise by row, position being that of the token that the row chooses; None takes
        the likeliest.
    """
    sampled = [row for row, key in enumerate(keys) if key is not None]
    if sampled:
        distinct = list(dict.fromkeys(key for key in keys if key is not None))
        number = {key: i for i, key in enumerate(distinct)}
        drawn = noise(distinct, logits.shape[-1], logits.device)
        picked = [number[key] for key in keys if key is not None]
        logits = logits.index_add(0, _ids(sampled, logits), drawn[_ids(picked, logits)])
    return logits.argmax(dim=-1).tolist()


def noise(keys: Sequence[Key], vocab: int, device: torch.device) -> Tensor:
    """Gumbel noise of every key, float32 `[keys, vocab]`.

    A counter-based generator, so that every number is a few integer operations on the logits' own
    device: drawing 130,000 numbers one after the other takes longer than many a forward.
    """
    starts = [_signed(_mix(_mix(seed & _WORD) + position)) for seed, position in keys]
    words = _ids(starts, device)[:, None] + _steps(vocab, device)
    high = torch.empty_like(words)
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        words ^= _shifted(words, shift, high)
        words *= _signed(multiplier)
    # In float64, and never 0 or 1: the noise is finite whatever is drawn.
    uniform = _shifted(words, 64 - _UNIFORM_BITS, high).double()
    uniform.add_(0.5).mul_(2.0**-_UNIFORM_BITS)
    return uniform.log_().neg_().log_().neg_().float()


@lru_cache(maxsize=8)
def _steps(vocab: int, device: torch.device) -> Tensor:
    """What SplitMix64 has added to its state when it comes to each token, int64 `[vocab]`."""
    return torch.arange(1, vocab + 1, device=device) * _signed(_GAMMA)


def _shifted(words: Tensor, bits: int, out: Tensor) -> Tensor:
    """A logical shift to the right, in `out`; torch's own repeats the sign."""
    torch.bitwise_right_shift(words, bits, out=out)
    out &= (1 << (64 - bits)) - 1
    return out


def _mix(word: int) -> int:
    """SplitMix64's mix of one number below 2^64."""
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        word = ((word ^ (word >> shift)) * multiplier) & _WORD
    return word


def _signed(word: int) -> int:
    """The int64 with the same bits."""
    return (word & _WORD) - ((word & (1 << 63)) << 1)


def _ids(values: Sequence[int], like: Tensor | torch.device) -> Tensor:
    device = like if isinstance(like, torch.device) else like.device
    return torch.tensor(values, dtype=torch.int64, device=device)
