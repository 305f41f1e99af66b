"""Answers to a whole list of prompts, for tuning and benchmarks."""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from engine.engine import Engine
from engine.errors import RequestFailed
from engine.request import Request, SamplingParams


class EngineAnswers:
    """An engine as a source of answers (`adapters.tuning.protocols.AnswerSource`)."""

    def __init__(self, engine: Engine, speculation: bool = True) -> None:
        self.engine, self.speculation = engine, speculation

    def answers(
        self,
        prompts: Sequence[list[int]],
        max_tokens: int,
        temperatures: Sequence[float] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """The answer to each prompt, its end-of-sequence token included.

        temperatures: of each prompt; 0, as all are by default, is greedy. A sampled answer depends
        on the prompt and `seed` alone, not on its neighbours. Raises RequestFailed where one cannot
        be computed.
        """
        tokens: list[list[int]] = [[] for _ in prompts]
        for i, prompt in enumerate(prompts):
            params = SamplingParams(
                temperature=temperatures[i] if temperatures is not None else 0.0,
                max_tokens=max_tokens,
                seed=seed_of(prompt, seed),
            )
            self.engine.add(Request(str(i), prompt, params, speculation=self.speculation))
        while self.engine.has_work:
            for output in self.engine.step():
                if output.error is not None:
                    raise RequestFailed(output.error)
                tokens[int(output.request_id)] += output.token_ids
        return tokens


@dataclass(frozen=True, slots=True)
class AnswerRate:
    """length: mean tokens of an answer. tokens_per_second: of all together, prompts included."""

    length: float
    tokens_per_second: float


def answer_rate(
    engine: Engine, prompts: Sequence[list[int]], max_tokens: int, seconds: float
) -> AnswerRate:
    """Answer the prompts greedily together for at most `seconds`.

    An answer that has not ended by then counts as `max_tokens` long.
    """
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    for i, prompt in enumerate(prompts):
        engine.add(Request(str(i), prompt, params))
    lengths, open_ = [0] * len(prompts), set(range(len(prompts)))
    started = time.perf_counter()
    while engine.has_work and time.perf_counter() - started < seconds:
        for output in engine.step():
            number = int(output.request_id)
            lengths[number] += len(output.token_ids)
            if output.finish_reason is not None:
                open_.discard(number)
    taken = time.perf_counter() - started
    whole = [max_tokens if i in open_ else length for i, length in enumerate(lengths)]
    return AnswerRate(sum(whole) / len(whole), max(1, sum(lengths)) / taken)


def seed_of(prompt: Sequence[int], seed: int) -> int:
    """A seed of a prompt's own, in [0, 2**63)."""
    digest = hashlib.blake2b(array("q", [seed, *prompt]).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
