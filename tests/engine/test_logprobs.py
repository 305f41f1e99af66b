"""Log-probabilities of the model's own distribution."""

import math

import pytest
import torch

from engine.sampling.logprobs import logprobs

LOGITS = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]]).log() + 3.0


def test_each_row_reports_its_chosen_token_and_the_likeliest():
    first, second = logprobs(LOGITS, [2, 3], top=2)
    assert (first.token_id, second.token_id) == (2, 3)
    assert first.logprob == pytest.approx(math.log(0.125))
    assert second.logprob == pytest.approx(math.log(0.4))
    assert [token for token, _ in first.top] == [0, 1]
    assert [token for token, _ in second.top] == [3, 2]
    assert [math.exp(nats) for _, nats in second.top] == pytest.approx([0.4, 0.3])


def test_no_alternatives_asked():
    [entry] = logprobs(LOGITS[:1], [0], top=0)
    assert entry.top == []
    assert entry.logprob == pytest.approx(math.log(0.5))


def test_more_alternatives_than_tokens():
    [entry] = logprobs(LOGITS[:1], [0], top=20)
    assert len(entry.top) == 4


def test_half_precision_is_summed_in_float32():
    [entry] = logprobs(torch.zeros(1, 50000, dtype=torch.bfloat16), [7], top=1)
    assert entry.logprob == pytest.approx(-math.log(50000), abs=1e-4)


def test_no_rows():
    assert logprobs(LOGITS[:0], [], top=2) == []
