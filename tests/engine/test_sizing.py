"""The sizes that docs/operations.md works out for a model of 8 billion weights."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.adapter_registry import Room
from engine.cache.storage import KVStorage

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def storage(num_blocks: int, slots: int) -> KVStorage:
    """Of Llama 3 8B in bfloat16, with the server's default limits; nothing is allocated."""
    return KVStorage(
        num_layers=32,
        num_kv_heads=8,
        key_dim=128,
        value_dim=128,
        num_blocks=num_blocks,
        block_size=16,
        adapter_slots=slots,
        max_prompts=64,
        step_rows=2048,
        max_segments=64,
        dtype=torch.bfloat16,
        device=torch.device("meta"),
    )


def size(num_blocks: int, slots: int) -> int:
    made = storage(num_blocks, slots)
    return made.keys.nbytes + made.values.nbytes


def test_the_worked_example_is_what_is_allocated() -> None:
    page = " ".join(PAGE.read_text().split())
    one_token = (size(2, 1) - size(1, 1)) // 16
    assert one_token == 2 * 32 * 8 * 128 * 2 == 128 * KIB
    assert "2 · 32 · 8 · 128 · 2 bytes = 128 KiB" in page
    assert size(1, 2) - size(1, 1) == 8 * MIB
    assert "slots · 8 MiB" in page
    assert Room.of(4, []).prompts == 64
    assert size(0, 0) == (2048 + 64 * 16) * 128 * KIB == 384 * MIB
    assert "(2048 + 64 · 16) · 128 KiB = 384 MiB" in page
    # 85 % of the 8 GiB that are left on 24 GiB.
    assert int(0.85 * 8 * GIB / (128 * KIB)) == 55705
    assert "55,000 tokens" in page
