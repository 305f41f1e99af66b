"""From a node's logits to the distribution a request samples from, each row on its own path.

Row i of `[nodes, vocab]` is the distribution of the token after the path to node i: its history
is the output so far and the tokens of that path. Order of operations as in vLLM: repetition
penalty, presence and frequency penalties, bias, forbidden tokens, temperature, min-p, top-k,
top-p.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.request import SamplingParams

Path = Sequence[int]


def process(
    logits: Tensor,
    params: SamplingParams,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    paths: Sequence[Path],
    forbidden: Sequence[int],
) -> Tensor:
    """Processed logits, float32 `[nodes, vocab]`; excluded tokens are -inf.

    forbidden: tokens that must not come before `params.min_tokens` tokens were generated.
    """
    logits = logits.clone()
    if params.repetition_penalty != 1.0:
        repetition(logits, params.repetition_penalty, [*prompt_ids, *output_ids], paths)
    if params.presence_penalty or params.frequency_penalty:
        presence_frequency(
            logits, params.presence_penalty, params.frequency_penalty, output_ids, paths
        )
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits.device)
        logits[:, ids] += torch.tensor(list(params.logit_bias.values()), device=logits.device)
    early = [i for i, path in enumerate(paths) if len(output_ids) + len(path) < params.min_tokens]
    if early and forbidden:
        rows = torch.tensor(early, device=logits.device)
        logits[rows[:, None], torch.tensor(list(forbidden), device=logits.device)] = float("-inf")
    if params.greedy:
        return logits
    logits /= params.temperature
    if params.min_p > 0.0:
        min_p(logits, params.min_p)
    if params.top_k:
        top_k(logits, params.top_k)
    if params.top_p < 1.0:
        top_p(logits, params.top_p)
    return logits


def repetition(logits: Tensor, penalty: float, history: Sequence[int], paths: Sequence[Path]) -> None:
    """Divide positive and multiply negative logits of tokens seen (Keskar 2019, sec. 4.1)."""
    for row, path in zip(logits, paths, strict=True):
        ids = torch.tensor(sorted({*history, *path}), device=logits.device)
        seen = row[ids]
        row[ids] = torch.where(seen > 0, seen / penalty, seen * penalty)


def presence_frequency(
    logits: Tensor, presence: float, frequency: float, output_ids: Sequence[int], paths: Sequence[Path]
) -> None:
    """OpenAI's: subtract `presence` once and `frequency` for each time a token was generated."""
    for row, path in zip(logits, paths, strict=True):
        generated = torch.tensor([*output_ids, *path], dtype=torch.int64, device=logits.device)
        ids, counts = generated.unique(return_counts=True)
        row[ids] -= presence + frequency * counts


def min_p(logits: Tensor, share: float) -> None:
    """Drop tokens less likely than `share` of the likeliest (Nguyen 2024, eq. 2)."""
    probabilities = logits.softmax(dim=-1)
    floor = probabilities.amax(dim=-1, keepdim=True) * share
    logits.masked_fill_(probabilities < floor, float("-inf"))


def top_k(logits: Tensor, k: int) -> None:
    """Keep the k likeliest tokens, and whatever ties with the last of them."""
    last = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    logits.masked_fill_(logits < last, float("-inf"))


def top_p(logits: Tensor, mass: float) -> None:
    """Keep the fewest likeliest tokens that reach `mass` (Holtzman 2020, sec. 3.1)."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, order, before >= mass)
    logits.masked_fill_(dropped, float("-inf"))
