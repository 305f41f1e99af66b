"""`PrefixIndex` as Ray Serve's router of requests."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from server.cluster.exchange import Asked
from server.cluster.prefixes import PrefixIndex

MIN_MATCH, MAX_IMBALANCE = 0.3, 8


class PrefixRouter(RequestRouter):
    """Sends a prompt to the replica that has its beginning, unless others are much less busy.

    Ray's own router of this kind belongs to `ray.serve.llm`, whose engines are vLLM and SGLang. One
    `Ingress` replica has one router, which knows of the requests that went through itself, and of
    others' by the queue lengths that Ray's cache holds for some seconds.
    """

    def initialize_state(
        self, min_match: float = MIN_MATCH, max_imbalance: int = MAX_IMBALANCE, **unknown: Any
    ) -> None:
        """Take `request_router_kwargs`; they are `PrefixIndex.ranked`'s. Raises TypeError."""
        if unknown:
            raise TypeError(f"PrefixRouter takes no {', '.join(sorted(unknown))}")
        self._min_match, self._max_imbalance = min_match, max_imbalance
        self._index: PrefixIndex[ReplicaID] = PrefixIndex()
        # Their ids, not a number: Ray reports the end of requests it never routed, too.
        self._running: defaultdict[ReplicaID, set[str]] = defaultdict(set)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The candidates, each a rank of its own; Ray takes the first that has room."""
        if pending_request is not None:
            # Where none has room, ask again later, not at once.
            pending_request.routing_context.should_backoff = True
        by_id = {replica.replica_id: replica for replica in candidate_replicas}
        loads = {replica_id: self._load(replica_id) for replica_id in by_id}
        ranked = self._index.ranked(
            _prompt(pending_request), loads, self._min_match, self._max_imbalance
        )
        return [[by_id[replica_id]] for replica_id in ranked]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Note who has the prompt now."""
        self._running[replica_id].add(pending_request.metadata.internal_request_id)
        self._index.add(_prompt(pending_request), replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Note that a replica has a request less."""
        self._running[replica_id].discard(internal_request_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forget those that are gone."""
        gone = set(self.curr_replicas) - {replica.replica_id for replica in replicas}
        super().update_replicas(replicas)
        for replica_id in gone:
            self._index.forget(replica_id)
            self._running.pop(replica_id, None)

    def _load(self, replica_id: ReplicaID) -> int:
        return max(
            len(self._running[replica_id]), self.replica_queue_len_cache.get(replica_id) or 0
        )


def _prompt(pending_request: PendingRequest | None) -> tuple[bytes, ...]:
    arguments = pending_request.args if pending_request is not None else []
    return arguments[0].prompt if arguments and isinstance(arguments[0], Asked) else ()
