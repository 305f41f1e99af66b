"""What a model writes to itself before it answers, apart from the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from server.pieces import Piece, Reasoning, Text


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """The markers around it."""

    name: str
    open: str
    close: str


FORMATS = {
    known.name: known
    for known in (
        ReasoningFormat("think", "<think>", "</think>"),
        ReasoningFormat("mistral", "[THINK]", "[/THINK]"),
    )
}


def recognised(template: str, has_token: Callable[[str], bool]) -> ReasoningFormat | None:
    """The format whose closing marker a chat template's source names, or else a vocabulary has."""
    for has in (template.__contains__, has_token):
        for known in FORMATS.values():
            if has(known.close):
                return known
    return None


class ReasoningTokens:
    """Counts the tokens between the markers, where these are tokens of their own.

    open, close: the markers' ids. inside: whether the prompt ends with the opening one.
    count: so far. began, ended: as the tokens say it.
    """

    def __init__(self, open: int | None, close: int | None, inside: bool) -> None:
        self._open, self._close = open, close
        self.began, self.ended = inside, False
        self.count = 0

    def add(self, token_ids: Iterable[int]) -> None:
        """Count further tokens of the answer."""
        for token_id in token_ids:
            if self.ended:
                return
            if not self.began:
                self.began = token_id == self._open
            elif token_id == self._close:
                self.ended = True
            else:
                self.count += 1


class ReasoningSplitter:
    """Splits one answer into reasoning and text, wherever its text is cut into pieces.

    Reasoning is what stands between the markers at the beginning of the answer; without a closing
    one it is all of it. White space around markers belongs to them.

    inside: whether the prompt ends with the opening marker. counter: of the same answer.
    """

    def __init__(self, form: ReasoningFormat, inside: bool, counter: ReasoningTokens) -> None:
        self._form, self._counter = form, counter
        self._held = ""
        self._after_marker = inside
        self._decided = inside
        self._began, self._ended = inside, False

    def count(self, token_ids: Iterable[int]) -> None:
        """Count further tokens of the answer."""
        self._counter.add(token_ids)

    @property
    def num_tokens(self) -> int | None:
        """Tokens of reasoning, once the answer has ended.

        None where the tokens say otherwise than the text: where a marker is no token of its own, or
        was spelled with others.
        """
        counter = self._counter
        agree = (counter.began, counter.ended) == (self._began, self._ended)
        return counter.count if agree else None

    def feed(self, text: str) -> list[Piece]:
        """What became certain with more text, in order."""
        self._held += text
        if self._after_marker:
            self._held = self._held.lstrip()
        if not self._decided and not self._decide():
            return []
        return self._reasoning() if self._began and not self._ended else self._text()

    def finish(self) -> list[Piece]:
        """What was held back, now that the answer has ended."""
        if not (self._began and not self._ended):
            return self._text()
        held, self._held = self._held.rstrip(), ""
        return [Reasoning(held)] if held else []

    def _decide(self) -> bool:
        """Whether it is certain by now if the answer begins with reasoning."""
        start = self._held.lstrip()
        if len(start) < len(self._form.open) and self._form.open.startswith(start):
            return False
        self._decided = True
        if start.startswith(self._form.open):
            self._held = start.removeprefix(self._form.open).lstrip()
            self._began = self._after_marker = True
        return True

    def _reasoning(self) -> list[Piece]:
        before, marker, behind = self._held.partition(self._form.close)
        if marker:
            self._ended = self._after_marker = True
            certain, self._held = before.rstrip(), behind.lstrip()
        else:
            end = len(before) - _uncertain(before, self._form.close)
            certain = before[:end].rstrip()
            self._held = before[len(certain) :]
        if certain and not marker:
            self._after_marker = False
        pieces: list[Piece] = [Reasoning(certain)] if certain else []
        return pieces + self._text() if marker else pieces

    def _text(self) -> list[Piece]:
        held, self._held = self._held, ""
        if held:
            self._after_marker = False
        return [Text(held)] if held else []


def _uncertain(text: str, marker: str) -> int:
    """Length of the end of `text` that may be the beginning of `marker`."""
    longest = min(len(marker) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if marker.startswith(text[-n:])), 0)
