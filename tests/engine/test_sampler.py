"""Sampler: the exact law, and noise that only seed and position decide."""

import math

import pytest
import torch

from engine.request import SamplingParams
from engine.sampling.processors import process
from engine.sampling.sampler import choose, perturbed
from engine.sampling.sampler import noise as noise_of

# 99.9 % quantiles of chi-square; the seeds are fixed, so a pass stays a pass.
CHI_SQUARE = {2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 7: 24.32}
DRAWS = 4000


def noise(seed, position, vocab):
    return noise_of([(seed, position)], torch.arange(vocab))[0]


def keyed(seed, positions):
    return [(seed, position) for position in positions]


def test_greedy_takes_the_likeliest_and_of_equals_the_first():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
    assert choose(logits, [None] * 3) == [1, 0, 0]


def test_noise_belongs_to_seed_and_position():
    assert torch.equal(noise(7, 3, 100), noise(7, 3, 100))
    others = [noise(7, 4, 100), noise(8, 3, 100), noise(3, 7, 100), noise(-7, 3, 100)]
    assert all(not torch.equal(noise(7, 3, 100), other) for other in others)


def test_seeds_that_differ_in_any_bit_differ():
    drawn = [noise(seed, 0, 4) for seed in (0, 1, 1 << 32, 1 << 40, 1 << 63, -1)]
    assert len({tuple(values.tolist()) for values in drawn}) == len(drawn)


def test_noise_is_that_of_split_mix():
    def mix(word):
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        return word ^ word >> 31

    start = mix((mix(-7 % 2**64) + 3) % 2**64)
    words = [mix((start + token * 0x9E3779B97F4A7C15) % 2**64) for token in range(1, 101)]
    expected = [-math.log(-math.log(((word >> 12) + 0.5) / 2**52)) for word in words]
    assert noise(-7, 3, 100).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_noise_is_gumbel():
    values = torch.cat([noise(5, position, 1000) for position in range(50)]).double()
    assert values.isfinite().all()
    assert values.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert values.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.05)


def test_noise_of_some_tokens_is_what_they_have_among_all():
    tokens = torch.tensor([3, 40, 41, 99])
    assert torch.equal(noise_of([(7, 3)], tokens)[0], noise(7, 3, 100)[tokens])


def test_logits_are_perturbed_by_row_and_scale():
    logits = torch.randn(4, 3)
    tokens = torch.tensor([5, 60, 7])
    keys = [(9, 1), None, (9, 1), (9, 2)]
    result = perturbed(logits, keys, [1.0, 1.0, 0.5, 2.0], tokens)
    assert torch.equal(result[1], logits[1])
    for row, position, scale in ((0, 1, 1.0), (2, 1, 0.5), (3, 2, 2.0)):
        expected = logits[row] + scale * noise(9, position, 100)[tokens]
        torch.testing.assert_close(result[row], expected)
    assert perturbed(logits, [None] * 4) is logits


def test_noise_of_neighbours_is_unrelated():
    a, b, c = noise(5, 1, 20000), noise(5, 2, 20000), noise(6, 1, 20000)
    correlation = torch.corrcoef(torch.stack([a, b, c]))
    assert (correlation - torch.eye(3)).abs().max() < 0.03


def test_a_choice_does_not_depend_on_the_other_rows():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(5, 50, generator=generator)
    positions = [10, 11, 11, 12, 10]
    keys = keyed(9, positions)
    together = choose(logits, keys)
    assert together == [choose(logits[i : i + 1], [key])[0] for i, key in enumerate(keys)]


def test_rows_without_a_key_take_the_likeliest_beside_rows_that_sample():
    logits = torch.zeros(3, 50)
    logits[:, 7] = 1.0
    sampled = choose(logits, [None, (9, 3), None])
    assert (sampled[0], sampled[2]) == (7, 7)
    assert sampled[1] == choose(logits[1:2], [(9, 3)])[0]


def test_many_keys_at_once_draw_what_each_draws_alone():
    keys = [(7, 3), (7, 4), (8, 3)]
    together = noise_of(keys, torch.arange(100))
    assert torch.equal(together, torch.stack([noise(*key, 100) for key in keys]))


def test_excluded_tokens_are_never_chosen():
    logits = torch.full((1, 100), float("-inf"))
    logits[0, 42] = -1e4
    assert [choose(logits, [(0, p)])[0] for p in range(20)] == [42] * 20


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
    chosen = choose(logits.expand(DRAWS, -1), keyed(seed, range(DRAWS)))
    counts = torch.bincount(torch.tensor(chosen), minlength=8)
    possible = law > 0
    assert int(possible.sum()) == support
    assert counts[~possible].sum() == 0
    expected = law[possible] * DRAWS
    statistic = ((counts[possible] - expected) ** 2 / expected).sum().item()
    assert statistic < CHI_SQUARE[support - 1]


def test_the_law_also_holds_over_seeds():
    law = torch.tensor([0.5, 0.3, 0.15, 0.05])
    chosen = [choose(law.log()[None], [(seed, 17)])[0] for seed in range(DRAWS)]
    expected = law * DRAWS
    counts = torch.bincount(torch.tensor(chosen), minlength=4)
    assert ((counts - expected) ** 2 / expected).sum().item() < CHI_SQUARE[3]
