"""Log-probabilities for the answer: of the model's own distribution, before any processing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.request import TokenLogprob


def logprobs(logits: Tensor, chosen: Sequence[int], top: int) -> list[TokenLogprob]:
    """One entry a row of raw logits `[rows, vocab]`: the chosen token and the `top` likeliest."""
    nats = logits.float().log_softmax(dim=-1)
    ids = torch.tensor(chosen, device=logits.device)
    own = nats.gather(1, ids[:, None])[:, 0].tolist()
    best = nats.topk(top, dim=-1)
    pairs = [
        list(zip(tokens, values, strict=True))
        for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return [TokenLogprob(t, lp, p) for t, lp, p in zip(chosen, own, pairs, strict=True)]
