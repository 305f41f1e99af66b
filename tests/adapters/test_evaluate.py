"""Hit rates and acceptance length, counted by hand on logits from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.card import card
from adapters.format import BitaAdapter
from adapters.profile import HitProfile
from adapters.tuning import evaluate as module
from adapters.tuning.evaluate import Evaluation, evaluate
from adapters.tuning.export import export
from adapters.tuning.layout import IGNORE, Sample, mask_groups
from adapters.tuning.recipe import TuningRecipe
from tests.adapters import tiny

MASKS, RANKS = 3, 5


def with_ranks(monkeypatch: pytest.MonkeyPatch, ranks: dict[int, list[int]]) -> None:
    """Let the true token of mask m at an anchor have rank `ranks[anchor][m]`."""

    def run_groups(
        _: Any, samples: list[Sample], anchors: list[list[int]], *__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        labels = mask_groups(samples, anchors, MASKS).labels
        logits = torch.full((*labels.shape, tiny.VOCAB), -1.0)
        for i, places in enumerate(anchors):
            for g, anchor in enumerate(places):
                for m in range(MASKS):
                    label = int(labels[i, g * MASKS + m])
                    if label == IGNORE:
                        continue
                    others = [t for t in range(tiny.VOCAB) if t != label]
                    rank = ranks[anchor][m]
                    order = [*others[:rank], label, *others[rank:]]
                    for place, token in enumerate(order):
                        logits[i, g * MASKS + m, token] = -float(place)
        return logits, labels

    monkeypatch.setattr(module, "run_groups", run_groups)


def measure(samples: list[Sample]) -> Evaluation:
    target: Any = None  # the logits come from the table
    return evaluate(target, samples, torch.zeros(0), torch.zeros(MASKS, 1), RANKS)


def test_acceptance_length_walks_the_comb(monkeypatch: pytest.MonkeyPatch) -> None:
    # Answer of 10 tokens at 4..13. From 4: rank 0, rank 0, rank 2 -> all three hit, 4 tokens.
    # From 8: rank 3 -> hit but not extended, 2 tokens. From 10: rank 5 -> none, 1 token.
    # From 11: rank 0, then the answer ends: 2 tokens (the last is the end token itself).
    ranks = {a: [9, 9, 9] for a in range(4, 13)}
    ranks |= {4: [0, 0, 2], 8: [3, 0, 0], 10: [5, 0, 0], 11: [0, 0, 0]}
    with_ranks(monkeypatch, ranks)
    result = measure([Sample(list(range(14)), [(4, 14)])])
    assert result.acceptance_length == pytest.approx(9 / 4)


@pytest.mark.parametrize(
    ("ranks", "tokens"),
    [
        ([4, 0, 0], 2),  # fifth candidate of depth 1: hit, a leaf
        ([0, 3, 0], 3),  # fourth of depth 2: the last that the comb holds
        ([0, 4, 0], 2),  # fifth of depth 2: not in the comb
        ([0, 0, 2], 4),
        ([0, 0, 3], 3),
    ],
)
def test_the_comb_narrows_with_depth(
    monkeypatch: pytest.MonkeyPatch, ranks: list[int], tokens: int
) -> None:
    table = {a: [9, 9, 9] for a in range(2, 40)}
    table[2] = ranks
    with_ranks(monkeypatch, table)
    length = 20
    result = measure([Sample(list(range(2 + length)), [(2, 2 + length)])])
    assert result.acceptance_length == pytest.approx((length - 1) / (length - 1 - tokens + 1))


def test_hits_count_only_where_smaller_depths_were_among_the_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An answer of 6 tokens: 5 anchors have a first label, 4 a second, 3 a third.
    with_ranks(
        monkeypatch,
        {2: [0, 1, 2], 3: [7, 0, 0], 4: [1, 8, 0], 5: [0, 0, 9], 6: [4, 9, 9]},
    )
    profile = measure([Sample(list(range(8)), [(2, 8)])]).profile
    assert profile.counts == [5, 3, 1]
    assert profile.rates[0] == pytest.approx([2 / 5, 1 / 5, 0, 0, 1 / 5])
    assert profile.rates[1] == pytest.approx([1 / 3, 1 / 3, 0, 0, 0])
    assert profile.rates[2] == pytest.approx([0, 0, 1, 0, 0])


def test_temperatures_make_probabilities_as_right_as_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Depth 1 is drawn from its own logits, depth 2 from half of them; depth 3 has no label."""
    generator = torch.Generator().manual_seed(0)
    places = 4000

    def run_groups(
        _: Any, samples: list[Sample], anchors: list[list[int]], *__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        groups = len(anchors[0])
        logits = 2 * torch.randn(1, groups * MASKS, tiny.VOCAB, generator=generator)
        divisors = torch.tensor([1.0, 2.0, 1.0]).repeat(groups)[:, None]
        chances = (logits[0] / divisors).softmax(dim=-1)
        labels = torch.multinomial(chances, 1, generator=generator).T
        labels[0, 2::MASKS] = IGNORE
        return logits, labels

    monkeypatch.setattr(module, "run_groups", run_groups)
    profile = evaluate(
        None,  # type: ignore[arg-type] # the logits are drawn
        [Sample([0] * (places + 2), [(1, places + 2)])],
        torch.zeros(0),
        torch.zeros(MASKS, 1),
        tiny.VOCAB,
    ).profile
    assert profile.temperatures == [1.0, 2.0, 1.0]


def test_export_writes_an_adapter_that_loads_and_a_card_with_the_results(tmp_path: Path) -> None:
    recipe = TuningRecipe(num_prompts=4, num_masks=3)
    prompt_kv = torch.randn(tiny.LAYERS, 2, tiny.KV_HEADS, 4, tiny.HEAD_DIM, requires_grad=True)
    masks = torch.randn(3, tiny.HIDDEN, requires_grad=True)
    profile = HitProfile([[0.512, 0.1]] * 3, [4, 3, 2])
    evaluation = Evaluation(profile, 1.875)
    made = export(tmp_path, tiny.SHAPE, recipe, evaluation, prompt_kv, masks)
    loaded = BitaAdapter.load(tmp_path, tiny.SHAPE)
    assert loaded.config.profile == profile
    assert loaded.config.tuning["recipe"]["num_prompts"] == 4
    assert loaded.config.tuning == made.config.tuning
    assert torch.equal(loaded.prompt_kv, prompt_kv.detach())
    assert not made.prompt_kv.requires_grad
    text = (tmp_path / "README.md").read_text()
    assert text == card(made.config)
    assert "0.512" in text
    assert "1.88" in text
