"""A token at every node of a step, and how far each tree is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engine.sampling.processors import process, temperature
from engine.sampling.sampler import Key, choose
from engine.scheduler import Scheduled
from engine.speculation.verify import Acceptance, walk

NOT_FINITE = "The model's numbers for this request are not finite."


def verify(
    scheduled: list[Scheduled], logits: Tensor, eos_token_ids: Sequence[int]
) -> list[Acceptance | None]:
    """Choose at every node and walk; None where the prompt is not finished yet.

    logits: `[nodes of all sequences, vocab]`, in the order of `scheduled`. A sequence for which
    that goes wrong, or whose logits are no numbers, is marked as failed.
    """
    # Before anything waits for the logits: a GPU still computes them.
    masks = [_allowed(item) for item in scheduled]
    chosen, sound = _likeliest(logits)
    nodes: list[range] = []
    tempered, shaped = _Rows(), _Rows()
    temperatures: list[float] = []
    processed: list[Tensor] = []
    first = 0
    for item, allowed in zip(scheduled, masks, strict=True):
        rows = range(first, first + item.num_nodes)
        first = rows.stop
        nodes.append(rows)
        sequence, params = item.sequence, item.sequence.request.sampling
        if item.tree is None or (allowed is None and params.plain):
            continue
        depths = item.tree.topology.depths
        if allowed is None and params.tempered:
            tempered.add(rows, sequence.keys(depths))
            temperatures += [params.temperature] * len(rows)
            continue
        with sequence.blamed():
            own = logits[rows.start : rows.stop]
            own = _processed(item, own, allowed, eos_token_ids)
            shaped.add(rows, sequence.keys(depths))
            processed.append(own)
    if tempered.rows:  # all at once: they are most of what is sampled
        own = logits[tempered.rows]
        temperature(own, temperatures)
        _choose(own, tempered, chosen)
    if shaped.rows:
        _choose(torch.cat(processed), shaped, chosen)
    accepted: list[Acceptance | None] = []
    for item, rows in zip(scheduled, nodes, strict=True):
        walked = None
        if item.tree is not None:
            walked = walk(item.tree, chosen[rows.start : rows.stop])
            if not all(sound[rows.start + node] for node in (0, *walked.path)):
                item.sequence.failure = NOT_FINITE
        accepted.append(walked)
    return accepted


@dataclass(slots=True)
class _Rows:
    """Rows of logits to choose tokens at, and by row the key of its noise."""

    rows: list[int] = field(default_factory=list)
    keys: list[Key | None] = field(default_factory=list)

    def add(self, rows: range, keys: list[Key | None]) -> None:
        """More of them."""
        self.rows += rows
        self.keys += keys


def _choose(processed: Tensor, rows: _Rows, chosen: list[int]) -> None:
    """Choose at these rows, whose logits are processed."""
    for row, token in zip(rows.rows, choose(processed, rows.keys), strict=True):
        chosen[row] = token


def _likeliest(logits: Tensor) -> tuple[list[int], list[bool]]:
    """The likeliest token of every row, the first of equals, and whether its logit is finite."""
    if logits.device.type == "cpu":  # numpy finds it in a fifth of the time
        rows = logits.numpy()
        tokens = rows.argmax(axis=1)
        return tokens.tolist(), np.isfinite(rows[np.arange(len(rows)), tokens]).tolist()
    values, likeliest = logits.max(dim=-1)
    chosen, sound = torch.stack((likeliest, values.isfinite().long())).tolist()
    return chosen, list(map(bool, sound))


def _allowed(item: Scheduled) -> Tensor | None:
    """What the grammar allows behind every node, where there is one."""
    sequence = item.sequence
    if item.tree is None or sequence.constraint is None:
        return None
    allowed: Tensor | None = None
    with sequence.blamed():
        num_early = sequence.request.sampling.min_tokens - sequence.num_generated
        allowed = sequence.constraint.allowed(item.tree, num_early)
    return allowed


def _processed(
    item: Scheduled, logits: Tensor, allowed: Tensor | None, eos_token_ids: Sequence[int]
) -> Tensor:
    """The request's own distribution at every node, on that node's path."""
    sequence, tree = item.sequence, item.tree
    assert tree is not None
    params = sequence.request.sampling
    paths = [[tree.token_ids[n] for n in tree.path(node)] for node in range(len(tree.token_ids))]
    return process(
        logits,
        params,
        sequence.token_ids[: sequence.num_prompt_tokens],
        sequence.output_ids,
        paths,
        (*eos_token_ids, *params.stop_token_ids),
        allowed,
    )
