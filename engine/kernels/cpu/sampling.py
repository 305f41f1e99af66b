"""Noise, and the tokens chosen with it, in one call each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.kernels.cpu.library import required


def noise(starts: Sequence[int], tokens: Tensor) -> Tensor:
    """Gumbel noise of tokens, int64 `[n]`, float32 `[starts, n]`.

    starts: states of the generator before token 0, 64 bits each. The kernels must be there.
    """
    kernels = required()
    tokens = tokens.contiguous()
    states = np.array(starts, np.uint64)
    out = torch.empty(len(starts), len(tokens))
    data = states.ctypes.data, len(tokens), tokens.data_ptr(), out.data_ptr()
    kernels.bita_noise(len(starts), *data, _threads(len(starts)))
    return out


def choose(logits: Tensor, starts: Sequence[int | None]) -> list[int]:
    """The token of the largest logit of every row, float32 `[rows, vocab]`; of equals the first.

    starts: of the noise that is added to a row; None for none. The kernels must be there.
    """
    kernels = required()
    logits = logits.contiguous()
    rows, vocab = logits.shape
    sampled = np.array([start is not None for start in starts], np.bool_)
    states, tokens = np.array([start or 0 for start in starts], np.uint64), np.empty(rows, np.int64)
    kernels.bita_choose(
        rows,
        vocab,
        logits.data_ptr(),
        sampled.ctypes.data,
        states.ctypes.data,
        tokens.ctypes.data,
        _threads(rows),
    )
    chosen: list[int] = tokens.tolist()
    return chosen


def _threads(rows: int) -> int:
    return min(rows, torch.get_num_threads())
