"""Which adapters are loaded, where they lie, and who still uses them.

Terms. A *slot* is room for one adapter: prompt blocks of the KV storage and rows of the mask
embeddings. Slots are made when the engine starts and are all alike (`Room`). An adapter that was
unloaded is *retired* while sequences use it: its name is free at once and no request finds it any
more, its slot is free when the last of them ends. Sequences hold the adapter itself, never its
name, so that another one of the same name may come meanwhile.

Not for: reading files (`engine.load`) and the tensors of a slot (`ModelRunner.set_adapter`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from adapters.format import MAX_MASKS, AdapterConfig
from adapters.profile import HitProfile
from engine.errors import AdapterNameTaken, AdapterRefused, NoFreeSlot, UnknownAdapter
from engine.speculation.bita import Head
from engine.speculation.planner import Planner
from engine.speculation.trust import Trust
from engine.stats import AdapterStats

ROOM_FOR_PROMPTS = 64

# Puts prompts and mask embeddings into a slot, as `ModelRunner.set_adapter`.
Place = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class Room:
    """slots: how many. prompts, masks: most that an adapter in one of them may have."""

    slots: int
    prompts: int
    masks: int

    @classmethod
    def of(cls, max_adapters: int, given: Iterable[AdapterConfig]) -> Room:
        """Room for the adapters an engine starts with, and for others to come.

        max_adapters: slots, room for adapters of the usual sizes; 0 is just what `given` needs.
        """
        configs = list(given)
        prompts, masks = (ROOM_FOR_PROMPTS, MAX_MASKS) if max_adapters else (1, 1)
        return cls(
            max_adapters or len(configs),
            max([prompts, *(c.num_prompts for c in configs)]),
            max([masks, *(c.num_masks for c in configs)]),
        )

    def check(self, config: AdapterConfig) -> None:
        """Raises AdapterRefused where an adapter is larger than a slot."""
        for what, has, most in (
            ("prompts", config.num_prompts, self.prompts),
            ("masks", config.num_masks, self.masks),
        ):
            if has > most:
                raise AdapterRefused(
                    f"the adapter has {has} {what}, and the engine reserved room for {most} when "
                    "it started: a larger adapter must be there at the start",
                    "path",
                )


@dataclass(frozen=True, slots=True)
class PreparedAdapter:
    """An adapter that needs nothing more but a slot.

    prompt_kv `[layers, 2, kv_heads, prompts, head_dim]` and mask_embeddings `[masks, hidden]` in
    the model's dtype, they and what `head` has on its device.
    """

    config: AdapterConfig
    prompt_kv: Tensor
    mask_embeddings: Tensor
    head: Head
    planner: Planner


@dataclass(slots=True, eq=False)
class LoadedAdapter:
    """One adapter in its slot.

    folder: where it was read from, "" if nowhere. num_users: sequences that draft with it.
    greedy, sampled: trust in its drafts of greedy and of sampled answers, of all requests.
    is_retired: unloaded, and only there for those. stats: what it did since it was loaded.
    """

    name: str
    folder: str
    slot: int
    profile: HitProfile
    head: Head
    planner: Planner
    greedy: Trust = field(default_factory=Trust)
    sampled: Trust = field(default_factory=Trust)
    num_users: int = 0
    is_retired: bool = False
    stats: AdapterStats = field(default_factory=AdapterStats)


class AdapterRegistry:
    """Names to adapters, in the order they were loaded; the first is the default."""

    def __init__(self, room: Room, place: Place) -> None:
        self.room, self._place = room, place
        self._by_name: dict[str, LoadedAdapter] = {}
        self._retired: list[LoadedAdapter] = []
        self._unadapted = AdapterStats()
        self._free = list(range(room.slots))

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[LoadedAdapter]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> LoadedAdapter:
        """The adapter of that name. Raises UnknownAdapter."""
        if name not in self._by_name:
            raise UnknownAdapter(f"no adapter named {name!r} is loaded", "model")
        return self._by_name[name]

    @property
    def default(self) -> LoadedAdapter | None:
        """The one loaded longest, for requests that name none."""
        return next(iter(self), None)

    @property
    def folders(self) -> dict[str, str]:
        """Name -> folder, the default first."""
        return {adapter.name: adapter.folder for adapter in self}

    def check_new(self, name: str) -> None:
        """Raises AdapterNameTaken or NoFreeSlot where `load` would."""
        if name in self._by_name:
            raise AdapterNameTaken(f"an adapter named {name!r} is loaded already", "name")
        if not self._free:
            users = sum(adapter.num_users for adapter in self._retired)
            leaving = f" ({len(self._retired)} of them unloaded, but used by {users} requests yet)"
            raise NoFreeSlot(
                f"all {self.room.slots} adapter slots are taken{leaving if self._retired else ''}"
            )

    def load(self, name: str, prepared: PreparedAdapter, folder: str = "") -> LoadedAdapter:
        """Put an adapter into a free slot.

        Raises AdapterNameTaken, NoFreeSlot, or AdapterRefused where it is larger than a slot.
        """
        self.check_new(name)
        self.room.check(prepared.config)
        slot = min(self._free)
        self._place(slot, prepared.prompt_kv, prepared.mask_embeddings)
        # Only now: where placing fails, the slot stays free.
        self._free.remove(slot)
        profile, head, planner = prepared.config.profile, prepared.head, prepared.planner
        adapter = LoadedAdapter(name, folder, slot, profile, head, planner)
        self._by_name[name] = adapter
        return adapter

    def unload(self, name: str) -> None:
        """Let no further request find an adapter. Raises UnknownAdapter."""
        if name not in self._by_name:
            raise UnknownAdapter(f"no adapter named {name!r} is loaded", "name")
        adapter = self._by_name.pop(name)
        adapter.is_retired = True
        self._retired.append(adapter)
        self._let_go(adapter)

    def acquire(self, adapter: LoadedAdapter | None) -> None:
        """Note a sequence that drafts with `adapter`; None drafts with none."""
        self.stats_of(adapter).num_requests += 1
        if adapter is not None:
            assert not adapter.is_retired, "a retired adapter takes no new sequences"
            adapter.num_users += 1

    def release(self, adapter: LoadedAdapter | None) -> None:
        """Note that a sequence which had acquired `adapter` has ended."""
        if adapter is not None:
            assert adapter.num_users > 0, "released more often than acquired"
            adapter.num_users -= 1
            self._let_go(adapter)

    def stats_of(self, adapter: LoadedAdapter | None) -> AdapterStats:
        """Where its sequences are counted, or those of no adapter."""
        return self._unadapted if adapter is None else adapter.stats

    def stats(
        self, running: Iterable[LoadedAdapter | None], num_waiting: int
    ) -> dict[str, AdapterStats]:
        """By name of what is loaded, never more than there are slots; "" is all others together.

        running: of every running sequence. num_waiting: sequences.
        """
        counts = Counter(running)
        for adapter in self:
            adapter.stats.num_running = counts.pop(adapter, 0)
            adapter.stats.num_waiting = adapter.num_users - adapter.stats.num_running
            num_waiting -= adapter.stats.num_waiting
        self._unadapted.num_running = counts.total()
        self._unadapted.num_waiting = num_waiting
        return {"": self._unadapted, **{adapter.name: adapter.stats for adapter in self}}

    def check_integrity(self) -> None:
        """Every slot is free or one adapter's, and nobody waits for a slot without users."""
        taken = [adapter.slot for adapter in (*self, *self._retired)]
        assert sorted(taken + self._free) == list(range(self.room.slots)), "slots are lost"
        assert all(adapter.num_users for adapter in self._retired), "retired without users"

    def _let_go(self, adapter: LoadedAdapter) -> None:
        if adapter.is_retired and not adapter.num_users:
            self._retired.remove(adapter)
            self._free.append(adapter.slot)
