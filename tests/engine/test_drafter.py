"""Chains, and how far a source is trusted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import engine.sequence
from engine.request import Request
from engine.speculation.drafter import FLOOR, PATIENCE, SELDOM, Chances, Drafter, Match
from engine.speculation.sources import BITA, NGRAM, PREDICTION, count

PRIORS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Always:
    """A text that always goes on the same way."""

    def __init__(self, *matches: Match) -> None:
        self.found, self.taken = list(matches), list[int]()

    def extend(self, tokens: Sequence[int]) -> None:
        self.taken += tokens

    def matches(self, limit: int) -> list[Match]:
        return [Match(match.tokens[:limit], match.agreed) for match in self.found]


def drafter(*matches: Match) -> Drafter:
    return Drafter(NGRAM, Always(*matches), PRIORS)


def test_a_token_is_as_likely_as_texts_that_agreed_so_long_go_on_to_agree() -> None:
    (chain,) = drafter(Match([1, 2, 3, 4, 5], 0)).propose(9)
    assert chain.shares == pytest.approx([0.4, 0.5, 0.6, 0.6, 0.7])
    (chain,) = drafter(Match([1, 2], 100)).propose(9)
    assert chain.shares == pytest.approx([0.9, 0.9])


def test_a_chain_ends_where_it_is_hardly_ever_reached() -> None:
    (chain,) = drafter(Match([7] * 99, 0)).propose(99)
    reached = 1.0
    for share in chain.shares:
        reached *= share
    assert reached >= FLOOR > reached * 0.9
    assert len(chain.tokens) == len(chain.shares)


def test_what_is_never_right_is_trusted_less_and_less_and_again_when_it_is() -> None:
    source = Drafter(PREDICTION, Always(Match([1], 4)), PRIORS)

    def share() -> float:
        return source.propose(1)[0].shares[0]

    trust = [share()]
    for token in [9] * 30 + [1] * 60:
        source.observe([token])
        trust.append(share())
    assert trust[:31] == sorted(trust[:31], reverse=True)
    assert trust[30] < 0.1
    assert trust[90] > 0.8


def test_what_other_requests_saw_is_where_one_begins() -> None:
    others = Chances(PRIORS)
    first = Drafter(NGRAM, Always(Match([1], 4)), PRIORS, others)
    for _ in range(PATIENCE):
        first.propose(1)
        first.observe([9])
    (alone,) = drafter(Match([1], 4)).propose(1)
    (warned,) = Drafter(NGRAM, Always(Match([1], 4)), PRIORS, others).propose(1)
    assert warned.shares[0] < alone.shares[0] / 2


def test_a_guess_that_is_in_vain_is_looked_for_seldom_until_it_is_right() -> None:
    told = Drafter(PREDICTION, Always(Match([1], 4)), PRIORS)
    guess = drafter(Match([1], 4))
    asked = [0, 0]
    for _ in range(PATIENCE + 1 + 5 * SELDOM):
        for number, source in enumerate((told, guess)):
            asked[number] += len(source.propose(1))
            source.observe([9])
    assert asked == [PATIENCE + 1 + 5 * SELDOM, PATIENCE + 1 + 5]
    while not guess.propose(1):
        guess.observe([1])
    guess.observe([1])
    assert guess.propose(1)


def test_tokens_after_the_first_wrong_one_say_nothing() -> None:
    source = drafter(Match([1, 2, 3, 4], 1))
    before = source.propose(4)[0].shares
    source.observe([1, 9, 3, 4])
    after = source.propose(4)[0].shares
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert after[3] == before[3]


def test_only_what_was_proposed_is_judged() -> None:
    finder = Always(Match([1], 4))
    source = Drafter(NGRAM, finder, PRIORS)
    source.observe([9, 9])
    assert source.propose(1)[0].shares == pytest.approx([0.7])
    assert finder.taken == [9, 9]


def test_a_node_of_two_sources_counts_for_both() -> None:
    nodes = [0, BITA, BITA | NGRAM, PREDICTION, BITA | PREDICTION]
    assert count(nodes) == {"bita": 3, "ngram": 1, "prediction": 2, "grammar": 0}


def test_while_drafting_rests_only_those_are_asked_that_were_told_of_the_answer() -> None:
    own, told = (Drafter(s, Always(Match([1, 2], 3)), PRIORS) for s in (NGRAM, PREDICTION))
    request = Request("r", [1, 2, 3])
    asked = engine.sequence.Sequence(
        request, seed=0, adapter=None, max_tokens=8, drafters=[own, told]
    )
    assert [chain.source for chain in asked.chains(guesses=True)] == [NGRAM, PREDICTION]
    assert [chain.source for chain in asked.chains(guesses=False)] == [PREDICTION]
