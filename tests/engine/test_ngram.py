"""The index over a request's own past, against a search of the whole of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speculation.drafter import Match
from engine.speculation.ngram import CATCH_UP, LENGTH, LONGEST, PLACES, NgramIndex

some = settings(max_examples=100, deadline=None)
texts = st.lists(st.integers(0, 2), min_size=1, max_size=40)


def agreement(text: list[int], place: int) -> int:
    """Tokens up to `place` that agree with the last ones."""
    length = 0
    while length < min(place + 1, LONGEST) and text[place - length] == text[-1 - length]:
        length += 1
    return length


def longest_of_the_latest(text: list[int], limit: int) -> list[Match]:
    """What `matches` finds, by looking everywhere."""
    lengths = [(agreement(text, place), place) for place in range(LENGTH - 1, len(text) - 1)]
    latest = [pair for pair in reversed(lengths) if pair[0] >= LENGTH][:PLACES]
    if not latest:
        return []
    length, place = max(latest, key=lambda pair: pair[0])
    grown = list(text)
    for i in range(limit):
        grown.append(grown[place + 1 + i])
    return [Match(grown[len(text) :], length)]


@some
@given(texts, texts, st.integers(1, 12))
def test_it_finds_what_a_search_of_the_whole_text_finds(
    prompt: list[int], output: list[int], limit: int
) -> None:
    index = NgramIndex(prompt)
    for token in output:
        index.extend([token])
        index.matches(limit)
    assert index.matches(limit) == longest_of_the_latest(prompt + output, limit)


def test_steps_of_any_length_give_the_same() -> None:
    text = [1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3]
    for cut in range(1, len(text)):
        index = NgramIndex(text[:cut])
        index.matches(4)
        index.extend(text[cut:])
        assert index.matches(4) == [Match([9, 1, 2, 3], 3)]


def test_the_longer_agreement_is_followed_not_the_later() -> None:
    text = [5, 1, 2, 7, 7, 6, 1, 2, 8, 8, 5, 1, 2]
    assert NgramIndex(text).matches(2) == [Match([7, 7], 3)]


def test_a_text_that_repeats_goes_on_repeating() -> None:
    (match,) = NgramIndex([1, 2, 3, 1, 2, 3, 1, 2]).matches(7)
    assert match.tokens == [3, 1, 2, 3, 1, 2, 3]


def test_a_long_prompt_is_indexed_a_part_a_step() -> None:
    text = [*range(1000, 1000 + 3 * CATCH_UP), 1001, 1002, 1003]
    index = NgramIndex(text)
    assert [bool(index.matches(2)) for _ in range(5)] == [False] * 3 + [True] * 2
