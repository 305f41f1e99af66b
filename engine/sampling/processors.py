"""From a node's logits to the distribution a request samples from, each row on its own path.

Row i of `[nodes, vocab]` is the distribution of the token after the path to node i: its history
is the output so far and the tokens of that path. Order of operations as in vLLM: repetition
penalty, presence and frequency penalties, bias, forbidden tokens, temperature, min-p, top-k,
top-p. `process` works on a copy; the steps below it change their logits in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.request import SamplingParams

Path = Sequence[int]

_EXCLUDED = float("-inf")
_SMALLEST = torch.finfo(torch.float32).tiny


def process(
    logits: Tensor,
    params: SamplingParams,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    paths: Sequence[Path],
    forbidden: Sequence[int],
    allowed: Tensor | None = None,
) -> Tensor:
    """Processed logits, float32 `[nodes, vocab]`; excluded tokens are -inf.

    paths: for each row, the tokens after `output_ids` down to its node, that node's included.
    forbidden: tokens that must not come before `params.min_tokens` tokens were generated.
    allowed: bool `[nodes, vocab]`, at least one a row: no other token can be chosen. It has
        `min_tokens` in it already, as far as a grammar leaves a choice.
    """
    logits = logits.to(torch.float32, copy=True)
    if params.repetition_penalty != 1.0:
        repetition(logits, params.repetition_penalty, [*prompt_ids, *output_ids], paths)
    if params.presence_penalty or params.frequency_penalty:
        presence, frequency = params.presence_penalty, params.frequency_penalty
        presence_frequency(logits, presence, frequency, output_ids, paths)
    if params.logit_bias:
        bias(logits, params.logit_bias)
    early = [i for i, path in enumerate(paths) if len(output_ids) + len(path) < params.min_tokens]
    if allowed is not None:
        logits.masked_fill_(~allowed.to(logits.device), _EXCLUDED)
    elif early and forbidden:
        forbid(logits, early, forbidden)
    if params.greedy:
        return logits
    temperature(logits, [params.temperature] * len(logits))
    if params.min_p > 0.0:
        min_p(logits, params.min_p)
    if params.top_k:
        top_k(logits, params.top_k)
    if params.top_p < 1.0:
        top_p(logits, params.top_p)
    return logits


def repetition(
    logits: Tensor, penalty: float, history: Sequence[int], paths: Sequence[Path]
) -> None:
    """Divide positive and multiply negative logits of tokens seen (Keskar 2019, sec. 4.1).

    history: prompt and output, common to all rows.
    """
    seen = _counts(logits, history, paths) > 0
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    logits.copy_(torch.where(seen, penalised, logits))


def presence_frequency(
    logits: Tensor,
    presence: float,
    frequency: float,
    output_ids: Sequence[int],
    paths: Sequence[Path],
) -> None:
    """OpenAI's: subtract `presence` once and `frequency` for each time a token was generated."""
    counts = _counts(logits, output_ids, paths)
    logits -= presence * (counts > 0) + frequency * counts


def bias(logits: Tensor, addends: dict[int, float]) -> None:
    """Add to the logits of single tokens, in every row."""
    values = torch.tensor(list(addends.values()), dtype=logits.dtype, device=logits.device)
    logits[:, _ids(list(addends), logits)] += values


def forbid(logits: Tensor, rows: Sequence[int], token_ids: Sequence[int]) -> None:
    """Exclude tokens in some rows."""
    logits[_ids(rows, logits)[:, None], _ids(token_ids, logits)] = _EXCLUDED


def temperature(logits: Tensor, values: Sequence[float]) -> None:
    """Divide every row by its temperature, above 0."""
    # From the maximum down nothing overflows but what is out of reach, however low the value.
    logits -= logits.amax(dim=-1, keepdim=True)
    divisors = [max(value, _SMALLEST) for value in values]
    logits /= torch.tensor(divisors, dtype=logits.dtype, device=logits.device)[:, None]


def min_p(logits: Tensor, share: float) -> None:
    """Drop tokens less likely than `share` of the likeliest (Nguyen 2024, eq. 2)."""
    floor = logits.amax(dim=-1, keepdim=True) + math.log(share)
    logits.masked_fill_(logits < floor, _EXCLUDED)


def top_k(logits: Tensor, k: int) -> None:
    """Keep the k likeliest tokens, and whatever ties with the last of them."""
    last = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    logits.masked_fill_(logits < last, _EXCLUDED)


def top_p(logits: Tensor, mass: float) -> None:
    """Keep the fewest likeliest tokens that reach `mass` (Holtzman 2020, sec. 3.1).

    Of equally likely tokens the lowest ids are kept.
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, order, before >= mass)
    logits.masked_fill_(dropped, _EXCLUDED)


def _counts(logits: Tensor, history: Sequence[int], paths: Sequence[Path]) -> Tensor:
    """How often each token occurs in the history and a row's path, shaped like `logits`."""
    counts = torch.bincount(_ids(history, logits), minlength=logits.shape[-1])
    counts = counts.to(logits.dtype).repeat(len(paths), 1)
    rows = _ids([row for row, path in enumerate(paths) for _ in path], logits)
    tokens = _ids([token for path in paths for token in path], logits)
    ones = torch.ones(len(tokens), dtype=logits.dtype, device=logits.device)
    return counts.index_put_((rows, tokens), ones, accumulate=True)


def _ids(values: Sequence[int], logits: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=logits.device)
