"""Greedy answers of a whole list of prompts, for tuning and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from engine.engine import Engine
from engine.request import Request, SamplingParams


class EngineAnswers:
    """An engine as a source of answers (`adapters.tuning.protocols.AnswerSource`)."""

    def __init__(self, engine: Engine, speculation: bool = True) -> None:
        self.engine, self.speculation = engine, speculation

    def answers(self, prompts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
        """The greedy answer to each prompt, its end-of-sequence token included."""
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        tokens: list[list[int]] = [[] for _ in prompts]
        for i, prompt in enumerate(prompts):
            self.engine.add(Request(str(i), prompt, params, speculation=self.speculation))
        while self.engine.has_work:
            for output in self.engine.step():
                tokens[int(output.request_id)] += output.token_ids
        return tokens
