"""The engine: requests in, tokens out, one forward a step. Single thread, no I/O."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, TypeAlias

import torch

from adapters.format import BitaAdapter
from engine.adapter_registry import AdapterRegistry, LoadedAdapter, PreparedAdapter, Room
from engine.admission import token_limit
from engine.batch import ForwardBatch, RowKind, Segment, SegmentPlan
from engine.cache.block_pool import BlockPool
from engine.choosing import NOT_FINITE, verify
from engine.config import EngineConfig
from engine.drafting import Drafting
from engine.emission import Emission
from engine.errors import RequestError
from engine.grammar.constraint import Constraint
from engine.model.build import Build, Sizes, build_runner
from engine.model.compiled import compile_trunk, warm_up
from engine.model.invariance import check_invariance
from engine.model.loaded import LoadedModel
from engine.model.memory import free_memory
from engine.model.runner import ModelOutput
from engine.request import Request, RequestOutput
from engine.sampling.logprobs import logprobs
from engine.scheduler import Scheduled, Scheduler
from engine.sequence import Sequence
from engine.speculation.cost import StepCostModel
from engine.speculation.trust import Trust
from engine.speculation.verify import Acceptance
from engine.stats import EngineStats, PhaseClock
from engine.step_cost import step_cost

if TYPE_CHECKING:
    from engine.grammar.compiler import GrammarCompiler

Verified: TypeAlias = tuple[list[Scheduled], ForwardBatch, ModelOutput, list[Acceptance | None]]
"""A step from which nothing has been drafted yet."""

CPU_KV_BYTES = 1 << 30
GPU_KV_SHARE = 0.85
_LOGITS_AT_ONCE = 1 << 23


class Engine:
    """A loaded model with its adapters, its KV cache and its scheduler."""

    def __init__(
        self,
        config: EngineConfig,
        loaded: LoadedModel,
        adapters: Mapping[str, BitaAdapter],
        build: Build = build_runner,
    ) -> None:
        padded = config.deterministic and not loaded.native
        if padded:
            config = config.with_fixed_rows()
        self.config, self.loaded = config, loaded
        self.max_model_len = config.max_model_len or loaded.facts.max_positions
        room = Room.of(config.max_adapters, (a.config for a in adapters.values()))
        num_blocks = self._num_blocks()
        self.max_model_len = min(self.max_model_len, (num_blocks - 1) * config.block_size)
        sizes = Sizes(
            num_blocks=num_blocks,
            block_size=config.block_size,
            # Rows without an adapter name slot 0, so that there is always one.
            adapter_slots=max(1, room.slots),
            max_prompts=room.prompts,
            max_masks=room.masks,
            step_rows=config.max_num_batched_tokens,
            max_segments=config.max_num_seqs,
            fixed_rows=config.max_num_batched_tokens if padded else 0,
        )
        self.runner = build(loaded, sizes, config.attention)
        if config.compile:
            compile_trunk(loaded.model, loaded.route)
            warm_up(self.runner)
        self.runner.prepare(self.max_model_len)
        if config.deterministic:
            check_invariance(self.runner, loaded.facts.vocab_size)
        self.adapters = AdapterRegistry(room, self.runner.set_adapter)
        cost = None
        if config.tree == "auto":
            cost = step_cost(self.runner, loaded, config, self.max_model_len)
        self._stats = EngineStats()
        self.drafting = Drafting(config, cost, self._stats.speculation)
        for name, adapter in adapters.items():
            self.adapters.load(name, self.prepare(adapter), config.adapters.get(name, ""))
        self.scheduler = Scheduler(
            config, BlockPool(num_blocks, config.block_size), self.drafting.first
        )
        self.emission = Emission(
            self.scheduler, self.adapters, self._stats.speculation, loaded.eos_token_ids
        )
        self.sequences: dict[str, Sequence] = {}
        self._verified: Verified | None = None
        self._ended: float | None = None

    def prepare(self, adapter: BitaAdapter) -> PreparedAdapter:
        """All that takes time before `adapters.load`; another thread may do it beside steps.

        Raises AdapterRefused where the adapter is larger than a slot.
        """
        self.adapters.room.check(adapter.config)
        device, dtype = self.loaded.device, self.loaded.dtype
        return PreparedAdapter(
            adapter.config,
            adapter.prompt_kv.to(device, dtype),
            adapter.mask_embeddings.to(device, dtype),
            self.runner.draft_head(adapter.draft_tokens, adapter.successor),
            self.drafting.planner(adapter),
        )

    def add(self, request: Request) -> None:
        """Queue a request. A grammar that `grammars` does not know is compiled first.

        Raises RequestError (ContextLengthExceeded, UnknownAdapter) if it cannot be served,
        EngineOverloaded if too many wait.
        """
        adapter, greedy = self._adapter_of(request), request.sampling.greedy
        constraint = self._constraint_of(request)
        shared = (adapter.greedy if greedy else adapter.sampled) if adapter is not None else None
        sequence = Sequence(
            request=request,
            seed=secrets.randbits(63) if request.sampling.seed is None else request.sampling.seed,
            adapter=adapter,
            trust=Trust(shared),
            max_tokens=token_limit(request, self.max_model_len, self.loaded.facts.vocab_size),
            drafters=self.drafting.drafters_of(request, constraint),
            constraint=constraint,
        )
        self.scheduler.add(sequence)
        self.adapters.acquire(sequence.adapter)
        self.sequences[request.request_id] = sequence

    def abort(self, request_id: str) -> None:
        """Drop a request, wherever it is; unknown ones are gone already."""
        sequence = self.sequences.pop(request_id, None)
        if sequence is not None:
            self.scheduler.finish(sequence)
            self.adapters.release(sequence.adapter)

    @property
    def cost(self) -> StepCostModel | None:
        """Of a step, where trees are chosen by it."""
        return self.drafting.cost

    @cached_property
    def grammars(self) -> GrammarCompiler:
        """What compiles grammars for this model."""
        # Here, since the library is of no use to benchmarks and tuning.
        from engine.grammar.compiler import GrammarCompiler

        loaded = self.loaded
        return GrammarCompiler(self.config.model, loaded.facts.vocab_size, loaded.eos_token_ids)

    @property
    def has_work(self) -> bool:
        """Whether a step would run anything."""
        return self.scheduler.has_work

    def step(self) -> list[RequestOutput]:
        """Run one forward for everything that is scheduled; new tokens by request.

        What goes wrong for one request alone ends that one, with an output that says so. What goes
        wrong in the forward is raised; the state of all requests is unknown then.
        """
        clock = PhaseClock(self._stats.step_seconds)
        # What came between this step and the last one, such as sending its tokens, is a step's too.
        between = 0.0 if self._ended is None else clock.started - self._ended
        self._ended = None
        # Only now, so that nobody waited for it to see the last step's tokens.
        if self._verified is not None:
            self.drafting.draft(*self._verified)
            self._verified = None
            clock.ended("draft")
        scheduled = self.scheduler.schedule()
        if not scheduled:
            return []
        clock.ended("schedule")
        batch = self._batch(scheduled)
        clock.ended("batch")
        output = self.runner.execute(batch)
        forward = clock.ended("forward")
        self._report_prompts(scheduled, batch, output)
        accepted = verify(scheduled, output.logits, self.loaded.eos_token_ids)
        all_finite = self._all_finite(scheduled, batch, output, accepted)
        clock.ended("verify")
        self._commit(scheduled, batch, accepted)
        if not all_finite:
            self.runner.clean_step_buffer()
        clock.ended("commit")
        outputs = self.emission.emit(scheduled, output.logits, accepted)
        for item in scheduled:
            if item.sequence.finish_reason is not None:
                self.abort(item.sequence.request.request_id)
        clock.ended("emit")
        seconds = between + clock.total
        self.drafting.weigh(scheduled, outputs, self._count(batch), seconds, forward)
        if self.has_work:
            self._verified = scheduled, batch, output, accepted
            self._ended = time.perf_counter()
        return outputs

    def stats(self) -> EngineStats:
        """Counters as they stand; the gauges are taken now."""
        stats, scheduler = self._stats, self.scheduler
        stats.num_running, stats.num_waiting = len(scheduler.running), len(scheduler.waiting)
        stats.kv_cache_usage = scheduler.pool.usage
        stats.num_preemptions = scheduler.num_preemptions
        stats.prefix_cache_queries = scheduler.prefix_queries
        stats.prefix_cache_hits = scheduler.prefix_hits
        running = [sequence.adapter for sequence in scheduler.running]
        stats.adapters = self.adapters.stats(running, stats.num_waiting)
        return stats

    def _batch(self, scheduled: list[Scheduled]) -> ForwardBatch:
        plans = []
        for item in scheduled:
            sequence = item.sequence
            past = sequence.num_computed_tokens
            plans.append(
                SegmentPlan(
                    causal_ids=sequence.token_ids[past : past + item.num_causal],
                    tree=item.tree,
                    num_past=past,
                    block_table=sequence.block_table,
                    adapter=sequence.adapter.slot if sequence.adapter else 0,
                )
            )
        storage = self.runner.storage
        return ForwardBatch.build(
            plans,
            storage.block_size,
            storage.scratch_block,
            self.runner.max_masks,
            self.loaded.facts.max_positions,
        )

    @torch.inference_mode()
    def _report_prompts(
        self, scheduled: list[Scheduled], batch: ForwardBatch, output: ModelOutput
    ) -> None:
        """Log-probabilities of prompt tokens, few rows at a time: a row has a whole vocabulary."""
        size = max(1, _LOGITS_AT_ONCE // self.loaded.facts.vocab_size)
        for item, segment in zip(scheduled, batch.segments, strict=True):
            sequence = item.sequence
            top = sequence.request.sampling.prompt_logprobs
            if top is None:
                continue
            # A row tells of the token behind it; what a preempted sequence runs again is known.
            first = max(segment.num_past, len(sequence.prompt_logprobs))
            end = min(segment.num_past + item.num_causal, sequence.num_prompt_tokens - 1)
            for start in range(first, end, size):
                stop = min(start + size, end)
                row = segment.start + start - segment.num_past
                with sequence.blamed():
                    logits = self.runner.score(output.hidden[row : row + stop - start])
                    ahead = sequence.token_ids[start + 1 : stop + 1]
                    sequence.prompt_logprobs += logprobs(logits, ahead, top)

    def _all_finite(
        self,
        scheduled: list[Scheduled],
        batch: ForwardBatch,
        output: ModelOutput,
        accepted: list[Acceptance | None],
    ) -> bool:
        """Whether all rows are finite numbers; whoever needs one that is not has failed."""
        if output.finite:
            return True
        # One number that is not finite leaves no finite sum, and a sum takes a fifth of the time.
        if isfinite(output.hidden.sum(dtype=torch.float32).item()):
            return True
        sound = output.hidden.isfinite().all(dim=-1).tolist()
        for item, segment, acceptance in zip(scheduled, batch.segments, accepted, strict=True):
            if not all(sound[row] for row in _kept_rows(segment, acceptance)):
                item.sequence.failure = NOT_FINITE
        return all(sound)

    def _commit(
        self, scheduled: list[Scheduled], batch: ForwardBatch, accepted: list[Acceptance | None]
    ) -> None:
        """Copy the KV of prefilled rows, roots and accepted paths from the step buffer."""
        source: list[int] = []
        target: list[int] = []
        size = self.config.block_size
        for item, segment, acceptance in zip(scheduled, batch.segments, accepted, strict=True):
            if item.sequence.failure is not None:
                continue
            rows = _kept_rows(segment, acceptance)
            table, past = item.sequence.block_table, segment.num_past
            target += [table[p // size] * size + p % size for p in range(past, past + len(rows))]
            source += batch.scratch_slots[rows].tolist()
        self.runner.commit(source, target)

    def _constraint_of(self, request: Request) -> Constraint | None:
        if request.grammar is None:
            return None
        if request.sampling.ignore_eos:
            raise RequestError("an answer ends where its grammar does", "ignore_eos")
        return self.grammars.compile(request.grammar, request.sampling.stop_token_ids)

    def _adapter_of(self, request: Request) -> LoadedAdapter | None:
        named = None if request.adapter is None else self.adapters[request.adapter]
        return (named or self.adapters.default) if self.drafting.uses(request, "bita") else None

    def _num_blocks(self) -> int:
        """KV blocks that fit the memory given, and no more than all sequences could use.

        Every rank has all blocks, each with its own KV heads, in memory of its own.
        """
        loaded, size = self.loaded, self.config.block_size
        facts = loaded.facts
        token_bytes = 2 * facts.num_layers * len(loaded.own_kv_heads) * facts.head_dim
        block_bytes = token_bytes * loaded.dtype.itemsize * size
        memory = self.config.kv_cache_memory
        if not memory:
            memory = CPU_KV_BYTES
            if loaded.device.type == "cuda":
                free = loaded.free_memory or free_memory(loaded.device)
                memory = int(free * GPU_KV_SHARE)
        useful = self.config.max_num_seqs * (-(-self.max_model_len // size) + 1)
        return max(2, min(memory // block_bytes, useful))

    def _count(self, batch: ForwardBatch) -> dict[RowKind, int]:
        rows = batch.count()
        self._stats.num_forwards += 1
        for kind, count in rows.items():
            self._stats.rows[kind.value] += count
        return rows


def _kept_rows(segment: Segment, acceptance: Acceptance | None) -> list[int]:
    """Batch rows whose KV stay: prefilled ones, and the root and the accepted path."""
    rows = list(range(segment.start, segment.root))
    if acceptance is not None:
        rows += [segment.root, *(segment.root + node for node in acceptance.path)]
    return rows
