"""Who drafts for whom, the next step's trees, and whether they were worth their time."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import torch

from adapters.format import BitaAdapter
from engine.adapter_registry import LoadedAdapter
from engine.batch import ForwardBatch, RowKind
from engine.config import EngineConfig
from engine.grammar import forced
from engine.grammar.constraint import Constraint
from engine.model.runner import ModelOutput
from engine.request import Request, RequestOutput
from engine.scheduler import Scheduled
from engine.sequence import Sequence
from engine.speculation import ngram, prediction
from engine.speculation.bita import Branches, MaskGroup
from engine.speculation.cost import Load, StepCostModel
from engine.speculation.drafter import Chain, Chances, Drafter
from engine.speculation.growth import Ranker, Unranked
from engine.speculation.overhead import Overhead
from engine.speculation.payoff import Payoff, Step
from engine.speculation.planner import PLAIN, Adaptive, Fixed, Planner, named
from engine.speculation.sources import GRAMMAR, NGRAM, PREDICTION
from engine.speculation.tree import TreeTopology
from engine.speculation.verify import Acceptance
from engine.stats import SpecDecodingStats

_Parts: TypeAlias = tuple[Sequence, MaskGroup, list[Chain]]


class Drafting:
    """An engine's draft trees.

    cost: of its steps; None where the configuration fixes the tree. stats: where steps are counted.
    """

    def __init__(
        self,
        config: EngineConfig,
        cost: StepCostModel | None,
        stats: SpecDecodingStats,
    ) -> None:
        self._config, self.cost, self._stats = config, cost, stats
        self._unadapted = Adaptive((), cost) if cost is not None else None
        self._payoff = Payoff()
        # Sampled text repeats itself less: what greedy requests saw says little of it.
        self._ngrams = {greedy: Chances(ngram.PRIORS) for greedy in (False, True)}
        self._overheads = {drafted: Overhead() for drafted in (False, True)}
        self._ranking = 0.0  # seconds of the coming step's trees, by the cost model

    def planner(self, adapter: BitaAdapter) -> Planner:
        """What chooses the trees of an adapter's sequences."""
        hits = adapter.config.profile.rates
        if self.cost is not None:
            return Adaptive(hits, self.cost.drafting_among(adapter.config.draft_share))
        return Fixed(named(self._config.tree, hits))

    def uses(self, request: Request, source: str) -> bool:
        """Whether a source drafts for a request."""
        wanted = request.drafters.get(source, source in self._config.drafters)
        return request.speculation and wanted

    def drafters_of(self, request: Request, constraint: Constraint | None) -> list[Drafter]:
        """Sources of chains; none where the tree is fixed, which has no place for them."""
        drafters: list[Drafter] = []
        if self._unadapted is None:
            return drafters
        if request.prediction and self.uses(request, "prediction"):
            alignment = prediction.Alignment(request.prediction)
            drafters.append(Drafter(PREDICTION, alignment, prediction.PRIORS))
        if constraint is not None and self.uses(request, "grammar"):
            drafters.append(Drafter(GRAMMAR, forced.ForcedTokens(constraint), forced.PRIORS))
        if self.uses(request, "ngram"):
            index = ngram.NgramIndex(request.token_ids)
            others = self._ngrams[request.sampling.greedy]
            drafters.append(Drafter(NGRAM, index, ngram.PRIORS, others))
        return drafters

    def first(self, sequence: Sequence, num_decoding: int) -> TreeTopology:
        """The tree of a sequence that nothing is drafted for, when so many decode."""
        if sequence.adapter is None or not self._payoff.pays(num_decoding):
            return PLAIN
        load = self._load_of(num_decoding, sequence.num_computed_tokens)
        return sequence.adapter.planner.first(load, sequence.trust())

    @torch.inference_mode()
    def draft(
        self,
        scheduled: list[Scheduled],
        batch: ForwardBatch,
        output: ModelOutput,
        accepted: list[Acceptance | None],
    ) -> None:
        """The trees of the step to come, from each last accepted node's mask group and from chains.

        The arguments are the last step's; who has ended since gets none.
        """
        drafting: dict[LoadedAdapter | None, list[_Parts]] = {}
        nothing = output.hidden[:0]
        load = self.load(scheduled)
        pays = self._payoff.pays(load.sequences)
        for item, segment, acceptance in zip(scheduled, batch.segments, accepted, strict=True):
            sequence = item.sequence
            if acceptance is None or item.tree is None or not sequence.is_running:
                continue
            sequence.draft = None
            masks, node = item.tree.topology.masks, acceptance.last_node
            size = masks[node] if sequence.adapter is not None else 0
            chains: list[Chain] = []
            with sequence.blamed():
                chains = sequence.chains(guesses=pays)
            if size or chains:
                hidden = nothing
                if size:
                    first = segment.mask_row(masks, node)
                    hidden = output.hidden[first : first + size]
                # Where listening to masks does not pay, nothing is believed.
                trust = sequence.trust() if pays else 0.0
                keys = sequence.keys(range(size))
                temperature = sequence.request.sampling.temperature
                group = MaskGroup(hidden, acceptance.bonus_token, keys, temperature, trust)
                drafting.setdefault(sequence.adapter, []).append((sequence, group, chains))
        for adapter, parts in drafting.items():
            groups, chains_of = [group for _, group, _ in parts], [chains for *_, chains in parts]
            ranker: Ranker = Unranked([g.bonus_token for g in groups], [g.trust for g in groups])
            planner = adapter.planner if adapter is not None else self._unadapted
            assert planner is not None, "chains are only there with a planner"
            if adapter is not None and any(len(group.hidden) for group in groups):
                ranker = Branches(groups, adapter.profile.temperatures, adapter.head)
            trees = planner.draft(ranker, chains_of, load)
            self._ranking += ranker.levels * planner.level
            for (sequence, *_), tree in zip(parts, trees, strict=True):
                constraint = sequence.constraint
                with sequence.blamed():
                    sequence.draft = tree if constraint is None else constraint.prune(tree)

    def weigh(
        self,
        scheduled: list[Scheduled],
        outputs: list[RequestOutput],
        rows: dict[RowKind, int],
        seconds: float,
        forward: float,
    ) -> None:
        """Compare a step with what it would have taken without its drafts and masks.

        For as many tokens, plain decoding needs further steps: of the roots alone, since what else
        the step computed, it would compute once.

        seconds: of the step, its drafting included. forward: those of them that the model took.
        """
        load = self.load(scheduled)
        ranking, self._ranking = self._ranking, 0.0
        if not load.sequences:
            return
        drafts = rows[RowKind.NODE] + rows[RowKind.MASK]
        rests = self.cost is not None and not self._payoff.pays(load.sequences)
        self._stats.steps["drafted" if drafts else "rested" if rests else "plain"] += 1
        if self.cost is None:
            return
        num_rows = sum(rows.values())
        # Rows of prompts attend too, each to what lies before it.
        columns = sum(item.num_rows * item.sequence.num_computed_tokens for item in scheduled)
        load = replace(load, context=columns // num_rows)
        tokens = sum(len(output.token_ids) for output in outputs)
        plain = self.cost(num_rows - drafts, load)
        plain += (tokens / load.sequences - 1) * self.cost(load.sequences, load)
        prompts = rows[RowKind.PREFILL] > 0
        cost = self.cost(num_rows, load) + (ranking + load.drafting if drafts else 0.0)
        step = Step(load.sequences, drafts, seconds, cost, plain, prompts)
        self._payoff.observe(step)
        self._overheads[drafts > 0].observe(seconds - forward - ranking)
        self._stats.seconds += seconds
        self._stats.plain_seconds += self._payoff.plain_seconds(step)

    def load(self, scheduled: list[Scheduled]) -> Load:
        """The sequences that a step chooses a token for."""
        contexts = [
            item.sequence.num_computed_tokens for item in scheduled if item.tree is not None
        ]
        return self._load_of(len(contexts), sum(contexts) // max(1, len(contexts)))

    def _load_of(self, sequences: int, context: int) -> Load:
        plain, drafted = (self._overheads[drafts].seconds for drafts in (False, True))
        drafting = max(0.0, drafted - plain) if plain and drafted else 0.0
        return Load(sequences, context, plain or drafted, drafting)
