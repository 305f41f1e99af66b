"""Pieces of an answer, put together to be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Protocol, TypeAlias

from server.pieces import CallArguments, CallEnded, CallStarted, Piece, Reasoning, Text

Said: TypeAlias = list[str | tuple[str, ...]]
"""Text as it is, ("think", text), and a call as (name, arguments), with "broken" where it is."""


class Reader(Protocol):
    """What takes an answer's text."""

    def feed(self, text: str) -> list[Piece]: ...

    def finish(self) -> list[Piece]: ...


def read(reader: Reader, pieces: Iterable[str]) -> Said:
    """What a reader makes of an answer in pieces."""
    return said([*(item for piece in pieces for item in reader.feed(piece)), *reader.finish()])


def said(pieces: Sequence[Piece]) -> Said:
    """Neighbours of one kind joined; checks that calls are begun, numbered and ended in order."""
    joined: Said = []
    num_calls, open_call = 0, False
    for piece in pieces:
        assert open_call == isinstance(piece, CallArguments | CallEnded)
        match piece:
            case Text(text) | Reasoning(text) | CallArguments(_, text):
                assert text
        match piece:
            case Text(text):
                if joined and isinstance(joined[-1], str):
                    text = joined.pop() + text  # type: ignore[operator]
                joined.append(text)
            case Reasoning(text):
                if joined and joined[-1][0] == "think":
                    text = joined.pop()[1] + text
                joined.append(("think", text))
            case CallStarted(index, _, name):
                assert index == num_calls
                num_calls += 1
                open_call = True
                joined.append((name, ""))
            case CallArguments(index, text):
                assert index == num_calls - 1
                name, arguments = joined.pop()
                joined.append((name, arguments + text))
            case CallEnded(index, complete):
                assert index == num_calls - 1
                open_call = False
                if not complete:
                    joined.append((*joined.pop(), "broken"))
    assert not open_call
    return joined


def divide(text: str, cuts: Iterable[int]) -> list[str]:
    """`text` in pieces, cut at these places."""
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]
