"""What tuning needs from outside; the command line passes it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class AnswerSource(Protocol):
    """Answers of the frozen model."""

    def answers(
        self,
        prompts: Sequence[list[int]],
        max_tokens: int,
        temperatures: Sequence[float] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """The answer to each prompt, its end-of-sequence token included.

        An answer of `max_tokens` tokens may be cut off.
        temperatures: of each prompt; 0, as all are by default, is greedy. A sampled answer depends
        on the prompt and `seed` alone.
        """
        ...
