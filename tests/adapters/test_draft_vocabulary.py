"""Which tokens an adapter drafts, and what its hit rates make of those it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adapters.tuning.draft_vocabulary import most_used
from adapters.tuning.evaluate import Evaluation, evaluate
from adapters.tuning.layout import Sample
from adapters.tuning.target import TargetModel
from tests.adapters import tiny

SAMPLES = [
    # Written: 9 twice, 7 once. Read only: 5 twice, 3 once.
    Sample([5, 5, 3, 9, 9], [(3, 5)]),
    Sample([7], [(0, 1)]),
]


@pytest.mark.parametrize(
    ("size", "tokens"),
    [(1, [9]), (2, [7, 9]), (3, [5, 7, 9]), (4, [3, 5, 7, 9]), (6, [0, 1, 3, 5, 7, 9])],
)
def test_what_the_model_wrote_comes_first_then_what_it_read_then_low_ids(
    size: int, tokens: list[int]
) -> None:
    chosen = most_used(SAMPLES, size, vocab_size=12)
    assert chosen is not None
    assert chosen.tolist() == tokens


@pytest.mark.parametrize("size", [12, 13])
def test_a_vocabulary_that_is_no_larger_is_left_whole(size: int) -> None:
    assert most_used(SAMPLES, size, vocab_size=12) is None


def measured(model: Any, samples: list[Sample], ranks: int, tokens: Tensor | None) -> Evaluation:
    """Of an adapter nobody tuned, always the same, that drafts `tokens`."""
    torch.manual_seed(0)
    prompts = torch.randn(tiny.LAYERS, 2, tiny.KV_HEADS, 2, tiny.HEAD_DIM)
    masks = torch.randn(2, tiny.HIDDEN)
    return evaluate(TargetModel(model), samples, prompts, masks, ranks, None, tokens)


def test_tokens_that_are_not_drafted_are_never_hit_and_leave_temperatures_alone() -> None:
    model = tiny.llama()
    samples = tiny.answered(model, 3)
    written = {t for s in samples for start, end in s.spans for t in s.token_ids[start:end]}
    others = torch.tensor(sorted(set(range(tiny.VOCAB)) - written))
    none = measured(model, samples, len(others), others)
    assert none.profile.rates == [[0.0] * len(others)] * 2
    assert none.acceptance_length == 1.0
    assert none.profile.temperatures == [1.0, 1.0]


def test_the_whole_vocabulary_by_name_is_as_good_as_unnamed() -> None:
    model = tiny.llama()
    samples = tiny.answered(model, 2)
    everything = torch.arange(tiny.VOCAB)
    assert measured(model, samples, 4, everything) == measured(model, samples, 4, None)
