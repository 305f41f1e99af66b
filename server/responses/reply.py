"""A chat's outputs as a response, or as the events of one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from engine.request import RequestOutput
from server.choice import Choice
from server.errors import ApiError, as_api_error
from server.generation import IndexedOutputs, Job, Tally
from server.responses.items import OutputItems
from server.schemas.chat import ChatCompletionRequest
from server.schemas.responses import ResponsesRequest
from server.sse import Event, Framing

FRAMING = Framing(named=True, end=b"")

_ERROR_CODES = {429: "rate_limit_exceeded"}


class ResponsesReply:
    """The answer to one request: its one choice, as items."""

    def __init__(
        self,
        body: ResponsesRequest,
        chat: ChatCompletionRequest,
        job: Job,
        tally: Tally,
        choice: Choice,
    ) -> None:
        self._body, self._chat, self._job = body, chat, job
        self._tally, self._choice = tally, choice
        self._items = OutputItems()
        self._sequence_number = 0

    async def collect(self, outputs: IndexedOutputs) -> dict[str, Any]:
        """The whole response."""
        async with aclosing(outputs):
            async for _, output in outputs:
                self._take(output)
        return self._ended()

    async def events(self, outputs: IndexedOutputs) -> AsyncGenerator[list[Event], None]:
        """The events; an error after the first of them is the response's own."""
        started = False
        async with aclosing(outputs):
            try:
                async for _, output in outputs:
                    # Not before: an error before the first output is a plain HTTP error.
                    events = [] if started else self._first_events()
                    events += self._take(output)
                    started = True
                    if events:
                        yield [self._numbered(event) for event in events]
            except Exception as error:
                if not started:
                    raise
                failed = self._failed(as_api_error(error))
                yield [self._numbered({"type": "response.failed", "response": failed})]
                return
        response = self._ended()
        yield [self._numbered({"type": f"response.{response['status']}", "response": response})]

    def _first_events(self) -> list[Event]:
        return [
            {"type": name, "response": self._response("in_progress")}
            for name in ("response.created", "response.in_progress")
        ]

    def _take(self, output: RequestOutput) -> list[Event]:
        known = len(self._choice.logprobs)
        pieces = self._choice.add(output)
        events = self._items.take(pieces, self._choice.logprobs[known:])
        if output.finish_reason is not None:
            events += self._items.finish(self._status)
        return events

    def _numbered(self, event: Event) -> Event:
        number, self._sequence_number = self._sequence_number, self._sequence_number + 1
        return {"type": event["type"], "sequence_number": number, **event}

    @property
    def _status(self) -> str:
        return "incomplete" if self._choice.finish_reason == "length" else "completed"

    def _ended(self) -> dict[str, Any]:
        status = self._status
        response = self._response(status)
        if status == "completed":
            response["completed_at"] = int(time.time())
        else:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        return {**response, "usage": self._usage(), "metrics": self._tally.metrics()}

    def _failed(self, error: ApiError) -> dict[str, Any]:
        code = _ERROR_CODES.get(error.status, "server_error")
        return {**self._response("failed"), "error": {"code": code, "message": error.message}}

    def _usage(self) -> dict[str, Any]:
        usage = self._tally.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        thought = self._choice.num_reasoning_tokens or 0
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": usage["total_tokens"],
        }

    def _response(self, status: str) -> dict[str, Any]:
        body, chat = self._body, self._chat
        given = body.model_dump(by_alias=True, exclude_none=True)
        return {
            "id": self._job.completion_id,
            "object": "response",
            "created_at": self._job.created,
            "completed_at": None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": None,
            "metadata": body.metadata or {},
            "model": self._job.model,
            "output": list(self._items.whole),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "prompt_cache_key": body.prompt_cache_key,
            "reasoning": {"effort": None, "summary": None, **given.get("reasoning", {})},
            "safety_identifier": body.safety_identifier,
            "service_tier": "default",
            "store": False,
            "temperature": 1.0 if chat.temperature is None else chat.temperature,
            "text": {"format": {"type": "text"}, **given.get("text", {})},
            "tool_choice": given.get("tool_choice", "auto"),
            "tools": [tool.model_dump(by_alias=True) for tool in body.tools or []],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": 1.0 if chat.top_p is None else chat.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": body.user,
        }
