"""One answer as it grows, before any endpoint words it."""

from __future__ import annotations

from typing import Any

from engine.request import FinishReason, RequestOutput
from server.logprobs import TokenTexts
from server.pieces import Gathered, Piece
from server.reader import AnswerReader


class Choice:
    """Outputs of one engine request to pieces, and what they add up to.

    reader: of its text.
    texts: what its tokens read as; None where no log-probabilities are asked for.
    said: all pieces so far. logprobs: chat's entries of all tokens so far.
    """

    def __init__(self, reader: AnswerReader, texts: TokenTexts | None) -> None:
        self._reader, self._texts = reader, texts
        self._finish: FinishReason | None = None
        self.said = Gathered()
        self.logprobs: list[dict[str, Any]] = []
        self.stop_reason: str | int | None = None

    def add(self, output: RequestOutput) -> list[Piece]:
        """The pieces that are certain with one more output and were not before."""
        self._finish, self.stop_reason = output.finish_reason, output.stop_reason
        self._reader.count(_with_text(output))
        pieces = self._reader.feed(output.text)
        if output.finish_reason is not None:
            pieces += self._reader.finish()
        self.said.add(pieces)
        if self._texts is not None:
            self.logprobs += self._texts.chat(output.logprobs or [])
        return pieces

    @property
    def num_reasoning_tokens(self) -> int | None:
        """Once it has ended; None where the model does not reason or the number is not exact."""
        return self._reader.num_reasoning_tokens

    @property
    def finish_reason(self) -> str | None:
        """How it ended, as chat completions word it; None while it has not."""
        if self.said.calls and self._finish is FinishReason.STOP:
            return "tool_calls"
        return None if self._finish is None else self._finish.value


def _with_text(output: RequestOutput) -> list[int]:
    """Its tokens but the one that ended it, which has no text."""
    ended = output.finish_reason is FinishReason.STOP and not isinstance(output.stop_reason, str)
    return output.token_ids[:-1] if ended else output.token_ids
