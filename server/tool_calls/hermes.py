"""Hermes' form, also Qwen's: <tool_call>{"name": ..., "arguments": {...}}</tool_call>."""

from __future__ import annotations

import json

from server.pieces import CallArguments, CallEnded, CallStarted, Piece, Text
from server.tool_calls.base import new_id

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class HermesParser:
    """Finds calls between the markers; what is not valid between them stays text.

    White space around calls belongs to them and is dropped.
    """

    def __init__(self) -> None:
        self._held = ""
        self._after_call = False
        self._num_calls = 0

    def feed(self, text: str) -> list[Piece]:
        """What became certain with more text, in order."""
        self._held += text
        found: list[Piece] = []
        while self._advance(found):
            pass
        return found

    def finish(self) -> list[Piece]:
        """What was held back; a complete call lacking only its closing marker is one."""
        found: list[Piece] = []
        body = self._held.lstrip().removeprefix(OPEN)
        call = _parse(body) if self._held.lstrip().startswith(OPEN) else None
        if call is not None:
            self._call(call, found)
        else:
            self._emit(self._held, found)
        self._held = ""
        return found

    def _advance(self, found: list[Piece]) -> bool:
        """Take one text or call off what is held; False where that needs more text."""
        start = self._held.find(OPEN)
        certain = len(self._held) - _uncertain(self._held) if start < 0 else start
        # White space before a call is part of it, and the next piece may begin one.
        text = self._held[:certain].rstrip()
        self._emit(text, found)
        self._held = self._held[len(text) :]
        if start < 0:
            return False
        start -= len(text)
        end = self._held.find(CLOSE, start)
        if end < 0:
            return False
        call = _parse(self._held[start + len(OPEN) : end])
        if call is None:
            # The marker alone becomes text: a call may yet begin behind it.
            end = start + len(OPEN)
            self._emit(self._held[:end], found)
        else:
            self._call(call, found)
            end += len(CLOSE)
        self._held = self._held[end:]
        return True

    def _call(self, call: tuple[str, str], found: list[Piece]) -> None:
        (name, arguments), index = call, self._num_calls
        found.append(CallStarted(index, new_id(), name))
        if arguments:
            found.append(CallArguments(index, arguments))
        found.append(CallEnded(index, complete=True))
        self._num_calls += 1
        self._after_call = True

    def _emit(self, text: str, found: list[Piece]) -> None:
        if self._after_call:
            text = text.lstrip()
        if text:
            found.append(Text(text))
            self._after_call = False


def _uncertain(text: str) -> int:
    """Length of the end of `text` that may be the beginning of the opening marker."""
    longest = min(len(OPEN) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if OPEN.startswith(text[-n:])), 0)


def _parse(body: str) -> tuple[str, str] | None:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        return call["name"], arguments
    return call["name"], json.dumps(arguments, ensure_ascii=False)
