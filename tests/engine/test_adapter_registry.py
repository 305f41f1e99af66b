"""Which adapters are loaded: slots, users, refusals. No model: slots are a list."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from adapters.format import MAX_MASKS, AdapterConfig
from adapters.profile import HitProfile
from engine.adapter_registry import (
    ROOM_FOR_PROMPTS,
    AdapterRegistry,
    LoadedAdapter,
    PreparedAdapter,
    Room,
)
from engine.errors import AdapterNameTaken, AdapterRefused, NoFreeSlot, UnknownAdapter
from engine.speculation.bita import DraftHead
from engine.speculation.planner import PLAIN, Fixed


def config(prompts: int = 4, masks: int = 3) -> AdapterConfig:
    return AdapterConfig(
        model_type="llama",
        hidden_size=8,
        num_layers=1,
        num_kv_heads=1,
        head_dim=8,
        vocab_size=16,
        num_prompts=prompts,
        num_masks=masks,
        profile=HitProfile([[0.5]] * masks, [1] * masks),
    )


def adapter(prompts: int = 4, masks: int = 3) -> PreparedAdapter:
    return PreparedAdapter(
        config(prompts, masks),
        torch.zeros(1, 2, 1, prompts, 8),
        torch.zeros(masks, 8),
        DraftHead(torch.nn.Identity()),
        Fixed(PLAIN),
    )


class Slots:
    """Notes what is placed where. broken: nothing can be."""

    def __init__(self) -> None:
        self.placed: list[tuple[int, int, int]] = []
        self.broken = False

    def place(self, slot: int, prompt_kv: Tensor, mask_embeddings: Tensor) -> None:
        if self.broken:
            raise RuntimeError("out of memory")
        self.placed.append((slot, prompt_kv.shape[3], len(mask_embeddings)))


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
def registry(slots: Slots) -> AdapterRegistry:
    """Two slots."""
    return AdapterRegistry(Room(slots=2, prompts=8, masks=4), slots.place)


def names(registry: AdapterRegistry) -> list[str]:
    return [loaded.name for loaded in registry]


def test_the_first_adapter_is_the_default_until_it_goes(registry: AdapterRegistry) -> None:
    assert registry.default is None
    first = registry.load("first", adapter(), "there")
    second = registry.load("second", adapter())
    assert registry.default is first
    assert registry["second"] is second
    assert registry.folders == {"first": "there", "second": ""}
    registry.unload("first")
    assert registry.default is second
    assert len(registry) == 1


def test_an_adapter_is_placed_in_its_slot(registry: AdapterRegistry, slots: Slots) -> None:
    registry.load("a", adapter(prompts=8, masks=1))
    registry.load("b", adapter(prompts=1, masks=4))
    assert slots.placed == [(0, 8, 1), (1, 1, 4)]


def test_an_unused_slot_is_free_at_once(registry: AdapterRegistry) -> None:
    for name in "abc":
        assert registry.load(name, adapter()).slot == 0
        registry.unload(name)
        registry.check_integrity()


def test_a_slot_in_use_is_free_when_its_last_user_ends(registry: AdapterRegistry) -> None:
    used = registry.load("a", adapter())
    registry.acquire(used)
    registry.acquire(used)
    registry.unload("a")
    assert names(registry) == []
    with pytest.raises(UnknownAdapter) as unknown:
        registry["a"]
    assert unknown.value.field == "model"
    assert registry.load("b", adapter()).slot == 1
    registry.release(used)
    registry.check_integrity()
    with pytest.raises(NoFreeSlot, match=r"2 adapter slots.*1 of them unloaded.*by 1 requests"):
        registry.load("c", adapter())
    registry.release(used)
    registry.check_integrity()
    assert registry.load("c", adapter()).slot == 0


def test_a_name_is_free_while_its_old_adapter_is_still_used(registry: AdapterRegistry) -> None:
    old = registry.load("a", adapter())
    registry.acquire(old)
    registry.unload("a")
    new = registry.load("a", adapter())
    assert (old.slot, new.slot) == (0, 1)
    assert registry["a"] is new
    registry.release(old)
    assert (old.num_users, new.num_users) == (0, 0)
    registry.check_integrity()


def test_no_adapter_has_no_users(registry: AdapterRegistry) -> None:
    registry.acquire(None)
    registry.release(None)
    registry.check_integrity()


def test_names_and_slots_are_taken_once(registry: AdapterRegistry, slots: Slots) -> None:
    registry.load("a", adapter())
    with pytest.raises(AdapterNameTaken) as taken:
        registry.load("a", adapter())
    assert taken.value.field == "name"
    registry.load("b", adapter())
    for refused in (registry.check_new, lambda name: registry.load(name, adapter())):
        with pytest.raises(NoFreeSlot, match=r"all 2 adapter slots are taken$"):
            refused("c")
    assert len(slots.placed) == 2


def test_what_is_not_loaded_cannot_be_unloaded(registry: AdapterRegistry) -> None:
    with pytest.raises(UnknownAdapter) as unknown:
        registry.unload("a")
    assert unknown.value.field == "name"


@pytest.mark.parametrize(
    ("prompts", "masks", "said"), [(9, 1, "9 prompts.*for 8"), (1, 5, "5 masks.*for 4")]
)
def test_an_adapter_larger_than_a_slot_is_refused(
    registry: AdapterRegistry, slots: Slots, prompts: int, masks: int, said: str
) -> None:
    with pytest.raises(AdapterRefused, match=said) as refused:
        registry.load("a", adapter(prompts, masks))
    assert refused.value.field == "path"
    assert slots.placed == []
    registry.check_integrity()


def test_where_placing_fails_the_slot_stays_free(registry: AdapterRegistry, slots: Slots) -> None:
    slots.broken = True
    with pytest.raises(RuntimeError):
        registry.load("a", adapter())
    slots.broken = False
    registry.check_integrity()
    assert names(registry) == []
    assert registry.load("a", adapter()).slot == 0


def test_room_is_what_was_asked_for_and_what_is_given() -> None:
    assert Room.of(0, []) == Room(0, 1, 1)
    assert Room.of(0, [config(5, 2), config(3, 7)]) == Room(2, 5, 7)
    assert Room.of(3, []) == Room(3, ROOM_FOR_PROMPTS, MAX_MASKS)
    assert Room.of(3, [config(100, 3)]) == Room(3, 100, MAX_MASKS)


@pytest.mark.parametrize("seed", range(20))
def test_slots_are_never_lost_or_shared(seed: int) -> None:
    """Random loads, unloads, arrivals and ends; what is used stays where it is."""
    rng = random.Random(seed)
    holds: dict[int, LoadedAdapter] = {}
    running: list[LoadedAdapter] = []
    registry = AdapterRegistry(Room(3, 8, 4), lambda slot, *_: holds.pop(slot, None))
    for step in range(300):
        loaded = list(registry)
        match rng.choice(("load", "unload", "arrive", "end", "end")):
            case "load":
                before = {a.slot for a in (*loaded, *running)}
                try:
                    new = registry.load(f"a{step % 5}", adapter())
                except (AdapterNameTaken, NoFreeSlot):
                    assert len(before) == 3 or f"a{step % 5}" in names(registry)
                else:
                    assert new.slot not in before
                    holds[new.slot] = new
            case "unload" if loaded:
                registry.unload(rng.choice(loaded).name)
            case "arrive" if loaded:
                running.append(rng.choice(loaded))
                registry.acquire(running[-1])
            case "end" if running:
                registry.release(running.pop(rng.randrange(len(running))))
        registry.check_integrity()
        assert all(holds[user.slot] is user for user in running)
