"""Processors against slow, obvious loops, each row on its own path."""

import math

import pytest
import torch

from engine.request import SamplingParams
from engine.sampling.processors import process

VOCAB = 11
PROMPT, OUTPUT = [1, 2, 2, 9], [3, 3, 4]
PATHS = [[], [3], [5], [3, 5], [3, 3, 7]]
INF = float("inf")


def some_logits(seed=0, rows=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, VOCAB, generator=generator) * 3


def processed(logits, paths=PATHS, forbidden=(), **params):
    return process(logits, SamplingParams(**params), PROMPT, OUTPUT, paths, forbidden)


def row_of(*probabilities):
    return torch.tensor([probabilities]).log()


def kept(logits):
    return [[i for i, x in enumerate(row) if x > -INF] for row in logits.tolist()]


def test_nothing_asked_changes_nothing_and_the_input_is_left_alone():
    logits = some_logits()
    before = logits.clone()
    assert torch.equal(processed(logits, temperature=0.0), before)
    processed(logits, temperature=0.5, top_k=2, repetition_penalty=2.0, logit_bias={1: 5.0})
    assert torch.equal(logits, before)


def test_half_precision_is_processed_in_float32():
    assert processed(some_logits().bfloat16(), temperature=0.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("presence", "frequency", "repetition"),
    [(0.5, 0.0, 1.0), (0.0, -1.5, 1.0), (0.0, 0.0, 1.3), (0.0, 0.0, 0.7), (1.0, 0.25, 2.0)],
)
def test_penalties_count_each_rows_own_history(presence, frequency, repetition):
    logits = some_logits()
    expected = logits.tolist()
    for row, path in zip(expected, PATHS, strict=True):
        generated = OUTPUT + path
        for token in range(VOCAB):
            if token in PROMPT + generated:
                row[token] *= repetition if row[token] < 0 else 1 / repetition
            if token in generated:
                row[token] -= presence + frequency * generated.count(token)
    actual = processed(
        logits,
        temperature=0.0,
        presence_penalty=presence,
        frequency_penalty=frequency,
        repetition_penalty=repetition,
    )
    torch.testing.assert_close(actual, torch.tensor(expected))


def test_a_row_does_not_depend_on_the_tree_around_it():
    params = {
        "temperature": 0.8,
        "top_p": 0.9,
        "top_k": 8,
        "min_p": 0.01,
        "frequency_penalty": 0.5,
        "repetition_penalty": 1.2,
    }
    logits = some_logits()
    tree = processed(logits, **params)
    for i, path in enumerate(PATHS):
        alone = process(
            logits[i : i + 1], SamplingParams(**params), PROMPT, OUTPUT + path, [[]], ()
        )
        torch.testing.assert_close(tree[i : i + 1], alone, rtol=0, atol=0)


def test_nothing_is_penalised_before_anything_was_generated():
    logits = some_logits(rows=1)
    params = SamplingParams(temperature=0.0, presence_penalty=2.0)
    assert torch.equal(process(logits, params, PROMPT, [], [[]], ()), logits)


def test_bias_is_added_in_every_row():
    logits = some_logits()
    expected = logits.clone()
    expected[:, 2] += 100
    expected[:, 7] -= 1.5
    assert torch.equal(processed(logits, temperature=0.0, logit_bias={2: 100, 7: -1.5}), expected)


def test_forbidden_tokens_wait_for_min_tokens_on_each_path():
    logits = some_logits()
    actual = processed(logits, forbidden=(0, 10), temperature=0.0, min_tokens=len(OUTPUT) + 2)
    for row, path in zip(actual, PATHS, strict=True):
        assert (row[0] == row[10] == -INF) == (len(path) < 2)
        assert torch.isfinite(row[1:10]).all()


def test_bias_cannot_bring_a_forbidden_token_back():
    actual = processed(
        some_logits(), forbidden=(0,), temperature=0.0, min_tokens=50, logit_bias={0: 100.0}
    )
    assert (actual[:, 0] == -INF).all()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
def test_temperature_divides(temperature):
    logits = some_logits()
    torch.testing.assert_close(
        processed(logits, temperature=temperature).softmax(-1), (logits / temperature).softmax(-1)
    )


def test_a_tiny_temperature_is_greedy():
    logits = some_logits()
    actual = processed(logits, temperature=1e-320, top_p=0.5)
    assert not actual.isnan().any()
    assert kept(actual) == [[i] for i in logits.argmax(-1).tolist()]


@pytest.mark.parametrize(("k", "expected"), [(1, [1]), (2, [0, 1, 3]), (4, [0, 1, 2, 3]), (9, 5)])
def test_top_k_keeps_k_tokens_and_ties(k, expected):
    logits = row_of(0.2, 0.4, 0.15, 0.2, 0.05)
    expected = list(range(expected)) if isinstance(expected, int) else expected
    assert kept(processed(logits, [[]], top_k=k)) == [expected]


@pytest.mark.parametrize(
    ("mass", "expected"),
    [(0.01, [1]), (0.39, [1]), (0.5, [0, 1]), (0.7, [0, 1, 3]), (0.9, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass(mass, expected):
    logits = row_of(0.2, 0.4, 0.15, 0.2, 0.05)
    assert kept(processed(logits, [[]], top_p=mass)) == [expected]


@pytest.mark.parametrize(("share", "expected"), [(0.1, 5), (0.3, 4), (0.45, [0, 1, 3]), (1, [1])])
def test_min_p_is_relative_to_the_likeliest(share, expected):
    logits = row_of(0.2, 0.4, 0.15, 0.2, 0.05)
    expected = list(range(expected)) if isinstance(expected, int) else expected
    assert kept(processed(logits, [[]], min_p=share)) == [expected]


def test_top_p_is_of_what_top_k_left():
    # Of {.4, .3}, .4 alone is 57 %: enough for 0.5, though it is not enough of the whole.
    logits = row_of(0.4, 0.3, 0.2, 0.1)
    assert kept(processed(logits, [[]], top_k=2, top_p=0.5)) == [[0]]
    assert kept(processed(logits, [[]], top_p=0.5)) == [[0, 1]]


def test_truncation_sees_the_temperature():
    logits = row_of(0.6, 0.3, 0.1)
    assert kept(processed(logits, [[]], min_p=0.4)) == [[0, 1]]
    assert kept(processed(logits, [[]], min_p=0.4, temperature=0.5)) == [[0]]
    assert kept(processed(logits, [[]], min_p=0.4, temperature=10.0)) == [[0, 1, 2]]


def test_all_of_it_together_is_the_law_in_the_documented_order():
    params = {
        "temperature": 0.7,
        "repetition_penalty": 1.4,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.2,
        "logit_bias": {6: 1.0},
        "min_tokens": 5,
        "min_p": 0.02,
        "top_k": 6,
        "top_p": 0.8,
    }
    logits = some_logits(3)
    actual = processed(logits, forbidden=(0,), **params).softmax(-1)
    for row, path, law in zip(logits.tolist(), PATHS, actual.tolist(), strict=True):
        torch.testing.assert_close(law, slow_law(row, path), rtol=1e-4, atol=1e-6)


def slow_law(row, path):
    """The distribution at one node, written out."""
    generated = OUTPUT + path
    for token in {*PROMPT, *generated}:
        row[token] *= 1.4 if row[token] < 0 else 1 / 1.4
    for token in set(generated):
        row[token] -= 0.3 + 0.2 * generated.count(token)
    row[6] += 1.0
    if len(generated) < 5:
        row[0] = -INF
    weights = [math.exp(x / 0.7) for x in row]
    likeliest = sorted(range(VOCAB), key=lambda token: -weights[token])
    keep = [t for t in likeliest if weights[t] >= 0.02 * max(weights)][:6]
    total, mass, nucleus = sum(weights[t] for t in keep), 0.0, []
    for token in keep:
        if mass < 0.8:
            nucleus.append(token)
        mass += weights[token] / total
    total = sum(weights[t] for t in nucleus)
    return [weights[t] / total if t in nucleus else 0.0 for t in range(VOCAB)]
