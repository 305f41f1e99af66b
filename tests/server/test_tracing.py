"""Spans of requests: what they say, whose children they are, and when there are none."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.errors import EngineDead, EngineError
from engine.request import Timing
from server.app import create_app
from server.tracing import ENDPOINT_VARIABLES, tracer
from tests.server.stub import ADAPTER, StubClient, model_folder, server_config
from tests.server.wire import CHAT, chat

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
ENDPOINT = "http://127.0.0.1:9/v1/traces"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINT_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where spans go instead of over OTLP."""
    sdk = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="pip install .[otel]"
    )
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install .[otel]")
    exporter = sdk.InMemorySpanExporter()
    monkeypatch.setattr("server.spans.OTLPSpanExporter", lambda endpoint: exporter)
    return exporter


@asynccontextmanager
async def traced(
    client: StubClient, folder: Path, endpoint: str | None = ENDPOINT
) -> AsyncIterator[httpx.AsyncClient]:
    """Spans are exported by the end of it."""
    config = server_config(model_folder(folder), otlp_traces_endpoint=endpoint)
    app = create_app(config, client)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http,
    ):
        yield http


async def test_a_generation_is_one_server_span_with_its_phases_below(
    client: StubClient, exported: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.timing = Timing(0.25, 0.5)
    caplog.set_level(logging.INFO, "bita.access")
    async with traced(client, tmp_path) as http:
        body = chat(model=ADAPTER, temperature=0.5, top_p=0.9, max_tokens=20)
        await http.post(CHAT, json=body, headers=TRACEPARENT)
        await http.get("/health")
        await http.get("/v1/models")
    spans = {span.name: span for span in exported.get_finished_spans()}
    assert set(spans) == {f"chat {ADAPTER}", "queue", "prefill", "decode"}
    root = spans.pop(f"chat {ADAPTER}")
    assert root.kind.name == "SERVER"
    assert format(root.context.trace_id, "032x") == TRACE
    assert format(root.parent.span_id, "016x") == PARENT
    assert root.resource.attributes["service.name"] == "bita-serve"
    assert dict(root.attributes) | {"bita.request_id": "", "gen_ai.response.id": ""} == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "bita.request_id": "",
        "bita.adapter": ADAPTER,
        "bita.time_to_first_token": root.attributes["bita.time_to_first_token"],
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "bita-serve",
        "gen_ai.request.model": ADAPTER,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.response.id": "",
        "gen_ai.response.model": ADAPTER,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 19,
        "gen_ai.usage.output_tokens": 11,
    }
    assert all(span.parent.span_id == root.context.span_id for span in spans.values())
    lengths = {name: (span.end_time - span.start_time) / 1e9 for name, span in spans.items()}
    assert lengths["queue"] == pytest.approx(0.25, abs=1e-6)
    assert lengths["prefill"] == pytest.approx(0.5, abs=1e-6)
    assert spans["queue"].end_time == spans["prefill"].start_time
    (line,) = [json.loads(r.message) for r in caplog.records if "chat/completions" in r.message]
    assert line["trace_id"] == TRACE


async def test_a_request_without_a_parent_begins_a_trace_that_the_log_names(
    client: StubClient, exported: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bita.access")
    async with traced(client, tmp_path) as http:
        await http.post(CHAT, json=chat(), headers={"traceparent": "00-nonsense"})
    (span,) = exported.get_finished_spans()
    (line,) = [json.loads(r.message) for r in caplog.records if r.name == "bita.access"]
    assert span.parent is None
    assert line["trace_id"] == format(span.context.trace_id, "032x")


async def test_spans_hold_no_text_and_failed_ones_say_why(
    client: StubClient, exported: Any, tmp_path: Path
) -> None:
    secret = [{"role": "user", "content": "my secret"}]
    async with traced(client, tmp_path) as http:
        await http.post(CHAT, json=chat(messages=secret, temperature=9))
        client.error = EngineDead("gone")
        await http.post(CHAT, json=chat(messages=secret, stream=True))
    refused, broken = exported.get_finished_spans()
    assert (refused.name, refused.status.status_code.name) == (f"POST {CHAT}", "UNSET")
    assert refused.attributes["error.type"] == "invalid_value"
    assert broken.status.status_code.name == "ERROR"
    assert broken.attributes["error.type"] == "unavailable"
    for span in (refused, broken):
        assert "secret" not in span.to_json()
        assert "Hello" not in span.to_json()


async def test_a_trace_that_the_client_does_not_sample_is_not_exported(
    client: StubClient, exported: Any, tmp_path: Path
) -> None:
    async with traced(client, tmp_path) as http:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert (await http.post(CHAT, json=chat(), headers=headers)).status_code == 200
    assert not exported.get_finished_spans()


def test_nothing_is_traced_or_imported_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "server.spans", None)
    assert tracer(None) is None
    monkeypatch.setenv(ENDPOINT_VARIABLES[0], ENDPOINT)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert tracer(None) is None


def test_without_the_package_the_flag_is_an_error_and_the_environment_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "server.spans", None)
    with pytest.raises(EngineError, match=r"--otlp-traces-endpoint.*bita-serve\[otel\]"):
        tracer(ENDPOINT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert tracer(None) is None
    assert "bita-serve[otel]" in caplog.text


async def test_spans_go_over_otlp_to_where_the_environment_says(
    client: StubClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="pip install .[otel]"
    )
    posted: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever).start()
        url = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        async with traced(client, tmp_path, endpoint=None) as http:
            await http.post(CHAT, json=chat(), headers=TRACEPARENT)
        collector.shutdown()
    ((path, body),) = posted
    assert path == "/v1/traces"
    (resource,) = proto.ExportTraceServiceRequest.FromString(body).resource_spans
    attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert attributes["service.name"] == "mine"
    (span,) = resource.scope_spans[0].spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
