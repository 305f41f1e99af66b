"""What an adapter is worth on held-out answers: hit rates and acceptance length, no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from adapters.profile import HitProfile
from adapters.successor import Successor
from adapters.tuning.layout import Sample
from adapters.tuning.target import TargetModel
from adapters.tuning.trainer import CONTEXT_CACHE_BYTES, Contexts, run_groups

COMB_WIDTH = 5
TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0)
GROUPS_AT_ONCE = 64
"""So that their logits take less memory than a training step's, whatever the vocabulary."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """profile: hit rates. acceptance_length: tokens a forward of the paper's comb would emit."""

    profile: HitProfile
    acceptance_length: float


@torch.no_grad()
def evaluate(
    target: TargetModel,
    samples: Sequence[Sample],
    prompt_kv: Tensor,
    mask_embeddings: Tensor,
    ranks: int,
    successor: Successor | None = None,
    draft_tokens: Tensor | None = None,
) -> Evaluation:
    """Draft at every anchor of the samples and compare with what the model wrote.

    draft_tokens: int64 `[n]`, the only ones that are drafted; None for all.
    """
    masks = len(mask_embeddings)
    hits = torch.zeros(masks, ranks)
    counts = torch.zeros(masks)
    losses = torch.zeros(masks, len(TEMPERATURES))
    emitted = forwards = 0
    for sample in tqdm(samples, desc="evaluate", unit="conversation"):
        anchors, contexts = sample.anchors(), Contexts(target, CONTEXT_CACHE_BYTES)
        by_anchor: dict[int, Tensor] = {}
        for first in range(0, len(anchors), GROUPS_AT_ONCE):
            part = anchors[first : first + GROUPS_AT_ONCE]
            logits, labels = run_groups(
                target, [sample], [part], prompt_kv, mask_embeddings, contexts, successor
            )
            if draft_tokens is not None:
                logits = _among(draft_tokens.to(logits.device), logits)
            top = logits[0].topk(ranks, dim=-1).indices.unflatten(0, (-1, masks)).cpu()
            places = labels[0].unflatten(0, (-1, masks)).cpu()
            right = top == places[..., None]  # IGNORE equals no token id
            alive = torch.ones(len(part), dtype=torch.bool)
            for depth in range(masks):
                alive = alive & (places[:, depth] >= 0)
                losses[depth] += _losses(logits[0, depth::masks][alive], places[:, depth][alive])
                hits[depth] += right[:, depth][alive].sum(dim=0)
                counts[depth] += alive.sum()
                alive = alive & right[:, depth].any(dim=-1)
            by_anchor |= zip(part, right, strict=True)
        for start, end in sample.spans:
            tokens, steps = _walk(by_anchor, start, end)
            emitted, forwards = emitted + tokens, forwards + steps
    rates = (hits / counts.clamp(min=1)[:, None]).tolist()
    # A depth that nothing was counted at has no loss at any temperature: it stays as it is.
    best = [row.index(min(row)) if any(row) else TEMPERATURES.index(1.0) for row in losses.tolist()]
    temperatures = [TEMPERATURES[i] for i in best]
    profile = HitProfile(rates, [int(c) for c in counts], temperatures)
    return Evaluation(profile, emitted / max(1, forwards))


def _among(tokens: Tensor, logits: Tensor) -> Tensor:
    """`logits` with no probability but for `tokens`."""
    return torch.full_like(logits, float("-inf")).index_copy_(
        -1, tokens, logits.index_select(-1, tokens)
    )


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Total cross-entropy in nats at each of `TEMPERATURES`; logits `[places, vocab]`.

    Tokens that cannot be drafted are missed at every temperature, and say nothing.
    """
    labels = labels.to(logits.device)
    possible = logits.gather(1, labels[:, None])[:, 0] > float("-inf")
    logits, labels = logits[possible], labels[possible]
    return torch.stack(
        [functional.cross_entropy(logits / t, labels, reduction="sum").cpu() for t in TEMPERATURES]
    )


def _walk(right: dict[int, Tensor], start: int, end: int) -> tuple[int, int]:
    """Tokens and forwards of an answer decoded by the comb: only rank 1 is extended.

    The first token comes from the prompt's forward and counts with neither.
    """
    anchor, tokens, forwards = start, 0, 0
    while anchor + 1 < end:
        accepted = 0
        for depth, row in enumerate(right[anchor]):
            if not row[: COMB_WIDTH - depth].any():
                break
            accepted += 1
            if not row[0]:
                break
        step = min(accepted + 1, end - anchor - 1)
        anchor, tokens, forwards = anchor + step, tokens + step, forwards + 1
    return tokens, forwards
