"""What a request shows as it passes: how it is answered, its tokens and its times."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from engine.errors import EngineOverloaded, RequestError
from engine.request import FinishReason, RequestOutput
from server.logging import RequestRecord
from server.metrics.series import Registered
from server.paths import GENERATION_PATHS

FINISHED_REASONS = ("stop", "length", "abort", "error")
USUAL_CODES = (200, 429, 500, 503)
REFUSED = frozenset({401, 403, 413, 429, 503})

# vLLM's, so that its dashboards' heat maps fit.
TTFT_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_BUCKETS = (
    *(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_BUCKETS = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0),
    *(50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
# Most prompts of an idle server wait and are computed within the first of vLLM's.
START_BUCKETS = (0.001, 0.005, 0.01, 0.025, *REQUEST_BUCKETS)
LENGTH_BUCKETS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))


class HttpMetrics:
    """HTTP requests by route and code."""

    def __init__(self, make: Registered, model_name: str) -> None:
        self._model_name = model_name
        self._requests = make.labelled(
            "bita_http_requests",
            "HTTP requests that ended, by route and code.",
            *("route", "code"),
        )
        self._rejected = make.labelled(
            "bita_rejected", "Requests refused before any work, by the error's code.", "reason"
        )
        # There before the first of them: a rate sees no counter's birth.
        for route in GENERATION_PATHS:
            for code in USUAL_CODES:
                self._requests.labels(model_name, route, str(code))
        for reason in ("queue_full", "unavailable"):
            self._rejected.labels(model_name, reason)

    def ended(self, record: RequestRecord) -> None:
        """Count a request that is over; probes, scrapes and the page's own are not counted."""
        if record.quiet:
            return
        self._requests.labels(self._model_name, record.route, str(record.code)).inc()
        if record.status in REFUSED and record.error is not None:
            self._rejected.labels(self._model_name, record.error).inc()


class GenerationMetrics:
    """Requests to the engine, under vLLM's names."""

    def __init__(self, make: Registered, model_name: str) -> None:
        self._prompt_tokens = make.counter("vllm:prompt_tokens", "Prompt tokens.")
        self._generated = make.counter("vllm:generation_tokens", "Generated tokens.")
        finished = make.labelled(
            "vllm:request_success", "Requests that ended, by how.", "finished_reason"
        )
        self._finished = {
            reason: finished.labels(model_name, reason) for reason in FINISHED_REASONS
        }
        histogram = make.histogram
        self._ttft = histogram(
            "vllm:time_to_first_token_seconds", "Arrival to first token.", TTFT_BUCKETS
        )
        self._itl = histogram(
            "vllm:inter_token_latency_seconds",
            "A step's time divided by the tokens it emitted, once a token.",
            ITL_BUCKETS,
        )
        self._e2e = histogram(
            "vllm:e2e_request_latency_seconds", "Arrival to last token.", REQUEST_BUCKETS
        )
        self._queue = histogram(
            "vllm:request_queue_time_seconds", "Arrival to first step.", START_BUCKETS
        )
        self._prefill = histogram(
            "vllm:request_prefill_time_seconds", "First step to first token.", START_BUCKETS
        )
        self._decode = histogram(
            "vllm:request_decode_time_seconds", "First token to last.", REQUEST_BUCKETS
        )
        self._prompt_length = histogram(
            "vllm:request_prompt_tokens", "Tokens of a request's prompt.", LENGTH_BUCKETS
        )
        self._output_length = histogram(
            "vllm:request_generation_tokens", "Tokens of a request's output.", LENGTH_BUCKETS
        )

    async def observe(
        self, outputs: AsyncGenerator[RequestOutput, None]
    ) -> AsyncGenerator[RequestOutput, None]:
        """Pass one request's outputs on, counting them; closes `outputs` when it ends.

        What the engine refuses is not counted: it is in the HTTP requests' codes.
        """
        reason: str | None = "abort"
        arrived = previous = time.perf_counter()
        first = 0.0
        output = None
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    now = time.perf_counter()
                    tokens = len(output.token_ids)
                    self._generated.inc(tokens)
                    if first:
                        for _ in range(tokens):
                            self._itl.observe((now - previous) / tokens)
                    else:
                        self._started(output, now - arrived)
                        first = now
                    previous = now
                    if output.finish_reason is not None:
                        # An engine that ends a request itself has failed it.
                        failed = output.finish_reason is FinishReason.ABORT
                        reason = "error" if failed else output.finish_reason.value
                    yield output
        except (RequestError, EngineOverloaded):
            reason = None
            raise
        except Exception:
            reason = "error"
            raise
        finally:
            if reason is not None:
                self._finished[reason].inc()
            if output is not None and reason in ("stop", "length"):
                self._e2e.observe(previous - arrived)
                self._decode.observe(previous - first)
                self._prompt_length.observe(output.num_prompt_tokens)
                self._output_length.observe(output.num_generated_tokens)

    def _started(self, output: RequestOutput, seconds: float) -> None:
        self._prompt_tokens.inc(output.num_prompt_tokens)
        if output.token_ids:
            self._ttft.observe(seconds)
        if output.timing is not None:
            self._queue.observe(output.timing.queue)
            self._prefill.observe(output.timing.prefill)
