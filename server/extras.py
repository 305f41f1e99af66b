"""What an answer has beyond OpenAI's where a request asks for it, in vLLM's shapes."""

from __future__ import annotations

from typing import Any

from engine.request import RequestOutput
from server.generation import Job, Tally
from server.logprobs import TokenTexts
from server.schemas.common import GenerationRequest


class Extras:
    """Token ids, the prompt's log-probabilities and token counts so far, of one request's answer.

    Of the choices of one prompt the first tells of the prompt.
    """

    def __init__(self, body: GenerationRequest, job: Job, tally: Tally, texts: TokenTexts) -> None:
        self._body, self._job, self._tally, self._texts = body, job, tally, texts
        self._ids: list[list[int]] = [[] for _ in job.requests]
        self._prompts: dict[int, list[dict[str, Any] | None]] = {}

    def note(self, index: int, output: RequestOutput) -> None:
        """Take one output of choice `index`."""
        if self._body.return_token_ids:
            self._ids[index] += output.token_ids
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
        return {"token_ids": self._ids[index]} if self._body.return_token_ids else {}

    def of_chunk(self, output: RequestOutput) -> dict[str, Any]:
        """Keys of a chunk's choice that `output` is worded in."""
        return {"token_ids": output.token_ids} if self._body.return_token_ids else {}

    def counts(self) -> dict[str, Any]:
        """The `usage` of a chunk; null where it has a chunk of its own."""
        if self._body.usage_so_far:
            return {"usage": self._tally.usage()}
        return {"usage": None} if self._body.include_usage else {}
