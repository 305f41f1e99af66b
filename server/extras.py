"""What an answer has beyond OpenAI's where a request asks for it: vLLM's keys, and the trace."""

from __future__ import annotations

from typing import Any

from engine.request import RequestOutput
from engine.speculation.sources import names
from server.generation import Job, Tally
from server.logprobs import TokenTexts
from server.schemas.common import GenerationRequest


class Extras:
    """Token ids, the prompt's log-probabilities, traces and token counts so far, of one answer.

    Of the choices of one prompt the first tells of the prompt.
    """

    def __init__(self, body: GenerationRequest, job: Job, tally: Tally, texts: TokenTexts) -> None:
        self._body, self._job, self._tally, self._texts = body, job, tally, texts
        self._traced = body.speculation is not None and body.speculation.trace
        self._ids: list[list[int]] = [[] for _ in job.requests]
        self._traces: list[list[dict[str, Any]]] = [[] for _ in job.requests]
        self._prompts: dict[int, list[dict[str, Any] | None]] = {}

    def note(self, index: int, output: RequestOutput) -> None:
        """Take one output of choice `index`."""
        if self._body.return_token_ids:
            self._ids[index] += output.token_ids
        if self._traced:
            self._traces[index] += self._trace(output)
        if self._body.prompt_logprobs is not None and output.prompt_logprobs is not None:
            token_ids = self._job.requests[index].token_ids
            top = self._body.prompt_logprobs
            self._prompts[index] = self._texts.prompt(output.prompt_logprobs, token_ids, top)

    def of_prompt(self, index: int) -> dict[str, Any]:
        """Keys that tell of the prompt of choice `index`."""
        keys: dict[str, Any] = {}
        if self._body.return_token_ids:
            keys["prompt_token_ids"] = self._job.requests[index].token_ids
        if self._body.prompt_logprobs is not None:
            keys["prompt_logprobs"] = self._prompts.get(index)
        return keys

    def of_choice(self, index: int) -> dict[str, Any]:
        """Keys of a whole choice."""
        return self._of_tokens(self._ids[index], self._traces[index])

    def of_chunk(self, output: RequestOutput) -> dict[str, Any]:
        """Keys of a chunk's choice that `output` is worded in."""
        return self._of_tokens(output.token_ids, self._trace(output) if self._traced else [])

    def counts(self) -> dict[str, Any]:
        """The `usage` of a chunk; null where it has a chunk of its own."""
        if self._body.usage_so_far:
            return {"usage": self._tally.usage()}
        return {"usage": None} if self._body.include_usage else {}

    def _of_tokens(self, token_ids: list[int], trace: list[dict[str, Any]]) -> dict[str, Any]:
        keys: dict[str, Any] = {"token_ids": token_ids} if self._body.return_token_ids else {}
        return {**keys, "trace": trace} if self._traced else keys

    def _trace(self, output: RequestOutput) -> list[dict[str, Any]]:
        drafted = zip(output.token_ids, output.sources or [], strict=True)
        return [self._entry(*token, depth) for depth, token in enumerate(drafted, start=1)]

    def _entry(self, token_id: int, sources: int, depth: int) -> dict[str, Any]:
        """How one token came; `schemas.answers.TracedToken` says what its keys mean."""
        text, utf8 = self._texts.text(token_id)
        entry = {"text": text, "sources": names(sources), "depth": depth if sources else 0}
        return {**entry, "bytes": utf8} if utf8 is not None and "\ufffd" in text else entry
