"""A chat's outputs as OpenAI's response, or as its chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from engine.request import RequestOutput
from server.choice import Choice
from server.extras import Extras
from server.generation import IndexedOutputs, Job, Tally
from server.logprobs import TokenTexts
from server.pieces import (
    CallArguments,
    CallEnded,
    CallStarted,
    Gathered,
    Piece,
    Reasoning,
    Text,
)
from server.schemas.chat import ChatCompletionRequest
from server.sse import Event


class ChatReply:
    """The answer to one chat request, all its choices."""

    def __init__(
        self,
        body: ChatCompletionRequest,
        job: Job,
        tally: Tally,
        choices: list[Choice],
        texts: TokenTexts,
    ) -> None:
        self._body, self._job, self._tally, self._choices = body, job, tally, choices
        self._extras = Extras(body, job, tally, texts)

    async def collect(self, outputs: IndexedOutputs) -> dict[str, Any]:
        """The whole response, once all choices have ended."""
        async with aclosing(outputs):
            async for index, output in outputs:
                self._choices[index].add(output)
                self._extras.note(index, output)
        return {
            **self._job.header("chat.completion"),
            **self._extras.of_prompt(0),
            "choices": [self._whole(index, choice) for index, choice in enumerate(self._choices)],
            "usage": self._usage(),
            "metrics": self._tally.metrics(),
        }

    async def events(self, outputs: IndexedOutputs) -> AsyncGenerator[list[Event], None]:
        """The chunks: each choice's role, what it says, how it ended; then usage, if asked for."""
        running = len(self._choices)
        started = False
        async with aclosing(outputs):
            async for index, output in outputs:
                # Not before: an error before the first output is a plain HTTP error.
                events = [] if started else self._first_chunks()
                choice = self._choices[index]
                events += self._chunks(index, choice, output)
                if output.finish_reason is not None:
                    running -= 1
                    events.append(self._last_chunk(index, choice, last_of_all=not running))
                started = True
                if events:
                    yield events
        if self._body.include_usage:
            usage = {"usage": self._usage(), "metrics": self._tally.metrics()}
            yield [{**self._job.header("chat.completion.chunk"), "choices": [], **usage}]

    def _first_chunks(self) -> list[Event]:
        chunks = [
            self._chunk(number, {"role": "assistant", "content": ""})
            for number in range(len(self._choices))
        ]
        chunks[0] |= self._extras.of_prompt(0)
        return chunks

    def _whole(self, index: int, choice: Choice) -> dict[str, Any]:
        return {
            "index": index,
            "message": _message(choice.said),
            "logprobs": self._logprobs(choice.logprobs),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            **self._extras.of_choice(index),
        }

    def _chunks(self, index: int, choice: Choice, output: RequestOutput) -> list[Event]:
        """One output as chunks; the first of them tells of its tokens."""
        known = len(choice.logprobs)
        deltas = [delta for piece in choice.add(output) if (delta := _delta(piece)) is not None]
        entries = choice.logprobs[known:]
        more = self._extras.of_chunk(output) if output.token_ids else {}
        if (entries or more) and not deltas:
            deltas = [{"content": ""}]
        if entries:
            more["logprobs"] = self._logprobs(entries)
        return [
            self._chunk(index, delta, **({} if place else more))
            for place, delta in enumerate(deltas)
        ]

    def _usage(self) -> dict[str, Any]:
        usage = self._tally.usage()
        counts = [choice.num_reasoning_tokens for choice in self._choices]
        exact = [count for count in counts if count is not None]
        if len(exact) == len(counts):
            details = usage.setdefault("completion_tokens_details", {})
            details["reasoning_tokens"] = sum(exact)
        return usage

    def _logprobs(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        if self._body.num_logprobs is None:
            return None
        return {"content": entries, "refusal": None}

    def _chunk(self, index: int, delta: dict[str, Any], **more: Any) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        event = {**self._job.header("chat.completion.chunk"), "choices": [choice]}
        return {**event, **self._extras.counts()}

    def _last_chunk(self, index: int, choice: Choice, last_of_all: bool) -> Event:
        event = self._chunk(index, {})
        event["choices"][0] |= {
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if last_of_all and not self._body.include_usage:
            event["metrics"] = self._tally.metrics()
        return event


def _delta(piece: Piece) -> dict[str, Any] | None:
    match piece:
        case Text(text):
            return {"content": text}
        case Reasoning(text):
            # vLLM renamed the field that others kept: clients look for either.
            return {"reasoning_content": text, "reasoning": text}
        case CallStarted(index, id, name):
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": id, "type": "function", "function": function}
            return {"tool_calls": [call]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
        case CallEnded():
            return None


def _message(said: Gathered) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if said.calls and not said.text else said.text,
        "refusal": None,
    }
    if said.reasoning:
        message |= {"reasoning_content": said.reasoning, "reasoning": said.reasoning}
    if said.calls:
        message["tool_calls"] = [call.as_dict() for call in said.calls]
    return message
