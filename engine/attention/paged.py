"""Attention by our own Triton kernels: the path on CUDA.

Nothing is gathered and no mask is built: a program reads the KV blocks where they lie. What it has
to know of the step (`tables`) is sent to the device once for all layers. Prefill chunks go the same
way, in the kernel's causal form: a dense mask of rows times columns would cost more host time than
the step, and torch has no fast kernel for one.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from engine.attention.interface import LayerCall
from engine.attention.tables import DeviceTables, StepTables
from engine.batch import ForwardBatch
from engine.cache.storage import KVStorage
from engine.kernels.tree_attention import TILE_FIELDS, attend_parts, join_parts

# Of keys a program reads at once: small enough for GPUs with 99 KiB of shared memory.
TILE_BYTES = 8192
# Sums a program keeps in registers before it takes twice the threads.
WIDE = 8192
# Rows and query heads whose parts one program joins.
JOINED = 4


class PagedStep:
    """One batch, as tables on the device."""

    def __init__(self, batch: ForwardBatch, storage: KVStorage, num_prompts: list[int]) -> None:
        self.batch, self.storage, self.num_prompts = batch, storage, num_prompts
        self.slots = storage.step_slots(batch.scratch_slots)
        self._share = 0

    def forward(self, query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
        """As `AttentionStep.forward`."""
        self.storage.write(call.layer, self.slots, key, value)
        share = query.shape[1] // key.shape[1]
        if share != self._share:  # the first layer knows how many query heads share a KV head
            self._share = share
            laid = StepTables.of(self.batch, self.storage, self.num_prompts, share)
            self._tables = laid.on(torch.from_numpy(laid.flat()).to(query.device))
        return attend_paged(query, self.storage, self._tables, call)


def attend_paged(
    query: Tensor, storage: KVStorage, tables: DeviceTables, call: LayerCall
) -> Tensor:
    """Attend to the past where it lies, and to fresh rows that are in the step buffer already.

    query `[rows, heads, head_dim]` -> `[rows, heads, value_dim]`. Nothing waits for the device.
    """
    keys, values = storage.keys[call.layer], storage.values[call.layer]
    (rows, heads, key_dim), (_, kv_heads, value_dim) = query.shape, values.shape
    if query.stride(2) != 1:
        query = query.contiguous()
    partial = (tables.num_partials, heads)
    acc = torch.empty(*partial, value_dim, dtype=torch.float32, device=query.device)
    total, top = torch.empty(2, *partial, dtype=torch.float32, device=query.device)
    key_pad, value_pad = (max(16, triton.next_power_of_2(d)) for d in (key_dim, value_dim))
    columns = min(64, max(16, TILE_BYTES // (key_pad * keys.element_size())))
    for launch in tables.launches:
        attend_parts[(len(launch.tiles), kv_heads, launch.parts)](
            query, keys, values, acc, total, top,
            launch.tiles, tables.blocks, tables.positions, tables.words, tables.offsets,
            query.stride(0), query.stride(1), keys.stride(0), keys.stride(1),
            values.stride(0), values.stride(1),
            tables.num_words, heads, call.scaling, launch.tiling.part,
            SOFTCAP=call.softcap or 0.0, SHARE=heads // kv_heads,
            KEY_DIM=key_dim, VALUE_DIM=value_dim,
            KEY_PAD=key_pad, VALUE_PAD=value_pad, BLOCK_SIZE=storage.block_size,
            ROWS=launch.tiling.rows, COLUMNS=columns,
            WINDOW=call.scope.window or 0, CHUNK=call.scope.chunk or 0,
            TILE_WIDTH=TILE_FIELDS, num_stages=2,
            num_warps=8 if launch.tiling.rows * value_pad > WIDE else 4,
        )  # fmt: skip
    out = torch.empty(rows, heads, value_dim, dtype=query.dtype, device=query.device)
    sinks = acc if call.sinks is None else call.sinks.float()
    join_parts[(triton.cdiv(rows * heads, JOINED),)](
        acc, total, top, out, tables.offsets, sinks, rows, heads,
        VALUE_DIM=value_dim, VALUE_PAD=value_pad,
        OUTPUTS=JOINED, SINKS=call.sinks is not None,
    )  # fmt: skip
    return out
