"""Tables for the kernels: what they are padded to always has room for them."""

import random

import pytest
import torch

pytest.importorskip("triton")
from engine.attention.tables import LONGEST_TREE, Room, StepTables
from engine.batch import ForwardBatch, SegmentPlan
from engine.cache.storage import KVStorage
from engine.speculation.tree import TreeTopology

SIZE, CONTEXT = 4, 700


@pytest.fixture(scope="module")
def storage() -> KVStorage:
    return KVStorage(
        num_layers=1,
        num_kv_heads=1,
        key_dim=1,
        value_dim=1,
        num_blocks=8,
        block_size=SIZE,
        adapter_slots=1,
        max_prompts=4,
        step_rows=512,
        max_segments=64,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def random_batch(rng: random.Random, storage: KVStorage) -> ForwardBatch:
    """Chunks and chains of any length, behind pasts of any length."""
    plans = []
    for _ in range(rng.randint(1, 12)):
        past, rows = rng.randint(0, CONTEXT), rng.choice([1, 1, 2, 5, 17, 64])
        chain = TreeTopology((*range(-1, rows - 1),), (0,) * rows, (0,) * rows).fill_with(0)
        causal = rng.choice([0, 0, 3])
        plans.append(SegmentPlan([1] * causal, chain, past, [5] * (-(-past // SIZE)), 0))
    return ForwardBatch.build(plans, SIZE, storage.scratch_block, 1, 1 << 20)


@pytest.mark.parametrize("share", [1, 2, 3, 8, 48])
def test_padded_tables_have_room_for_any_step(share: int, storage: KVStorage) -> None:
    rng = random.Random(share)
    for _ in range(50):
        batch = random_batch(rng, storage)
        room = Room(batch.num_rows + rng.randint(0, LONGEST_TREE), CONTEXT, share)
        batch = batch.padded(room.rows, SIZE)
        exact = StepTables.of(batch, storage, [4], share)
        padded = exact.padded(room)
        assert exact.num_partials <= padded.num_partials
        for launch in exact.launches:
            wide = next(x for x in padded.launches if x.tiling == launch.tiling)
            assert launch.parts <= wide.parts
            assert (wide.tiles[: len(launch.tiles)] == launch.tiles).all()
            assert not wide.tiles[len(launch.tiles) :].any()
        shapes = {tuple(x.tiles.shape) for x in padded.launches}
        assert shapes == {(room.num_tiles(x.tiling), 10) for x in padded.launches}


def test_tables_are_found_again_on_the_device(storage: KVStorage) -> None:
    batch = random_batch(random.Random(0), storage)
    tables = StepTables.of(batch, storage, [4], share=2)
    found = tables.on(torch.from_numpy(tables.flat()))
    assert found.positions[: batch.num_rows].tolist() == batch.positions.tolist()
    assert found.offsets[: batch.num_rows + 1].tolist() == tables.offsets.tolist()
    assert found.blocks[: len(tables.blocks)].tolist() == tables.blocks.tolist()
    for mine, theirs in zip(tables.launches, found.launches, strict=True):
        assert theirs.tiles.tolist() == mine.tiles.tolist()
