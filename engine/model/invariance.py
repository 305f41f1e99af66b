"""Whether a model's rows depend on what is computed beside them, found out on the model itself."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from engine.batch import ForwardBatch, SegmentPlan
from engine.config import FIXED_ROWS
from engine.errors import EngineError
from engine.model.runner import ModelRunner, Route
from engine.speculation.tree import TreeTopology

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
TOKENS = 5
TRIALS = 4


def check_invariance(runner: ModelRunner, vocab_size: int) -> None:
    """Compute the same rows alone, at other places and beside others, and compare every bit.

    Raises EngineError where a logit differs, and for mixtures of experts: the rows an expert gets
    are as many as others leave it.
    """
    if runner.route is Route.MASK:
        kind = runner.config.model_type
        raise EngineError(f"--deterministic takes attention of ours, which {kind} models lack")
    if any((getattr(runner.config, name, None) or 1) > 1 for name in EXPERTS):
        raise EngineError("--deterministic cannot be kept for mixtures of experts")
    rng = random.Random(0)
    for _ in range(TRIALS):
        ids = [rng.randrange(vocab_size) for _ in range(FIXED_ROWS)]
        own, others = ids[:TOKENS], ids[TOKENS:]
        alone = _logits(runner, [own])[0]
        for cut in (1, len(others) // 2, len(others)):
            first, last = others[:cut], others[cut:]
            beside = _logits(runner, [part for part in (first, own, last) if part])[1]
            if not torch.equal(alone, beside):
                raise EngineError(
                    "--deterministic cannot be kept for this model on this device: its logits "
                    f"depend on the rows beside them, by up to {(alone - beside).abs().max():.2g}"
                )


def _logits(runner: ModelRunner, sequences: list[list[int]]) -> Tensor:
    """Of the last token of each of some fresh sequences, `[sequences, vocab]`."""
    root = TreeTopology.root(0)
    plans = [SegmentPlan(ids[:-1], root.fill(ids[-1]), 0, [], 0) for ids in sequences]
    storage = runner.storage
    longest = max(map(len, sequences))
    batch = ForwardBatch.build(plans, storage.block_size, storage.scratch_block, 1, longest)
    return runner.execute(batch).logits
