"""The additive mask of a segment: the only place where visibility becomes numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapters.visibility import as_matrix
from engine.attention.interface import Scope
from engine.batch import Segment


def visible(
    segment: Segment,
    positions: NDArray[np.int64],
    scope: Scope,
    past_columns: int,
    fresh_columns: int,
    prompt_columns: int,
    num_prompts: int,
) -> NDArray[np.bool_]:
    """Which columns each row of a segment sees, bool `[rows, past + fresh + prompt columns]`.

    positions: of the segment's rows. Columns are the committed tokens (padded to whole blocks),
    the fresh rows (likewise) and the adapter's prompts, of which `num_prompts` are real.
    Windows and chunks go by position, so that siblings count as equally far.
    """
    rows, causal = segment.num_rows, segment.num_causal
    seen = np.zeros((rows, past_columns + fresh_columns + prompt_columns), np.bool_)
    seen[:, : segment.num_past] = True
    fresh = seen[:, past_columns : past_columns + rows]
    if causal:
        fresh[:, :causal] = np.tri(rows, causal, dtype=np.bool_)
    if segment.layout is not None:
        words = segment.layout.words
        fresh[causal:, causal:] = as_matrix(words, len(words))
        first_prompt = past_columns + fresh_columns
        seen[causal + segment.layout.num_nodes :, first_prompt : first_prompt + num_prompts] = True
    if scope.window is not None:
        seen[:, :past_columns] &= positions[:, None] - np.arange(past_columns) < scope.window
        fresh &= positions[:, None] - positions < scope.window
    if scope.chunk is not None:
        chunk = positions[:, None] // scope.chunk
        seen[:, :past_columns] &= np.arange(past_columns) // scope.chunk == chunk
        fresh &= positions // scope.chunk == chunk
    return seen
