"""How each token of an answer came, for who asked by `speculation.trace`."""

from __future__ import annotations

from typing import Any

from engine.request import RequestOutput
from engine.speculation.sources import names
from server.generation import Job
from server.logprobs import TokenTexts
from server.schemas.common import GenerationRequest


class TokenTrace:
    """The `trace` of one request's choices, where it asks for one: an entry a token.

    text: what the token reads as alone. bytes: its UTF-8 bytes, where it is part of a character.
    sources: who had drafted it; nobody, if the model chose it itself. depth: its place in the
    draft, from 1; 0 where nobody had.
    """

    def __init__(self, body: GenerationRequest, job: Job, texts: TokenTexts) -> None:
        self._traced = body.speculation is not None and body.speculation.trace
        self._texts = texts
        self._entries: list[list[dict[str, Any]]] = [[] for _ in job.requests]

    def note(self, index: int, output: RequestOutput) -> None:
        """Take one output of choice `index`."""
        self._entries[index] += self.of_chunk(output).get("trace", [])

    def of_choice(self, index: int) -> dict[str, Any]:
        """Keys of a whole choice."""
        return {"trace": self._entries[index]} if self._traced else {}

    def of_chunk(self, output: RequestOutput) -> dict[str, Any]:
        """Keys of a chunk's choice that `output` is worded in; none without a token."""
        if not self._traced or not output.sources:
            return {}
        drafted = zip(output.token_ids, output.sources, strict=True)
        return {"trace": [self._entry(*token, n) for n, token in enumerate(drafted, start=1)]}

    def _entry(self, token_id: int, bits: int, depth: int) -> dict[str, Any]:
        text, utf8 = self._texts.text(token_id)
        entry = {"text": text, "sources": names(bits), "depth": depth if bits else 0}
        return {**entry, "bytes": utf8} if utf8 is not None and "\ufffd" in text else entry
