"""A running text: its tokens, how far its KV reaches, and what is drafted for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from engine.adapter_registry import LoadedAdapter
from engine.request import FinishReason, Request, SpecReceipt
from engine.speculation.tree import DraftTree


class SequenceStatus(Enum):
    """Where a sequence stands in the scheduler."""

    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """One request being served.

    token_ids: prompt and output. num_computed_tokens: how many of them have committed KV;
        decoding leaves exactly the last one out: it is the root of the next step.
    block_table: KV blocks, in order. block_hashes: of its full blocks, as far as computed.
    draft: what the last accepted node's mask group drafted, if it had one.
    adapter: the one that drafts, None for plain decoding.
    seed: key of the sampling noise.
    """

    request: Request
    seed: int
    adapter: LoadedAdapter | None
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    num_prompt_tokens: int = 0
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    draft: DraftTree | None = None
    status: SequenceStatus = SequenceStatus.WAITING
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    receipt: SpecReceipt = field(default_factory=SpecReceipt)

    def __post_init__(self) -> None:
        self.token_ids = list(self.request.token_ids)
        self.num_prompt_tokens = len(self.token_ids)

    @property
    def num_uncomputed(self) -> int:
        """Tokens without KV: the rows a forward must run at least to choose the next token."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def output_ids(self) -> list[int]:
        """Generated tokens."""
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_generated(self) -> int:
        """Number of generated tokens."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def order(self) -> int:
        """Priority; smaller runs first."""
        return self.request.priority

    def forget_kv(self) -> None:
        """Give up the KV: everything is computed again when the sequence is scheduled next."""
        self.block_table = []
        self.num_computed_tokens = 0
        self.draft = None
        self.status = SequenceStatus.WAITING
