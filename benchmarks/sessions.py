"""What a workload is made of: sessions of calls, the same for every side that is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """One completion asked for.

    prompt, token_ids: the same prompt as text and as tokens. max_tokens: of the answer.
    ignore_eos: go on past the end of the answer, to max_tokens.
    prediction: what the answer will be, most of it; or None.
    messages: the prompt in chat form, where it has one and no tools.
    """

    prompt: str
    token_ids: list[int]
    max_tokens: int
    ignore_eos: bool = False
    prediction: str | None = None
    messages: list[dict[str, Any]] | None = None


class Session(Protocol):
    """Calls of one user, each after the answer to the one before."""

    def advance(self) -> Call | None:
        """The next call, or None at the end."""

    def answer(self, text: str) -> None:
        """Take the answer to the last call."""


class Workload(Protocol):
    """An endless supply of sessions."""

    def session(self, number: int) -> Session:
        """Session `number`: always the same, and no two begin alike.

        So a prefix cache helps within a session, as it does in use, and not from run to run.
        """


class Single:
    """A session of one call."""

    def __init__(self, call: Call) -> None:
        self._calls = [call]

    def advance(self) -> Call | None:
        """As `Session.advance`."""
        return self._calls.pop() if self._calls else None

    def answer(self, text: str) -> None:
        """Nothing follows."""


FIRST = ("Alice", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Leo", "Paul")
LAST = ("Adams", "Baker", "Carter", "Davis", "Evans", "Foster", "Green", "Hill", "Jones", "King")


def user_name(number: int) -> str:
    """A name for the user of session `number`; 110 of them differ, then they are numbered."""
    again, place = divmod(number, len(FIRST) * len(LAST))
    name = f"{FIRST[place % len(FIRST)]} {LAST[place // len(FIRST)]}"
    return f"{name} {again + 1}" if again else name
