"""Who computed the beginning of this prompt before, and is not too busy to do it again.

A replica that answered a conversation's last turn has its KV blocks; on another one the whole
conversation is computed anew. A prompt is known here by a chain of hashes, each of all its bytes up
to a multiple of `CHUNK`, so that two prompts share hashes as far as they are equal. Which adapter
drafts is no part of it: every replica has all adapters, and blocks are shared between them
(docs/design.md).
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Generic, TypeVar

CHUNK = 64
"""Bytes: about a block of the KV cache."""
MAX_CHUNKS = 1024
DIGEST_BYTES = 8

# By endpoint: chat and Anthropic's messages, responses, completions.
_AHEAD = ("cache_salt", "tools", "system", "instructions")
_PROMPTS = ("messages", "input", "prompt")

Replica = TypeVar("Replica", bound=Hashable)


def hashes_of(body: bytes) -> tuple[bytes, ...]:
    """Of a request's prompt, the shortest beginning first; none of what has no prompt."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    prompts = [asked[name] for name in _PROMPTS if name in asked] if isinstance(asked, dict) else []
    if not prompts:
        return ()
    parts = prompts[0] if isinstance(prompts[0], list) else prompts
    text = "".join(json.dumps(part) for part in [*(asked.get(name) for name in _AHEAD), *parts])
    data, hashes, last = text.encode(), [], b""
    for start in range(0, min(len(data) - CHUNK + 1, MAX_CHUNKS * CHUNK), CHUNK):
        last = blake2b(last + data[start : start + CHUNK], digest_size=DIGEST_BYTES).digest()
        hashes.append(last)
    return tuple(hashes)


class PrefixIndex(Generic[Replica]):
    """Which replicas were sent which beginnings; the `capacity` used last are kept."""

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._holders: OrderedDict[bytes, set[Replica]] = OrderedDict()
        self._held: Counter[Replica] = Counter()

    def add(self, hashes: Sequence[bytes], replica: Replica) -> None:
        """Note that a prompt was sent to a replica."""
        for beginning in hashes:
            holders = self._holders.setdefault(beginning, set())
            self._held[replica] += replica not in holders
            holders.add(replica)
            self._holders.move_to_end(beginning)
        while len(self._holders) > self._capacity:
            self._held.subtract(self._holders.popitem(last=False)[1])

    def forget(self, replica: Replica) -> None:
        """Note that a replica is gone."""
        for beginning in [known for known, holders in self._holders.items() if replica in holders]:
            self._holders[beginning].discard(replica)
        del self._held[replica]

    def matches(self, hashes: Sequence[bytes], replicas: Iterable[Replica]) -> dict[Replica, int]:
        """Of the replicas that were sent the beginning, how many hashes of it."""
        matched: dict[Replica, int] = {}
        left = set(replicas)
        for length, beginning in enumerate(hashes, start=1):
            left &= self._holders.get(beginning, set())
            matched.update(dict.fromkeys(left, length))
        return matched

    def ranked(
        self,
        hashes: Sequence[bytes],
        loads: Mapping[Replica, int],
        min_match: float,
        max_imbalance: int,
    ) -> list[Replica]:
        """The replicas in the order they should be tried.

        loads: requests that each has now. First comes the one that was sent the longest beginning,
        if that is at least the share `min_match` of the prompt and the replica has at most
        `max_imbalance` requests more than the least busy one; then who is least busy, of equals
        who holds least.
        """
        idlest = sorted(loads, key=lambda replica: (loads[replica], self._held[replica]))
        matched = self.matches(hashes, loads)
        if not matched:
            return idlest
        longest = max(matched.values())
        known = next(replica for replica in idlest if matched.get(replica) == longest)
        if longest < min_match * len(hashes) or loads[known] > loads[idlest[0]] + max_imbalance:
            return idlest
        return [known, *(replica for replica in idlest if replica != known)]
