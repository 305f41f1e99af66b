"""What a step brought every sequence: its tokens, whether they end it, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import torch

from engine.adapter_registry import AdapterRegistry
from engine.grammar.constraint import Constraint
from engine.request import FinishReason, RequestOutput
from engine.sampling.logprobs import logprobs
from engine.scheduler import Scheduled, Scheduler
from engine.sequence import Sequence
from engine.speculation.verify import Acceptance
from engine.stats import SpecDecodingStats


class Emission:
    """From accepted nodes to outputs.

    scheduler, adapters, stats: told what was committed and accepted. eos_token_ids: of the model.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        adapters: AdapterRegistry,
        stats: SpecDecodingStats,
        eos_token_ids: Seq[int],
    ) -> None:
        self._scheduler, self._adapters, self._stats = scheduler, adapters, stats
        self._eos_token_ids = eos_token_ids

    def emit(
        self,
        scheduled: list[Scheduled],
        logits: torch.Tensor,
        accepted: list[Acceptance | None],
    ) -> list[RequestOutput]:
        """Append the accepted tokens, end what has ended or failed, and say what is new.

        logits: float32 `[nodes of all sequences, vocab]`, in the order of `scheduled`.
        """
        outputs = []
        first = 0
        for item, acceptance in zip(scheduled, accepted, strict=True):
            sequence, last = item.sequence, first + item.num_nodes
            new: RequestOutput | None = None
            if sequence.failure is None:
                with sequence.blamed():
                    new = self._advance(item, acceptance, logits[first:last])
            first = last
            if sequence.failure is not None:
                sequence.finish_reason = FinishReason.ABORT
                name, error = sequence.request.request_id, sequence.failure
                new = RequestOutput(name, [], finish_reason=FinishReason.ABORT, error=error)
            if new is not None:
                outputs.append(new)
        return outputs

    def _advance(
        self, item: Scheduled, acceptance: Acceptance | None, logits: torch.Tensor
    ) -> RequestOutput | None:
        """What a step brought one sequence; None where its prompt is not finished yet.

        logits: `[its nodes, vocab]`.
        """
        sequence = item.sequence
        if acceptance is None or item.tree is None:
            self._scheduler.committed(sequence, item.num_causal)
            return None
        tokens = self._until_end(sequence, acceptance.tokens(item.tree))
        if sequence.constraint is not None:
            tokens = _as_constrained(sequence, sequence.constraint, tokens)
        if item.tree.reached:
            sequence.trust.observe(item.tree, acceptance.path)
        decoding = sequence.num_generated > 0
        wanted = sequence.request.sampling.prompt_logprobs is not None and not decoding
        sequence.append(tokens)
        self._scheduler.committed(
            sequence, item.num_causal + 1 + min(len(acceptance.path), len(tokens))
        )
        if decoding:
            sources = item.tree.sources
            hits = [sources[node] for node in acceptance.path[: len(tokens) - 1]]
            sequence.receipt.add(item.tree.num_drafts, len(hits))
            self._stats.add(sources[1:], hits)
            self._adapters.stats_of(sequence.adapter).add(len(hits))
        report = None
        if sequence.request.sampling.logprobs is not None:
            rows = [0, *acceptance.path][: len(tokens)]
            report = logprobs(logits[rows], tokens, sequence.request.sampling.logprobs)
        traced = None
        if sequence.request.trace:
            drafted = [item.tree.sources[node] for node in acceptance.path]
            traced = [*drafted, 0][: len(tokens)]
        return RequestOutput(
            request_id=sequence.request.request_id,
            token_ids=tokens,
            logprobs=report,
            sources=traced,
            prompt_logprobs=sequence.prompt_logprobs if wanted else None,
            finish_reason=sequence.finish_reason,
            stop_reason=sequence.stop_reason,
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_cached_tokens=sequence.num_cached_tokens,
            num_generated_tokens=sequence.num_generated,
            speculation=sequence.receipt,
            timing=None if decoding else sequence.timing(),
        )

    def _until_end(self, sequence: Sequence, tokens: list[int]) -> list[int]:
        """The tokens up to the one that ends the sequence; sets why it ended."""
        params = sequence.request.sampling
        ends = set(params.stop_token_ids)
        if not params.ignore_eos:
            ends.update(self._eos_token_ids)
        if sequence.max_tokens == 0:
            sequence.finish_reason = FinishReason.LENGTH
            return []
        for i, token in enumerate(tokens):
            if token in ends:
                sequence.finish_reason = FinishReason.STOP
                sequence.stop_reason = token if token in params.stop_token_ids else None
                return tokens[: i + 1]
            if sequence.num_generated + i + 1 >= sequence.max_tokens:
                sequence.finish_reason = FinishReason.LENGTH
                return tokens[: i + 1]
        return tokens


def _as_constrained(sequence: Sequence, constraint: Constraint, tokens: list[int]) -> list[int]:
    """The tokens that a grammar lets out; one that cannot go on cuts its answer short."""
    if not constraint.failed and sequence.finish_reason is None:
        constraint.advance(tokens)
    if not constraint.failed:
        return tokens
    sequence.finish_reason, sequence.stop_reason = FinishReason.LENGTH, None
    return []
