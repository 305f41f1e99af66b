"""Requests as OpenTelemetry spans. Imported only where traces are wanted.

One server span a request, a child of the client's `traceparent` where it sends one, with a span
each for queue, prefill and decode below it. Names are those of the GenAI conventions,
https://opentelemetry.io/docs/specs/semconv/gen-ai/ (status: development). Numbers and names, never
a prompt or an answer. Spans are made when a request has ended, from its record, so that a request
under way costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.datastructures import Headers
from starlette.types import Scope

from server.logging import RequestRecord

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
}
"""Route -> gen_ai.operation.name."""
NANOSECONDS = 1_000_000_000


class SpanTracer:
    """Hands spans to an exporter, in batches and from a thread of its own."""

    def __init__(self, exporter: SpanExporter) -> None:
        ours = Resource.create({SERVICE_NAME: "bita-serve"})
        resource = ours.merge(OTELResourceDetector().detect())  # what the environment says wins
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("bita-serve")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str | None) -> SpanTracer:
        """Over OTLP (HTTP, protobuf) to `endpoint`, or where the environment says."""
        return cls(OTLPSpanExporter(endpoint=endpoint))

    def trace(self, scope: Scope, record: RequestRecord) -> str:
        """As `Tracer.trace`."""
        arrived = time.time_ns() - round(record.elapsed_s * NANOSECONDS)
        operation = OPERATIONS.get(record.route) if record.completion_id is not None else None
        span = self._tracer.start_span(
            f"{operation} {record.model}" if operation else f"{record.method} {record.route}",
            self._propagator.extract(dict(Headers(scope=scope))),
            SpanKind.SERVER,
            dict(_attributes(record, operation)),
            start_time=arrived,
        )
        if span.is_recording():
            self._add_phases(span, record, arrived)
            if record.code >= 500:
                span.set_status(Status(StatusCode.ERROR, record.error))
        span.end()
        return format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """As `Tracer.close`."""
        self._provider.shutdown()

    def _add_phases(self, parent: Span, record: RequestRecord, arrived: int) -> None:
        context = set_span_in_context(parent)
        for name, start, end in _phases(record):
            started = arrived + round(start * NANOSECONDS)
            child = self._tracer.start_span(name, context, start_time=started)
            child.end(arrived + round(end * NANOSECONDS))


def _phases(record: RequestRecord) -> Iterator[tuple[str, float, float]]:
    """Name, start and end, in seconds from arrival; of several choices, of the first that began."""
    if record.queued_s is None or record.queue_s is None or record.prefill_s is None:
        return
    scheduled = record.queued_s + record.queue_s
    first_token = scheduled + record.prefill_s
    yield "queue", record.queued_s, scheduled
    yield "prefill", scheduled, first_token
    if record.last_token_s is not None:
        yield "decode", first_token, max(first_token, record.last_token_s)


def _attributes(
    record: RequestRecord, operation: str | None
) -> Iterator[tuple[str, AttributeValue]]:
    yield "http.request.method", record.method
    yield "http.route", record.route
    yield "http.response.status_code", record.status
    yield "bita.request_id", record.request_id
    if record.error is not None:
        yield "error.type", record.error
    elif record.client_aborted:
        yield "error.type", "client_aborted"
    if operation is None:
        return
    assert record.completion_id is not None
    yield "gen_ai.operation.name", operation
    yield "gen_ai.provider.name", "bita-serve"
    yield "gen_ai.response.id", record.completion_id
    for name, value in (("request", record.model), ("response", record.model)):
        if value is not None:
            yield f"gen_ai.{name}.model", value
    yield "gen_ai.response.finish_reasons", record.finish_reasons
    yield "gen_ai.usage.input_tokens", record.prompt_tokens
    yield "gen_ai.usage.output_tokens", record.output_tokens
    if record.adapter is not None:
        yield "bita.adapter", record.adapter
    if record.ttft_s is not None:
        yield "bita.time_to_first_token", record.ttft_s
    if (sampling := record.sampling) is not None:
        yield "gen_ai.request.temperature", sampling.temperature
        yield "gen_ai.request.top_p", sampling.top_p
        if sampling.max_tokens is not None:
            yield "gen_ai.request.max_tokens", sampling.max_tokens
