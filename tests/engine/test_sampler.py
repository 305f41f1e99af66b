"""Sampler: the exact law, and noise that only seed and position decide."""

import pytest
import torch

from engine.request import SamplingParams
from engine.sampling.processors import process
from engine.sampling.sampler import choose, noise

GREEDY, SAMPLED = SamplingParams(temperature=0.0), SamplingParams()
# 99.9 % quantiles of chi-square; the seeds are fixed, so a pass stays a pass.
CHI_SQUARE = {2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 7: 24.32}
DRAWS = 4000


def test_greedy_takes_the_likeliest_and_of_equals_the_first():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
    assert choose(logits, GREEDY, seed=1, positions=[0, 1, 1]) == [1, 0, 0]


def test_noise_belongs_to_seed_and_position():
    assert torch.equal(noise(7, 3, 100), noise(7, 3, 100))
    others = [noise(7, 4, 100), noise(8, 3, 100), noise(3, 7, 100), noise(-7, 3, 100)]
    assert all(not torch.equal(noise(7, 3, 100), other) for other in others)


def test_seeds_that_differ_in_any_bit_differ():
    drawn = [noise(seed, 0, 4) for seed in (0, 1, 1 << 32, 1 << 40, 1 << 63, -1)]
    assert len({tuple(values.tolist()) for values in drawn}) == len(drawn)


def test_noise_is_gumbel():
    values = torch.cat([noise(5, position, 1000) for position in range(50)]).double()
    assert values.isfinite().all()
    assert values.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert values.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.05)


def test_noise_of_neighbours_is_unrelated():
    a, b, c = noise(5, 1, 20000), noise(5, 2, 20000), noise(6, 1, 20000)
    correlation = torch.corrcoef(torch.stack([a, b, c]))
    assert (correlation - torch.eye(3)).abs().max() < 0.03


def test_a_choice_does_not_depend_on_the_other_rows():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(5, 50, generator=generator)
    positions = [10, 11, 11, 12, 10]
    together = choose(logits, SAMPLED, 9, positions)
    assert together == [
        choose(logits[i : i + 1], SAMPLED, 9, [position])[0] for i, position in enumerate(positions)
    ]


def test_excluded_tokens_are_never_chosen():
    logits = torch.full((1, 100), float("-inf"))
    logits[0, 42] = -1e4
    assert [choose(logits, SAMPLED, 0, [p])[0] for p in range(20)] == [42] * 20


@pytest.mark.parametrize(
    ("params", "support"),
    [
        ({}, 8),
        ({"temperature": 0.5}, 8),
        ({"temperature": 2.0}, 8),
        ({"top_k": 3}, 3),
        ({"top_p": 0.8}, 5),
        ({"min_p": 0.2}, 5),
        ({"temperature": 1.5, "top_k": 6, "top_p": 0.99, "repetition_penalty": 1.3}, 6),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 123456789])
def test_what_is_chosen_has_the_law_of_the_processed_logits(params, support, seed):
    sampling = SamplingParams(**params)
    raw = torch.tensor([[1.5, 0.2, 1.0, -0.6, 0.4, -0.2, -1.0, 0.9]])
    logits = process(raw, sampling, [0, 4], [2], [[]], ())
    law = logits.softmax(-1)[0]
    chosen = choose(logits.expand(DRAWS, -1), sampling, seed, range(DRAWS))
    counts = torch.bincount(torch.tensor(chosen), minlength=8)
    possible = law > 0
    assert int(possible.sum()) == support
    assert counts[~possible].sum() == 0
    expected = law[possible] * DRAWS
    statistic = ((counts[possible] - expected) ** 2 / expected).sum().item()
    assert statistic < CHI_SQUARE[support - 1]


def test_the_law_also_holds_over_seeds():
    law = torch.tensor([0.5, 0.3, 0.15, 0.05])
    chosen = [choose(law.log()[None], SAMPLED, seed, [17])[0] for seed in range(DRAWS)]
    expected = law * DRAWS
    counts = torch.bincount(torch.tensor(chosen), minlength=4)
    assert ((counts - expected) ** 2 / expected).sum().item() < CHI_SQUARE[3]
