"""A text completion's outputs as OpenAI's response, or as its chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from engine.request import RequestOutput, TokenLogprob
from server.generation import IndexedOutputs, Job, Tally
from server.logprobs import TokenTexts
from server.schemas.completions import CompletionRequest
from server.sse import Event
from server.token_trace import TokenTrace


class CompletionReply:
    """The answer to one completion request: all its prompts, all their choices."""

    def __init__(self, body: CompletionRequest, job: Job, tally: Tally, texts: TokenTexts) -> None:
        self._body, self._job, self._tally, self._texts = body, job, tally, texts
        self._trace = TokenTrace(body, job, texts)
        self._offsets = [0] * len(job.requests)

    async def collect(self, outputs: IndexedOutputs) -> dict[str, Any]:
        """The whole response, once all choices have ended."""
        texts: list[list[str]] = [[] for _ in self._job.requests]
        entries: list[list[TokenLogprob]] = [[] for _ in self._job.requests]
        last: dict[int, RequestOutput] = {}
        async with aclosing(outputs):
            async for index, output in outputs:
                texts[index].append(output.text)
                entries[index] += output.logprobs or []
                self._trace.note(index, output)
                last[index] = output
        return {
            **self._job.header("text_completion"),
            "choices": [
                self._choice(index, "".join(texts[index]), entries[index], output)
                | self._trace.of_choice(index)
                for index, output in sorted(last.items())
            ],
            "usage": self._tally.usage(),
            "metrics": self._tally.metrics(),
        }

    async def events(self, outputs: IndexedOutputs) -> AsyncGenerator[Event, None]:
        """The chunks, then usage if asked for."""
        running = len(self._job.requests)
        async with aclosing(outputs):
            async for index, output in outputs:
                ended = output.finish_reason is not None
                running -= ended
                more = self._trace.of_chunk(output)
                if not (output.text or output.logprobs or more or ended):
                    continue
                choice = self._choice(index, output.text, output.logprobs or [], output) | more
                event = {**self._job.header("text_completion"), "choices": [choice]}
                if self._body.include_usage:
                    event["usage"] = None
                elif not running:
                    event["metrics"] = self._tally.metrics()
                yield event
        if self._body.include_usage:
            yield {
                **self._job.header("text_completion"),
                "choices": [],
                "usage": self._tally.usage(),
                "metrics": self._tally.metrics(),
            }

    def _choice(
        self, index: int, text: str, entries: list[TokenLogprob], output: RequestOutput
    ) -> dict[str, Any]:
        logprobs = None
        if self._body.logprobs is not None:
            logprobs = self._texts.completion(entries, self._offsets[index])
            self._offsets[index] += sum(len(token) for token in logprobs["tokens"])
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": None if output.finish_reason is None else output.finish_reason.value,
            "stop_reason": output.stop_reason,
        }
