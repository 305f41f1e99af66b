"""Accepted rows from the step buffer into the cache: all layers, keys and values, one launch."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _copy_slots(
    key_ptr, value_ptr, source_ptr, target_ptr, stride_key_layer, stride_value_layer,
    KEY: tl.constexpr, VALUE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One slot of one layer, KEY and VALUE numbers wide: grid (slots, layers)."""
    source = tl.load(source_ptr + tl.program_id(0))
    target = tl.load(target_ptr + tl.program_id(0))
    layer = tl.program_id(1).to(tl.int64)
    span = tl.arange(0, WIDTH)
    key_ptr += layer * stride_key_layer
    value_ptr += layer * stride_value_layer
    for first in range(0, KEY, WIDTH):
        at = first + span
        key = tl.load(key_ptr + source * KEY + at, mask=at < KEY)
        tl.store(key_ptr + target * KEY + at, key, mask=at < KEY)
    for first in range(0, VALUE, WIDTH):
        at = first + span
        value = tl.load(value_ptr + source * VALUE + at, mask=at < VALUE)
        tl.store(value_ptr + target * VALUE + at, value, mask=at < VALUE)


def copy_slots(keys: Tensor, values: Tensor, source: Tensor, target: Tensor) -> None:
    """Copy slots within contiguous `[layers, slots, kv_heads, dim]` tensors.

    source, target: int64 `[n]`; no target may be a source too, since slots are copied in any order.
    """
    _copy_slots[(len(source), len(keys))](
        keys,
        values,
        source,
        target,
        keys.stride(0),
        values.stride(0),
        KEY=keys.stride(1),
        VALUE=values.stride(1),
        WIDTH=1024,
    )
