"""A chat's outputs as OpenAI's response, or as its chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from engine.request import FinishReason, RequestOutput
from server import token_trace
from server.generation import IndexedOutputs, Job, Tally
from server.logprobs import TokenTexts
from server.schemas.chat import ChatCompletionRequest
from server.sse import Event
from server.tool_calls.base import ToolCall
from server.tool_calls.hermes import HermesParser


class ChatReply:
    """The answer to one chat request, all its choices."""

    def __init__(
        self, body: ChatCompletionRequest, job: Job, tally: Tally, texts: TokenTexts
    ) -> None:
        self._body, self._job, self._tally = body, job, tally
        self._choices = [_Choice(body, texts) for _ in job.requests]

    async def collect(self, outputs: IndexedOutputs) -> dict[str, Any]:
        """The whole response, once all choices have ended."""
        async with aclosing(outputs):
            async for index, output in outputs:
                self._choices[index].add(output)
        return {
            **self._job.header("chat.completion"),
            "choices": [
                {"index": index, **choice.whole()} for index, choice in enumerate(self._choices)
            ],
            "usage": self._tally.usage(),
            "metrics": self._tally.metrics(),
        }

    async def events(self, outputs: IndexedOutputs) -> AsyncGenerator[Event, None]:
        """The chunks: each choice's role, what it says, how it ended; then usage, if asked for."""
        running = len(self._choices)
        started = False
        async with aclosing(outputs):
            async for index, output in outputs:
                if not started:
                    # Only now: an error before the first output is a plain HTTP error.
                    started = True
                    for number in range(len(self._choices)):
                        yield self._chunk(number, {"role": "assistant", "content": ""})
                choice = self._choices[index]
                for delta, more in choice.deltas(output):
                    yield self._chunk(index, delta, **more)
                if output.finish_reason is not None:
                    running -= 1
                    yield self._last_chunk(index, choice, last_of_all=not running)
        if self._body.include_usage:
            yield {
                **self._job.header("chat.completion.chunk"),
                "choices": [],
                "usage": self._tally.usage(),
                "metrics": self._tally.metrics(),
            }

    def _chunk(self, index: int, delta: dict[str, Any], **more: Any) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        event = {**self._job.header("chat.completion.chunk"), "choices": [choice]}
        return {**event, "usage": None} if self._body.include_usage else event

    def _last_chunk(self, index: int, choice: _Choice, last_of_all: bool) -> Event:
        event = self._chunk(index, {})
        event["choices"][0] |= {
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if last_of_all and not self._body.include_usage:
            event["metrics"] = self._tally.metrics()
        return event


class _Choice:
    """One answer as it grows: its text, its calls, what is told of its tokens."""

    def __init__(self, body: ChatCompletionRequest, texts: TokenTexts) -> None:
        self._parser = HermesParser() if body.uses_tools else None
        self._texts, self._with_logprobs = texts, body.num_logprobs is not None
        self._content: list[str] = []
        self._calls: list[ToolCall] = []
        self._logprobs: list[dict[str, Any]] = []
        self._traced = body.speculation is not None and body.speculation.trace
        self._trace: list[dict[str, Any]] = []
        self._finish: FinishReason | None = None
        self.stop_reason: str | int | None = None

    def add(self, output: RequestOutput) -> tuple[Sequence[str | ToolCall], dict[str, Any]]:
        """Take one output; its certain text and calls, and the keys that tell of its tokens."""
        self._finish, self.stop_reason = output.finish_reason, output.stop_reason
        pieces: list[str | ToolCall] = [output.text] if output.text else []
        if self._parser is not None:
            pieces = self._parser.feed(output.text)
            if output.finish_reason is not None:
                pieces += self._parser.finish()
        self._content += [piece for piece in pieces if isinstance(piece, str)]
        self._calls += [piece for piece in pieces if isinstance(piece, ToolCall)]
        more: dict[str, Any] = {}
        if output.logprobs:
            entries = self._texts.chat(output.logprobs)
            self._logprobs += entries
            more["logprobs"] = {"content": entries, "refusal": None}
        if output.sources:
            more["trace"] = token_trace.entries(output, self._texts)
            self._trace += more["trace"]
        return pieces, more

    def deltas(self, output: RequestOutput) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """One output as deltas of chunks; the first of them tells of its tokens."""
        number = len(self._calls)
        pieces, more = self.add(output)
        deltas: list[dict[str, Any]] = []
        for piece in pieces:
            if isinstance(piece, str):
                deltas.append({"content": piece})
            else:
                deltas.append({"tool_calls": [{"index": number, **piece.as_dict()}]})
                number += 1
        if more and not deltas:
            deltas.append({"content": ""})
        return [(delta, {} if place else more) for place, delta in enumerate(deltas)]

    @property
    def finish_reason(self) -> str | None:
        """How it ended, as OpenAI words it."""
        if self._calls and self._finish is FinishReason.STOP:
            return "tool_calls"
        return None if self._finish is None else self._finish.value

    def whole(self) -> dict[str, Any]:
        """The choice once it has ended."""
        text = "".join(self._content)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if self._calls and not text else text,
            "refusal": None,
        }
        if self._calls:
            message["tool_calls"] = [call.as_dict() for call in self._calls]
        logprobs = {"content": self._logprobs, "refusal": None} if self._with_logprobs else None
        choice = {
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self.finish_reason,
            "stop_reason": self.stop_reason,
        }
        return {**choice, "trace": self._trace} if self._traced else choice
