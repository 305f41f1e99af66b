"""Choosing a token at every node, with noise that belongs to a position, not to a forward.

Gumbel-max: argmax(logits + noise) is a sample of softmax(logits). Since the noise is a function of
(seed, position, token), a tree, another batch or a restart choose the same token (up to rounding).
And it is known before the logits are: a drafter that adds it to its own guesses most often the
token that will be chosen, and changes nothing of what is (Daliri, Musco and Suresh 2024, arXiv
2408.07978).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from engine.kernels.cpu import sampling as cpu
from engine.kernels.cpu.library import loaded

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
    if _has_kernels(logits):
        return cpu.choose(logits, [None if key is None else start(key) for key in keys])
    return perturbed(logits, keys).argmax(dim=-1).tolist()


def perturbed(
    logits: Tensor,
    keys: Sequence[Key | None],
    scales: Sequence[float] = (),
    tokens: Tensor | None = None,
) -> Tensor:
    """Logits, float32 `[rows, n]`, with the noise of those rows that have a key.

    scales: what multiplies the noise, by row; 1 where none are given. tokens: int64 `[n]`, whose
        logits they are; None for the whole vocabulary.
    """
    sampled = [row for row, key in enumerate(keys) if key is not None]
    if not sampled:
        return logits
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    number = {key: i for i, key in enumerate(distinct)}
    drawn = noise(distinct, _all(*logits.shape[-1:], logits.device) if tokens is None else tokens)
    drawn = drawn[_ids([number[key] for key in keys if key is not None], logits)]
    if scales:
        drawn *= torch.tensor([scales[row] for row in sampled], device=logits.device)[:, None]
    return logits.index_add(0, _ids(sampled, logits), drawn)


def noise(keys: Sequence[Key], tokens: Tensor) -> Tensor:
    """Gumbel noise of every key for tokens, int64 `[n]`; float32 `[keys, n]`.

    A counter-based generator, so that every number is a few integer operations on the logits' own
    device: drawing 130,000 numbers one after the other takes longer than many a forward.
    """
    starts = [start(key) for key in keys]
    if _has_kernels(tokens):
        return cpu.noise(starts, tokens)
    states = _ids([_signed(state) for state in starts], tokens)
    words = torch.add(states[:, None], tokens, alpha=_signed(_GAMMA))
    high = torch.empty_like(words)
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        words ^= _shifted(words, shift, high)
        words *= _signed(multiplier)
    # In float64, and never 0 or 1: the noise is finite whatever is drawn.
    uniform = _shifted(words, 64 - _UNIFORM_BITS, high).double()
    uniform.add_(0.5).mul_(2.0**-_UNIFORM_BITS)
    return uniform.log_().neg_().log_().neg_().float()


def start(key: Key) -> int:
    """The state of a key's generator for token 0: SplitMix64 adds its increment for every token."""
    seed, position = key
    return _mix(_mix(seed & _WORD) + position) + _GAMMA & _WORD


@lru_cache(maxsize=8)
def _all(vocab: int, device: torch.device) -> Tensor:
    """Every token, int64 `[vocab]`."""
    return torch.arange(vocab, device=device)


def _has_kernels(tensor: Tensor) -> bool:
    """Whether our own CPU kernels compute with it: where the model's products do."""
    return tensor.device.type == "cpu" and loaded() is not None


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


def _ids(values: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=like.device)
