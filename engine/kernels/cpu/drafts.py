"""Levels of draft trees, ranked in one call each."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref

import numpy as np
import torch
from torch import Tensor

from adapters.successor import Successor
from engine.kernels.cpu.library import DraftHead, Level, Linear, required
from engine.kernels.cpu.linear import PackedWeight
from engine.kernels.cpu.memory import WORD, Workspace


class PackedDraftHead:
    """An output projection and a successor head as drafts.h reads them.

    head: to the logits of the draft tokens. tokens: these, int64 `[n]`. table: what the successor
    head reads of every token, `[vocab, rank]` of the model's dtype.
    """

    def __init__(
        self,
        head: PackedWeight,
        tokens: Tensor,
        successor: Successor | None,
        table: Tensor | None,
    ) -> None:
        kernels = required()
        self._bytes, self._rank = kernels.bita_level_bytes, kernels.bita_rank
        self._half, self.rank = head.half, 0
        parts = [Linear(), Linear(), Linear()]
        self._keep: list[PackedWeight | Tensor | None] = [head, tokens, table]
        bias = None
        if successor is not None:
            packed = [
                PackedWeight(matrix.t().float().contiguous(), None)
                for matrix in (successor.hidden, successor.state, successor.out)
            ]
            parts, bias = [p.linear for p in packed], successor.bias.float().contiguous()
            self.rank = bias.shape[1]
            self._keep += [*packed, bias]
        self._struct = DraftHead(head.linear, *parts, self.rank)
        if bias is not None and table is not None:
            self._struct.bias, self._struct.table = bias.data_ptr(), table.data_ptr()
        self._struct.tokens = tokens.data_ptr()
        self._reference = byref(self._struct)
        self._workspace = Workspace()

    def rank_level(
        self,
        hidden: Tensor,
        numbers: Sequence[int],
        states: Tensor | None,
        starts: Sequence[int | None],
        scales: Sequence[float],
        temperature: float,
        width: int,
    ) -> tuple[Tensor, list[list[int]], list[list[float]]]:
        """The `width` likeliest outputs for every parent, and their probabilities.

        hidden: masks' final hidden states, `[mask rows, hidden]` of the model's dtype. numbers: the
        number of every mask row in its group; then every parent's row in `hidden`, every one's
        token, and the row of every one's own parent in `states`. states: what the level above
        returned first, float32 `[parents above, rank]`. starts: of the generator of the noise on
        every parent's logits, None for none; scales multiply it.
        """
        rows = (len(numbers) - len(hidden)) // 3
        table = np.array(numbers, np.int64)
        masks = table.ctypes.data
        first = masks + len(hidden) * WORD
        following = torch.empty(rows, self.rank)
        noise = np.array([start or 0 for start in starts], np.uint64)
        of_noise = [
            0.0 if start is None else scale for start, scale in zip(starts, scales, strict=True)
        ]
        noise_scales = np.array(of_noise, np.float32)
        best, shares = np.empty((rows, width), np.int64), np.empty((rows, width), np.float32)
        level = Level(
            rows=rows,
            width=width,
            threads=torch.get_num_threads(),
            index=first,
            masks=masks,
            path=first + rows * WORD,
            before=first + 2 * rows * WORD,
            hidden=hidden.data_ptr(),
            states=None if states is None else states.data_ptr(),
            next_states=following.data_ptr(),
            starts=noise.ctypes.data,
            scales=noise_scales.ctypes.data,
            temperature=temperature,
            best=best.ctypes.data,
            shares=shares.ctypes.data,
        )
        size = self._bytes(self._half, self._reference, byref(level))
        level.workspace = self._workspace.of(size)
        self._rank(self._half, self._reference, byref(level))
        return following, best.tolist(), shares.tolist()
