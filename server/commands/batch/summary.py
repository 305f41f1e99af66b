"""How a batch went, in numbers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from server.commands.batch.records import Record, is_finished


@dataclass(slots=True)
class Summary:
    """What the records of one run add up to.

    kept: answers that were there before. seconds: until the last of them.
    steps, accepted: decoding forwards, and draft tokens they accepted.
    """

    kept: int = 0
    answered: int = 0
    failed: int = 0
    tokens: int = 0
    steps: int = 0
    accepted: int = 0
    seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    def add(self, record: Record) -> None:
        """Count one record, and the time until it."""
        self.seconds = time.perf_counter() - self._started
        if not is_finished(record):
            self.failed += 1
            return
        self.answered += 1
        body: dict[str, Any] = record["response"]["body"]
        # Other servers than ours may leave either out, or say null.
        usage = body.get("usage") or {}
        self.tokens += usage.get("completion_tokens", usage.get("output_tokens", 0))
        receipt = (body.get("metrics") or {}).get("speculative_decoding", {})
        self.steps += receipt.get("num_spec_steps", 0)
        self.accepted += receipt.get("num_accepted_draft_tokens", 0)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens of all requests together."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def acceptance_length(self) -> float | None:
        """Mean tokens a decoding forward emitted, the bonus token included; None without any."""
        return 1 + self.accepted / self.steps if self.steps else None

    def speed(self) -> dict[str, str]:
        """The two figures in words, for the progress bar and the last line."""
        speed = {"tokens/s": f"{self.tokens_per_second:.1f}"}
        if self.acceptance_length is not None:
            speed["tokens a forward"] = f"{self.acceptance_length:.2f}"
        return speed

    def text(self) -> str:
        """All of it in one or two lines."""
        if not self.answered + self.failed:
            return f"nothing was left to ask: {self.kept} answered before"
        counts = f"{self.answered} answered, {self.failed} failed"
        if self.kept:
            counts += f", {self.kept} answered before"
        speed = ", ".join(f"{value} {name}" for name, value in self.speed().items())
        text = f"{counts}\n{self.tokens} tokens in {self.seconds:.1f} s: {speed}"
        if self.failed:
            text += "\nthe same command asks those that failed again"
        return text
