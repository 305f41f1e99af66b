"""Whether the server lives, and whether it should be sent requests."""

from __future__ import annotations

from dataclasses import dataclass

from server.client import Client


@dataclass(frozen=True, slots=True)
class Health:
    """live: the engine gave a sign of life lately; if not, restart us.

    ready: it is live and takes requests; if not, send them elsewhere.
    heartbeat_age: seconds since that sign of life.
    """

    live: bool
    ready: bool
    heartbeat_age: float


def check(client: Client, stall_seconds: float) -> Health:
    """How `client` is; alive but silent for `stall_seconds` counts as hung."""
    age = client.heartbeat_age
    live = age < stall_seconds
    return Health(live, live and client.is_ready, round(age, 3))
