"""A token at every node of a step, and how far each tree is accepted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.sampling.processors import process
from engine.sampling.sampler import Key, choose
from engine.scheduler import Scheduled
from engine.speculation.verify import Acceptance, walk


def verify(
    scheduled: list[Scheduled], logits: Tensor, eos_token_ids: Sequence[int]
) -> list[Acceptance | None]:
    """Choose at every node and walk; None where the prompt is not finished yet.

    logits: `[nodes of all sequences, vocab]`, in the order of `scheduled`.
    """
    # Before anything waits for the logits: a GPU still computes them.
    masks = [_allowed(item) for item in scheduled]
    chosen = logits.argmax(dim=-1).tolist() if len(logits) else []
    nodes: list[range] = []
    shaped: list[int] = []
    processed: list[Tensor] = []
    keys: list[Key | None] = []
    first = 0
    for item, allowed in zip(scheduled, masks, strict=True):
        rows = range(first, first + item.num_nodes)
        first = rows.stop
        nodes.append(rows)
        plain = allowed is None and item.sequence.request.sampling.plain
        if item.tree is not None and not plain:
            own = logits[rows.start : rows.stop]
            processed.append(_processed(item, own, allowed, eos_token_ids))
            keys += item.sequence.keys(item.tree.topology.depths)
            shaped += rows
    if processed:
        for row, token in zip(shaped, choose(torch.cat(processed), keys), strict=True):
            chosen[row] = token
    return [
        None if item.tree is None else walk(item.tree, chosen[rows.start : rows.stop])
        for item, rows in zip(scheduled, nodes, strict=True)
    ]


def _allowed(item: Scheduled) -> Tensor | None:
    """What the grammar allows behind every node, where there is one."""
    sequence = item.sequence
    if item.tree is None or sequence.constraint is None:
        return None
    num_early = sequence.request.sampling.min_tokens - sequence.num_generated
    return sequence.constraint.allowed(item.tree, num_early)


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
