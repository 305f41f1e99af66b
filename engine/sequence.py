"""A running text: its tokens, how far its KV reaches, and what is drafted for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from engine.adapter_registry import LoadedAdapter
from engine.cache.prefix import ROOT, root_of
from engine.grammar.constraint import Constraint
from engine.request import FinishReason, Request, SpecReceipt, Timing, TokenLogprob
from engine.sampling.sampler import Key
from engine.speculation.drafter import Chain, Drafter
from engine.speculation.sources import GUESSING
from engine.speculation.tree import MAX_ROWS, DraftTree
from engine.speculation.trust import Trust

log = logging.getLogger("bita.engine")


class SequenceStatus(Enum):
    """Where a sequence stands in the scheduler."""

    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


class Blame:
    """As `Sequence.blamed`; a class, since a generator takes three times as long to enter."""

    __slots__ = ("_sequence",)

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> bool:
        if kind is None or not issubclass(kind, Exception):
            return False
        log.exception("request %s failed", self._sequence.request.request_id)
        self._sequence.failure = "The server could not compute this request."
        return True


@dataclass(slots=True, eq=False)
class Sequence:
    """One request being served.

    token_ids: prompt and output. num_computed_tokens: how many of them have committed KV;
        decoding leaves exactly the last one out: it is the root of the next step.
    block_table: KV blocks, in order. block_hashes: of its full blocks, as far as computed.
    to_compute: hashes of the full blocks it begins with, known before they are computed, so that
        others may wait for them. cache_root: parent of the first.
    prompt_logprobs: as far as computed, where they were asked for.
    draft: the next tree, if anything was drafted for it.
    adapter: the one that drafts, None for none; trust: in what it says of this request.
    drafters: other sources of drafts.
    constraint: where it stands in its grammar, if it has one.
    failure: why it cannot go on, once it cannot.
    scheduled: when it first was, by the clock of `Request.arrived`; None before.
    seed: key of the sampling noise.
    """

    request: Request
    seed: int
    adapter: LoadedAdapter | None
    max_tokens: int
    drafters: list[Drafter] = field(default_factory=list)
    trust: Trust = field(default_factory=Trust)
    constraint: Constraint | None = None
    token_ids: list[int] = field(default_factory=list)
    num_prompt_tokens: int = 0
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    to_compute: list[bytes] = field(default_factory=list)
    cache_root: bytes = ROOT
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    draft: DraftTree | None = None
    status: SequenceStatus = SequenceStatus.WAITING
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    failure: str | None = None
    receipt: SpecReceipt = field(default_factory=SpecReceipt)
    scheduled: float | None = None

    def __post_init__(self) -> None:
        self.token_ids = list(self.request.token_ids)
        self.num_prompt_tokens = len(self.token_ids)
        self.cache_root = root_of(self.request.cache_salt)

    def blamed(self) -> Blame:
        """Whatever goes wrong inside is this request's: it fails, and the others go on."""
        return Blame(self)

    @property
    def is_running(self) -> bool:
        """Whether it is neither waiting nor gone."""
        return self.status is SequenceStatus.RUNNING

    @property
    def num_uncomputed(self) -> int:
        """Tokens without KV: the rows a forward must run at least to choose the next token."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def num_sharable(self) -> int:
        """Tokens whose KV may come from the cache: the last one is always computed, and so is
        every token of the prompt whose successor's log-probability is still wanted.
        """
        whole = len(self.token_ids) - 1
        if self.request.sampling.prompt_logprobs is None:
            return whole
        done = len(self.prompt_logprobs)
        return whole if done == self.num_prompt_tokens - 1 else done

    @property
    def output_ids(self) -> list[int]:
        """Generated tokens."""
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_generated(self) -> int:
        """Number of generated tokens."""
        return len(self.token_ids) - self.num_prompt_tokens

    def append(self, tokens: list[int]) -> None:
        """Take the tokens of a step."""
        self.token_ids += tokens
        for drafter in self.drafters:
            drafter.observe(tokens)

    def keys(self, depths: Iterable[int]) -> list[Key | None]:
        """Of the noise at draft nodes of these depths; none where the likeliest is chosen."""
        if self.request.sampling.greedy:
            return [None for _ in depths]
        return [(self.seed, len(self.token_ids) + depth) for depth in depths]

    def chains(self, guesses: bool) -> list[Chain]:
        """What the drafters propose, no further than the last token that may be generated.

        guesses: also those of sources that were told nothing of the answer.
        """
        # The last one comes without a draft, from the last accepted node.
        limit = min(MAX_ROWS, self.max_tokens - self.num_generated) - 1
        asked = [d for d in self.drafters if guesses or d.source not in GUESSING]
        return [chain for drafter in asked for chain in drafter.propose(limit) if chain.tokens]

    def timing(self) -> Timing:
        """How it began, now that its first token is there."""
        assert self.scheduled is not None, "a token before any step"
        return Timing(self.scheduled - self.request.arrived, time.monotonic() - self.scheduled)

    @property
    def order(self) -> int:
        """Priority; smaller runs first."""
        return self.request.priority

    def forget_kv(self) -> None:
        """Give up the KV: everything is computed again when the sequence is scheduled next."""
        self.block_table, self.to_compute = [], []
        self.num_computed_tokens = 0
        self.draft = None
        self.status = SequenceStatus.WAITING
