"""What a run will take, reckoned before it starts: memory, disk and time.

Numbers are of one process; all sizes are bytes, all times seconds. Memory and disk follow from
shapes alone. Time needs the model: a few real steps on made-up samples are timed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from statistics import median
from typing import Any

import torch

from adapters.format import BaseShape
from adapters.successor import Successor
from adapters.tuning import parallel
from adapters.tuning.layout import Sample
from adapters.tuning.recipe import TuningRecipe
from adapters.tuning.target import TargetModel
from adapters.tuning.trainer import CONTEXT_CACHE_BYTES, Contexts, Tuner

FLOAT32 = 4
TOKEN_DIGITS = 7
"""Bytes of a token id in a JSON list, its comma and space included."""
LOG_LINE = 120
"""Bytes of a step in log.jsonl."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """The frozen model, as far as sizes go.

    weights: bytes. itemsize: bytes of a number it computes in.
    query_width: heads times head_dim. inner_width: of the feed-forward layers that a token takes.
    """

    shape: BaseShape
    weights: int
    itemsize: int
    query_width: int
    inner_width: int

    @property
    def token_bytes(self) -> int:
        """K and V of one token in all layers."""
        shape = self.shape
        return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * self.itemsize


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked for.

    conversations, held_out: how many. tokens: mean length of a conversation, answers included.
    longest: of any. answer_tokens: of all answers, of both kinds. processes: that share the work.
    at_once: conversations answered together by one process. room: tokens reserved for each.
    """

    conversations: int
    held_out: int
    tokens: int
    longest: int
    answer_tokens: int
    processes: int
    at_once: int
    room: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by what they are for.

    answers: K/V of the conversations that are answered together; given back before training.
    contexts: K/V of the samples' real tokens. rows: what gradients through mask rows need.
    optimizer: trained tensors, their gradients and AdamW's two moments.
    """

    weights: int
    answers: int
    contexts: int
    rows: int
    optimizer: int

    @property
    def peak(self) -> int:
        """At the fullest moment: while answering, or while training."""
        return self.weights + max(self.answers, self.contexts + self.rows + self.optimizer)


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the files of a run: answers and log, the checkpoint (twice while it is written),
    the adapter."""

    answers: int
    checkpoint: int
    adapter: int

    @property
    def total(self) -> int:
        """All together."""
        return self.answers + self.checkpoint + self.adapter


@dataclass(frozen=True, slots=True)
class Pace:
    """Measured. step: seconds of an optimiser step whose contexts are kept.

    context: seconds of the real tokens of one sample. answers: tokens a second, of a full batch.
    """

    step: float
    context: float
    answers: float


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of answering, training and evaluating."""

    answers: float
    training: float
    evaluation: float

    @property
    def total(self) -> float:
        """All together."""
        return self.answers + self.training + self.evaluation


def trunk(config: Any, shape: BaseShape, weights: int, itemsize: int) -> Trunk:
    """Read the widths from a transformers text configuration.

    Mixtures of experts: a token takes `num_experts_per_tok` of them.
    """
    inner = next(
        value
        for name in ("intermediate_size", "ffn_dim", "n_inner", "hidden_size")
        if (value := getattr(config, name, None))
    )
    if inner == config.hidden_size:  # GPT-2 leaves it open
        inner = 4 * config.hidden_size
    if experts := getattr(config, "num_experts_per_tok", None):
        inner = experts * (getattr(config, "moe_intermediate_size", None) or inner)
    heads = config.num_attention_heads
    return Trunk(shape, weights, itemsize, heads * shape.head_dim, inner)


def trained_numbers(shape: BaseShape, recipe: TuningRecipe) -> int:
    """How many numbers are trained."""
    prompts = 2 * shape.num_layers * shape.num_kv_heads * recipe.num_prompts * shape.head_dim
    masks = recipe.num_masks * shape.hidden_size
    if not recipe.successor_rank:
        return prompts + masks
    head = Successor.shapes(shape.hidden_size, recipe.num_masks, recipe.successor_rank)
    return prompts + masks + sum(prod(size) for size in head.values())


def memory(model: Trunk, recipe: TuningRecipe, work: Workload) -> Memory:
    """Bytes of one process."""
    batch = ceil(min(recipe.conversations, work.conversations) / work.processes)
    samples = ceil(work.conversations / work.processes)
    kept = min(CONTEXT_CACHE_BYTES, samples * work.tokens * model.token_bytes)
    stacked = batch * work.longest * model.token_bytes
    return Memory(
        weights=model.weights,
        answers=work.at_once * work.room * model.token_bytes,
        contexts=kept + stacked,
        rows=_rows_bytes(model, recipe, batch, work.longest),
        optimizer=4 * FLOAT32 * trained_numbers(model.shape, recipe),
    )


def _rows_bytes(model: Trunk, recipe: TuningRecipe, batch: int, context: int) -> int:
    """What autograd keeps for the mask rows of a step, and their logits.

    A layer keeps, a row: the inputs of two norms in float32 and their results; queries and the
    attention's result, and their own K/V; three times the inner width. Weights are frozen, so
    that products with them keep nothing. A sample: K/V of its columns beside one another, and
    who sees them.
    """
    shape, size = model.shape, model.itemsize
    rows = batch * recipe.groups * recipe.num_masks
    columns = context + recipe.groups * recipe.num_masks + recipe.num_prompts
    kv = shape.num_kv_heads * shape.head_dim
    row = shape.hidden_size * (2 * FLOAT32 + 2 * size) + size * (
        4 * model.query_width + 4 * kv + 4 * model.inner_width
    )
    seen = rows * columns * (size + 1)
    layer = rows * row + batch * columns * 2 * kv * size + seen
    logits = rows * shape.vocab_size * (3 * FLOAT32 + (2 * size if size < FLOAT32 else 0))
    head = 6 * FLOAT32 * rows * (recipe.successor_rank + shape.hidden_size)
    return shape.num_layers * layer + logits + (head if recipe.successor_rank else 0)


def disk(shape: BaseShape, recipe: TuningRecipe, work: Workload) -> Disk:
    """Bytes of what is written."""
    numbers = trained_numbers(shape, recipe)
    texts = (work.conversations + work.held_out) * work.tokens * TOKEN_DIGITS
    return Disk(
        answers=texts + recipe.steps * LOG_LINE,
        checkpoint=2 * 3 * FLOAT32 * numbers,
        adapter=FLOAT32 * numbers,
    )


def duration(recipe: TuningRecipe, work: Workload, pace: Pace) -> Duration:
    """Seconds, if answers are as long as `work` says.

    Evaluation runs every place of the held-out answers forward, a third of a step's work each.
    """
    samples = ceil(work.conversations / work.processes)
    answers = work.answer_tokens / pace.answers / work.processes
    held_out = work.answer_tokens * work.held_out / (work.conversations + work.held_out)
    places = recipe.conversations * recipe.groups / work.processes
    evaluation = held_out / places * pace.step / 3 + work.held_out * pace.context
    return Duration(answers, recipe.steps * pace.step + samples * pace.context, evaluation)


def made_up(count: int, tokens: int, vocab_size: int) -> list[Sample]:
    """Samples of random tokens; the second half of each counts as an answer."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (count, tokens), generator=generator).tolist()
    return [Sample(row, [(tokens // 2, tokens)]) for row in ids]


def time_steps(
    target: TargetModel,
    shape: BaseShape,
    recipe: TuningRecipe,
    samples: Sequence[Sample],
    steps: int = 3,
) -> tuple[float, float]:
    """Seconds of a step, and of one sample's context: measured on a tuner of its own.

    Several processes share the steps, as they will share the real ones. The samples are at most a
    step's batch: the first step, not counted, computes all contexts.
    """
    tuner = Tuner(target, shape, recipe, samples)
    tuner.step()
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        tuner.step()  # its loss is read, so that a GPU has finished
        taken.append(time.perf_counter() - started)
    own = samples[parallel.shard()]
    started = time.perf_counter()
    context = Contexts(target, 0).of(own)
    context.values[-1].sum().item()
    return median(taken), (time.perf_counter() - started) / len(own)
