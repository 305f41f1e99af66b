"""Log-probabilities for the answer: of the model's own distribution, before any processing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.request import TokenLogprob


def logprobs(logits: Tensor, chosen: Sequence[int], top: int) -> list[TokenLogprob]:
    """One entry for each row of raw logits `[rows, vocab]`, in nats, reckoned in float32.

    chosen: the token that each row chose. top: how many of the likeliest to list with it.
    """
    nats = logits.float().log_softmax(dim=-1)
    ids = torch.tensor(chosen, dtype=torch.int64, device=logits.device)
    own = nats.gather(1, ids[:, None])
    ranks = (nats > own).sum(dim=-1) + 1
    best = nats.topk(min(top, nats.shape[-1]), dim=-1)
    pairs = [
        list(zip(tokens, values, strict=True))
        for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return [
        TokenLogprob(*entry)
        for entry in zip(chosen, own[:, 0].tolist(), pairs, ranks.tolist(), strict=True)
    ]
