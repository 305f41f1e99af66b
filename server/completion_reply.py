"""A text completion's outputs as OpenAI's response, or as its chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from statistics import fmean
from typing import Any

from engine.request import RequestOutput, TokenLogprob
from server.extras import Extras
from server.generation import IndexedOutputs, Job, Tally
from server.logprobs import TokenTexts
from server.schemas.completions import CompletionRequest
from server.sse import Event


class CompletionReply:
    """The answer to one completion request: all its prompts, all their choices.

    prompts: the text of each prompt, for an echo.
    """

    def __init__(
        self,
        body: CompletionRequest,
        job: Job,
        tally: Tally,
        texts: TokenTexts,
        prompts: list[str],
    ) -> None:
        self._body, self._job, self._tally, self._texts = body, job, tally, texts
        self._prompts, self._extras = prompts, Extras(body, job, tally, texts)
        self._offsets = [0] * len(job.requests)
        self._begun: set[int] = set()

    async def collect(self, outputs: IndexedOutputs) -> dict[str, Any]:
        """The whole response, once all choices have ended."""
        texts: list[list[str]] = [[] for _ in self._job.requests]
        entries: list[list[TokenLogprob]] = [[] for _ in self._job.requests]
        echoed: dict[int, RequestOutput] = {}
        last: dict[int, RequestOutput] = {}
        async with aclosing(outputs):
            async for index, output in outputs:
                texts[index].append(output.text)
                entries[index] += output.logprobs or []
                self._extras.note(index, output)
                echoed.setdefault(index, output)
                last[index] = output
        choices: list[dict[str, Any]] = []
        for index in self._best(entries):
            begin = self._begin(index, echoed[index])
            choice = self._choice(index, "".join(texts[index]), entries[index], last[index], begin)
            choice |= {**self._extras.of_choice(index), **self._extras.of_prompt(index)}
            choices.append({**choice, "index": len(choices)})
        return {
            **self._job.header("text_completion"),
            "choices": choices,
            "usage": self._tally.usage(),
            "metrics": self._tally.metrics(),
        }

    async def events(self, outputs: IndexedOutputs) -> AsyncGenerator[list[Event], None]:
        """The chunks, then usage if asked for."""
        running = len(self._job.requests)
        async with aclosing(outputs):
            async for index, output in outputs:
                ended = output.finish_reason is not None
                running -= ended
                begins = index not in self._begun
                begin = self._begin(index, output)
                more = self._extras.of_chunk(output) if output.token_ids else {}
                if not (output.text or output.logprobs or more or ended or begin):
                    continue
                choice = self._choice(index, output.text, output.logprobs or [], output, begin)
                choice |= {**more, **(self._extras.of_prompt(index) if begins else {})}
                event = {**self._job.header("text_completion"), "choices": [choice]}
                event |= self._extras.counts()
                if not running and not self._body.include_usage:
                    event["metrics"] = self._tally.metrics()
                yield [event]
        if self._body.include_usage:
            usage = {"usage": self._tally.usage(), "metrics": self._tally.metrics()}
            yield [{**self._job.header("text_completion"), "choices": [], **usage}]

    def _best(self, entries: list[list[TokenLogprob]]) -> list[int]:
        """Of each prompt's choices the `n` of highest mean log-probability, best first."""
        made, wanted = self._job.num_choices, self._body.n or 1
        chosen: list[int] = []
        for first in range(0, len(entries), made):
            indexes = list(range(first, first + made))
            if wanted < made:
                indexes.sort(key=lambda index: -_mean(entries[index]))
            chosen += indexes[:wanted]
        return chosen

    def _begin(self, index: int, output: RequestOutput) -> RequestOutput | None:
        """The output that a choice's echo belongs to: its first; None where there is no echo."""
        first = index not in self._begun
        self._begun.add(index)
        return output if first and self._body.echo else None

    def _choice(
        self,
        index: int,
        text: str,
        entries: list[TokenLogprob],
        output: RequestOutput,
        begin: RequestOutput | None,
    ) -> dict[str, Any]:
        first = None
        if begin is not None:
            text = self._prompts[index // self._job.num_choices] + text
            entries = [*(begin.prompt_logprobs or []), *entries]
            first = self._job.requests[index].token_ids[0]
        logprobs = None
        if self._body.logprobs is not None:
            logprobs = self._texts.completion(
                entries, self._offsets[index], self._body.logprobs, first
            )
            self._offsets[index] += sum(len(token) for token in logprobs["tokens"])
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": None if output.finish_reason is None else output.finish_reason.value,
            "stop_reason": output.stop_reason,
        }


def _mean(entries: list[TokenLogprob]) -> float:
    return fmean(entry.logprob for entry in entries) if entries else 0.0
