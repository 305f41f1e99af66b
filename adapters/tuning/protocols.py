"""What tuning needs from outside; the command line passes it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class AnswerSource(Protocol):
    """Greedy answers of the frozen model."""

    def answers(self, prompts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
        """The answer to each prompt, its end-of-sequence token included.

        An answer of `max_tokens` tokens was cut off.
        """
        ...
