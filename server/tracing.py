"""Whether requests are traced, and which trace they belong to.

Off unless an OTLP endpoint is named, by `--otlp-traces-endpoint` or by OpenTelemetry's own
variables. OpenTelemetry is imported only then: it is an extra (`bita-serve[otel]`).
"""

from __future__ import annotations

import logging
import os
import re
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import Scope

from engine.errors import EngineError
from server.logging import RequestRecord

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
INSTALL = "OpenTelemetry is not installed: pip install 'bita-serve[otel]'"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

log = logging.getLogger("bita.server")


class Tracer(Protocol):
    """What becomes of requests that have ended: `server.spans.SpanTracer`."""

    def trace(self, scope: Scope, record: RequestRecord) -> str:
        """Tell of a request that has just ended; the id of its trace."""
        ...

    def close(self) -> None:
        """Send what is not sent yet; may take seconds."""
        ...


def trace_id_of(scope: Scope) -> str | None:
    """The trace that the client's `traceparent` header names.

    Its form: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    found = _TRACEPARENT.fullmatch(Headers(scope=scope).get("traceparent", ""))
    return found[1] if found else None


def tracer(endpoint: str | None) -> Tracer | None:
    """Sends spans to `endpoint`, or where the environment says; None where neither names one.

    Raises EngineError where `endpoint` is given and OpenTelemetry is not installed; where only the
    environment asks for spans, as it may of all containers of a cluster, the log says so.
    """
    exporters = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    named = any(os.environ.get(name) for name in ENDPOINT_VARIABLES)
    if endpoint is None and not (named and "otlp" in exporters.split(",")):
        return None
    try:
        from server.spans import SpanTracer
    except ImportError as error:
        if endpoint is not None:
            raise EngineError(f"--otlp-traces-endpoint: {INSTALL}") from error
        log.warning("no traces, though the environment names an endpoint: %s", INSTALL)
        return None
    return SpanTracer.to(endpoint)
