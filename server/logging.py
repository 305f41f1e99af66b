"""One JSON line a request: numbers and names, never a prompt, an answer or a key."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from engine.request import Request, SamplingParams, Timing

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that went away; only log and metrics see it."""
OTHER_ROUTE = "other"
_GENERATION_FIELDS = (
    *("completion_id", "model", "adapter", "stream", "prompt_tokens", "cached_tokens"),
    *("output_tokens", "queue_s", "ttft_s", "finish_reasons", "client_aborted"),
)
QUIET_PATHS = frozenset(
    {"/health", "/health/live", "/health/ready", "/metrics", "/ping", "/v1/stats"}
)
"""Asked again and again by machines, which would drown the rest."""
_SCOPE_KEY = "bita.record"

access_log = logging.getLogger("bita.access")


@dataclass(slots=True)
class RequestRecord:
    """What is told of one HTTP request; filled in along its way.

    request_id: the client's x-request-id, or ours. completion_id: the id in the answer, which the
    engine's ids begin with. trace_id: of the trace it belongs to. route: the template of its path.
    error, error_status: code and status of the error it ended by, in a stream also after a status
    of 200. sampling: how the first choice was to be sampled. arrived: by `time.monotonic`.
    queued_s, queue_s, prefill_s: when the first choice that got a token went to the engine, how
    long it waited there, and then for that token. Times in seconds from arrival.
    """

    request_id: str
    method: str
    path: str
    arrived: float = field(default_factory=time.monotonic)
    route: str = OTHER_ROUTE
    trace_id: str | None = None
    status: int = 0
    error: str | None = None
    error_status: int = 0
    completion_id: str | None = None
    model: str | None = None
    adapter: str | None = None
    stream: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    sampling: SamplingParams | None = None
    queued_s: float | None = None
    queue_s: float | None = None
    prefill_s: float | None = None
    ttft_s: float | None = None
    last_token_s: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    client_aborted: bool = False

    @property
    def elapsed_s(self) -> float:
        """Seconds since it arrived."""
        return time.monotonic() - self.arrived

    @property
    def quiet(self) -> bool:
        """Whether it is a probe, a scrape or the like, of which nothing is told."""
        return self.path in QUIET_PATHS

    @property
    def code(self) -> int:
        """How it ended: its status, or what a stream broke off by behind it."""
        if self.client_aborted or not self.status:
            return CLIENT_CLOSED_REQUEST
        return self.error_status or self.status

    def saw_start(self, request: Request, timing: Timing) -> None:
        """Note how the first choice that got a token came to it."""
        if self.queued_s is None:
            self.queued_s = request.arrived - self.arrived
            self.queue_s, self.prefill_s = round(timing.queue, 6), timing.prefill

    def saw_token(self) -> None:
        """Note the time of the first token, and of the latest."""
        self.last_token_s = self.elapsed_s
        if self.ttft_s is None:
            self.ttft_s = round(self.last_token_s, 6)

    def write(self) -> None:
        """Write the line; probes and scrapes stay silent."""
        if not self.quiet:
            access_log.info(json.dumps(self._line()))

    def _line(self) -> dict[str, Any]:
        line: dict[str, Any] = {
            "ts": round(time.time(), 3),
            "level": "error" if self.code >= 500 else "info",
            "request_id": self.request_id,
            "method": self.method,
            "route": self.path,
            "status": self.status,
            "e2e_s": round(self.elapsed_s, 6),
        }
        for name in ("trace_id", "error"):
            if (value := getattr(self, name)) is not None:
                line[name] = value
        if self.completion_id is not None:
            line |= {name: getattr(self, name) for name in _GENERATION_FIELDS}
        return line


def open_record(scope: Scope, record: RequestRecord) -> None:
    """Let all who serve the request of `scope` fill in its record."""
    scope[_SCOPE_KEY] = record


def record_in(scope: Scope) -> RequestRecord:
    """The record of the request that `scope` belongs to."""
    record = scope[_SCOPE_KEY]
    assert isinstance(record, RequestRecord)
    return record


def configure(level: int = logging.INFO) -> None:
    """Send our log to stderr; request lines bare, since they are JSON already."""
    bare = logging.StreamHandler()
    bare.setFormatter(logging.Formatter("%(message)s"))
    access_log.addHandler(bare)
    access_log.setLevel(level)
    access_log.propagate = False
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
