"""One request's tokens to text, up to a stop string."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from engine.request import SamplingParams
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
    """Detokenizer and stop strings of one request, whose stops are not empty strings.

    kept: special tokens that have a text here.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        kept: Collection[int] = (),
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt_ids, params.skip_special_tokens, kept)
        self._checker = StopChecker(params.stop, params.include_stop)
        self._min_tokens, self._num_tokens = params.min_tokens, 0

    def push(self, token_ids: Sequence[int], finished: bool) -> TextDelta:
        """Text of the next tokens; `finished` also gives what was kept back.

        After a stop string or `finished` nothing may be pushed.
        """
        pieces: list[str] = []
        for count, token_id in enumerate(token_ids, start=1):
            self._num_tokens += 1
            late = self._num_tokens > self._min_tokens
            piece, stop = self._checker.push(self._detokenizer.push([token_id]), late)
            pieces.append(piece)
            if stop is not None:
                return TextDelta("".join(pieces), stop, count)
        stop = None
        if finished:
            late = self._num_tokens > self._min_tokens
            piece, stop = self._checker.push(self._detokenizer.finish(), late)
            pieces += [piece, self._checker.finish()]
        return TextDelta("".join(pieces), stop, len(token_ids))
