"""Whether the server lives, and whether it should be sent requests."""

from __future__ import annotations

from dataclasses import dataclass

from server.client import Client
from server.intake import Intake


@dataclass(frozen=True, slots=True)
class Health:
    """live: there is an engine, or there will be; if not, restart us.

    ready: requests are served; if not, send them elsewhere.
    heartbeat_age: seconds since the engine's last sign of life.
    """

    live: bool
    ready: bool
    heartbeat_age: float


def check(client: Client, intake: Intake) -> Health:
    """How the server is.

    An engine that hangs or loads anew is replaced by its client: a restart of the whole server
    would help nobody, and so it is no less live.
    """
    live = not client.failed.is_set()
    ready = live and client.is_ready and not intake.is_closed
    return Health(live, ready, round(client.heartbeat_age, 3))
