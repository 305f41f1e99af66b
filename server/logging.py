"""One JSON line a request: numbers and names, never a prompt, an answer or a key."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

_GENERATION_FIELDS = (
    *("completion_id", "model", "adapter", "stream", "prompt_tokens", "cached_tokens"),
    *("output_tokens", "ttft_s", "finish_reasons", "client_aborted"),
)
QUIET_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/metrics", "/ping"})

access_log = logging.getLogger("bita.access")


@dataclass(slots=True)
class RequestRecord:
    """What is told of one HTTP request; filled in along its way.

    request_id: the client's x-request-id, or ours. completion_id: the id in the answer, which the
    engine's ids begin with. Times in seconds from arrival.
    """

    request_id: str
    method: str
    path: str
    arrived: float = field(default_factory=time.perf_counter)
    status: int = 0
    completion_id: str | None = None
    model: str | None = None
    adapter: str | None = None
    stream: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    ttft_s: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    client_aborted: bool = False

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since it arrived."""
        return round((time.perf_counter() - self.arrived) * 1000)

    def saw_token(self) -> None:
        """Note the time of the first token."""
        if self.ttft_s is None:
            self.ttft_s = round(time.perf_counter() - self.arrived, 6)

    def write(self) -> None:
        """Write the line; probes and scrapes stay silent."""
        if self.path not in QUIET_PATHS:
            access_log.info(json.dumps(self._line()))

    def _line(self) -> dict[str, Any]:
        line: dict[str, Any] = {
            "ts": round(time.time(), 3),
            "level": "error" if self.status >= 500 else "info",
            "request_id": self.request_id,
            "method": self.method,
            "route": self.path,
            "status": self.status,
            "e2e_s": round(time.perf_counter() - self.arrived, 6),
        }
        if self.completion_id is not None:
            line |= {name: getattr(self, name) for name in _GENERATION_FIELDS}
        return line


def configure(level: int = logging.INFO) -> None:
    """Send our log to stderr; request lines bare, since they are JSON already."""
    bare = logging.StreamHandler()
    bare.setFormatter(logging.Formatter("%(message)s"))
    access_log.addHandler(bare)
    access_log.setLevel(level)
    access_log.propagate = False
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
