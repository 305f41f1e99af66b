"""One request's tokens to text, up to a stop string."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from engine.text.detokenizer import Detokenizer
from engine.text.stops import StopChecker


@dataclass(frozen=True, slots=True)
class TextDelta:
    """text: certain now and not before. stop: the stop string that ended it.

    num_tokens: pushed tokens up to and including the one that completed the stop string, all of
        them where there is none; what comes after it does not belong to the answer.
    """

    text: str
    stop: str | None
    num_tokens: int


class TextStream:
    """Detokenizer and stop strings of one request.

    stops: not empty strings. kept: special tokens that have a text here.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        stops: tuple[str, ...] = (),
        kept: Collection[int] = (),
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt_ids, kept=kept)
        self._checker = StopChecker(stops)

    def push(self, token_ids: Sequence[int], finished: bool) -> TextDelta:
        """Text of the next tokens; `finished` also gives what was kept back.

        After a stop string or `finished` nothing may be pushed.
        """
        pieces: list[str] = []
        for count, token_id in enumerate(token_ids, start=1):
            piece, stop = self._checker.push(self._detokenizer.push([token_id]))
            pieces.append(piece)
            if stop is not None:
                return TextDelta("".join(pieces), stop, count)
        stop = None
        if finished:
            piece, stop = self._checker.push(self._detokenizer.finish())
            pieces += [piece, self._checker.finish()]
        return TextDelta("".join(pieces), stop, len(token_ids))
