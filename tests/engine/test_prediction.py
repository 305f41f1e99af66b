"""A predicted text beside the output: where they part, and where they meet again."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speculation.prediction import GUESSES, Alignment

some = settings(max_examples=50, deadline=None)
texts = st.lists(st.integers(0, 9), max_size=40)
TEXT = list(range(100, 140))


def followed(predicted: list[int], output: list[int]) -> Alignment:
    alignment = Alignment(predicted)
    alignment.extend(output)
    return alignment


def ways_on(alignment: Alignment, limit: int = 3) -> list[list[int]]:
    return [match.tokens for match in alignment.matches(limit)]


def test_a_prediction_is_followed_from_its_beginning() -> None:
    assert ways_on(Alignment(TEXT))[0] == TEXT[:3]
    assert ways_on(followed(TEXT, TEXT[:10])) == [TEXT[10:13]]
    assert ways_on(followed(TEXT, TEXT)) == []


def test_after_a_token_that_differs_it_was_replaced_or_put_in() -> None:
    assert ways_on(followed(TEXT, [*TEXT[:10], 7])) == [TEXT[11:14], TEXT[10:13]]


@pytest.mark.parametrize(
    ("edit", "left_out"),
    [([7], 1), ([7, 8, 9], 1), ([7], 3), ([7, 8, 9, 7, 8, 9], 0), ([], 4), ([], 25)],
    ids=["one", "one by three", "three by one", "six put in", "four left out", "many left out"],
)
def test_behind_an_edit_the_texts_meet_again(edit: list[int], left_out: int) -> None:
    rest = TEXT[5 + left_out :]
    alignment = followed(TEXT, [*TEXT[:5], *edit, *rest[:5]])
    assert ways_on(alignment) == [rest[5:8]]
    alignment.extend(rest[5:])
    assert (alignment.accepted, alignment.rejected) == (len(TEXT) - left_out, left_out)


def test_a_far_place_needs_more_than_a_pair_of_tokens() -> None:
    filler = [i % 7 + 200 for i in range(300)]
    predicted = [1, 2, 3, 4, *filler, 50, 51, 52, 53, 54, 55, 56, 57, 58]
    pair = followed(predicted, [1, 2, 3, 4, 50, 51])
    assert pair.accepted == 4
    assert followed(predicted, [1, 2, 3, 4, *range(50, 57)]).accepted == 11


def test_an_edited_text_is_followed_through_all_its_edits() -> None:
    """Of a text where any few tokens come again somewhere."""
    rng = random.Random(0)
    words = [[rng.randrange(60) for _ in range(rng.randint(2, 5))] for _ in range(30)]
    output = [token for _ in range(120) for token in rng.choice(words)]
    predicted, kept, at = [], 0, 0
    while at < len(output):
        run = output[at : at + rng.randint(20, 50)]
        kept += len(run)
        predicted += [*run, *(rng.randrange(60) for _ in range(rng.randint(0, 5)))]
        at += len(run) + rng.randint(0, 5)
    assert followed(predicted, output).accepted > 0.9 * kept


@some
@given(texts, texts)
def test_every_predicted_token_is_accepted_or_rejected(
    predicted: list[int], output: list[int]
) -> None:
    alignment = followed(predicted, output)
    assert alignment.accepted + alignment.rejected == len(predicted)
    assert 0 <= alignment.accepted <= min(len(predicted), len(output))


@some
@given(texts, texts, st.lists(st.integers(0, 40), max_size=5))
def test_it_does_not_matter_how_the_output_is_cut_into_steps(
    predicted: list[int], output: list[int], cuts: list[int]
) -> None:
    stepwise = Alignment(predicted)
    places = sorted([0, *cuts, len(output)])
    for first, end in itertools.pairwise(places):
        stepwise.extend(output[first:end])
    whole = followed(predicted, output)
    assert stepwise.accepted == whole.accepted
    assert stepwise.matches(5) == whole.matches(5)


def test_an_output_that_agrees_nowhere_is_soon_not_guessed_at_any_more() -> None:
    alignment = followed(TEXT, [*TEXT[:5], *[7] * GUESSES])
    assert ways_on(alignment)
    alignment.extend([7])
    assert not ways_on(alignment)
    alignment.extend(TEXT[8:14])
    assert ways_on(alignment) == [TEXT[14:17]]
