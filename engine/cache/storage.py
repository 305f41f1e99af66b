"""KV tensors: committed blocks, the adapters' prompts and the step buffer, in one allocation.

Blocks `0 .. num_blocks - 1` are the paged cache; then follow the prompt blocks of each adapter
slot, then the step buffer. Because all three are blocks of one tensor, attention gathers what a
sequence sees (past, fresh rows, prompts) with a single indexed copy. Attention only ever writes
the step buffer; `commit` copies what was accepted into the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def indices(numbers: NDArray[np.int64], device: torch.device) -> Tensor | slice:
    """Rising numbers, `[n]`, to index a tensor with: a slice where none is left out."""
    if not len(numbers):
        return slice(0)
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers):
        return slice(first, last + 1)
    return torch.from_numpy(numbers).to(device)


class KVStorage:
    """keys, values: `[layers, blocks * block_size, kv_heads, head_dim]`, the model's dtype.

    kernels: whether Triton copies what is committed.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        key_dim: int,
        value_dim: int,
        num_blocks: int,
        block_size: int,
        adapter_slots: int,
        max_prompts: int,
        step_rows: int,
        max_segments: int,
        dtype: torch.dtype,
        device: torch.device,
        kernels: bool = False,
    ) -> None:
        self.kernels = kernels
        self.num_layers, self.block_size, self.num_blocks = num_layers, block_size, num_blocks
        self.prompt_blocks = -(-max_prompts // block_size)
        self.first_prompt_block = num_blocks
        self.scratch_block = num_blocks + adapter_slots * self.prompt_blocks
        scratch = -(-step_rows // block_size) + max_segments
        slots = (self.scratch_block + scratch) * block_size
        shape = (num_layers, slots, num_kv_heads)
        self.keys = torch.zeros(*shape, key_dim, dtype=dtype, device=device)
        self.values = torch.zeros(*shape, value_dim, dtype=dtype, device=device)
        blocked = (num_layers, -1, block_size, num_kv_heads)
        self.key_blocks = list(self.keys.view(*blocked, key_dim))
        self.value_blocks = list(self.values.view(*blocked, value_dim))

    def set_prompts(self, slot: int, prompt_kv: Tensor) -> None:
        """Load an adapter's prompts, `[layers, 2, kv_heads, prompts, head_dim]`, into its slot."""
        start = (self.first_prompt_block + slot * self.prompt_blocks) * self.block_size
        end = start + prompt_kv.shape[3]
        self.keys[:, start:end] = prompt_kv[:, 0].transpose(1, 2)
        self.values[:, start:end] = prompt_kv[:, 1].transpose(1, 2)

    def prompt_block_ids(self, slot: int, num_prompts: int) -> range:
        """The blocks that hold the first `num_prompts` prompts of an adapter slot."""
        first = self.first_prompt_block + slot * self.prompt_blocks
        return range(first, first + -(-num_prompts // self.block_size))

    def step_slots(self, slots: NDArray[np.int64]) -> Tensor | slice:
        """Slots of the step buffer in the form `write` is fastest with."""
        return indices(slots, self.keys.device)

    def write(self, layer: int, slots: Tensor | slice, key: Tensor, value: Tensor) -> None:
        """Put fresh rows, both `[rows, kv_heads, head_dim]`, into the step buffer."""
        self.keys[layer][slots] = key
        self.values[layer][slots] = value

    def clean_step_buffer(self) -> None:
        """Forget all fresh rows: of what is no number a mask makes no zero, and rows of later steps
        lie between those of this one.
        """
        start = self.scratch_block * self.block_size
        self.keys[:, start:].zero_()
        self.values[:, start:].zero_()

    def commit(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy step-buffer slots to cache slots, all layers at once."""
        if not source:
            return
        device = self.keys.device
        src, dst = torch.tensor([source, target], device=device)
        if self.kernels:
            from engine.kernels.commit import copy_slots

            copy_slots(self.keys, self.values, src, dst)
            return
        self.keys.index_copy_(1, dst, self.keys.index_select(1, src))
        self.values.index_copy_(1, dst, self.values.index_select(1, src))
