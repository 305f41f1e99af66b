"""A chat's outputs as Anthropic's message, or as the events of one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from engine.request import RequestOutput
from server.anthropic.blocks import Blocks
from server.choice import Choice
from server.errors import ApiError
from server.generation import IndexedOutputs, Job, Tally
from server.sse import Event, Framing

FRAMING = Framing(named=True, error=ApiError.anthropic, end=b"")

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessagesReply:
    """The answer to one request: its one choice, as blocks."""

    def __init__(self, job: Job, tally: Tally, choice: Choice) -> None:
        self._job, self._tally, self._choice = job, tally, choice
        self._blocks = Blocks()

    async def collect(self, outputs: IndexedOutputs) -> dict[str, Any]:
        """The whole message."""
        async with aclosing(outputs):
            async for _, output in outputs:
                self._take(output)
        message = {**self._message(), **self._stop(), "usage": self._usage()}
        return {**message, "metrics": self._tally.metrics()}

    async def events(self, outputs: IndexedOutputs) -> AsyncGenerator[list[Event], None]:
        """The events; an error before the first output is a plain HTTP error."""
        started = False
        async with aclosing(outputs):
            async for _, output in outputs:
                events = [] if started else self._first_events()
                events += self._take(output)
                started = True
                if events:
                    yield events
        delta = {
            "type": "message_delta",
            "delta": self._stop(),
            "usage": self._usage(),
            "metrics": self._tally.metrics(),
        }
        yield [delta, {"type": "message_stop"}]

    def _first_events(self) -> list[Event]:
        usage = {**self._usage(), "output_tokens": 0}
        message = {**self._message(), "usage": usage}
        return [{"type": "message_start", "message": message}, {"type": "ping"}]

    def _take(self, output: RequestOutput) -> list[Event]:
        events = self._blocks.take(self._choice.add(output))
        return events + (self._blocks.end() if output.finish_reason is not None else [])

    def _message(self) -> dict[str, Any]:
        return {
            "id": self._job.completion_id,
            "type": "message",
            "role": "assistant",
            "model": self._job.model,
            "content": list(self._blocks.whole),
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _stop(self) -> dict[str, Any]:
        matched = self._choice.stop_reason
        reason = _STOP_REASONS[self._choice.finish_reason or "stop"]
        if reason == "end_turn" and isinstance(matched, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": matched}
        return {"stop_reason": reason, "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        """Anthropic counts cached tokens of the prompt apart from its others."""
        usage = self._tally.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"] - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
        }
