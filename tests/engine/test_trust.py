"""What a request makes of its drafter's promises."""

import random

import pytest

from engine.speculation.sources import BITA, NGRAM
from engine.speculation.tree import DraftTree, TreeTopology
from engine.speculation.trust import Trust

SHAPE = TreeTopology((-1, 0, 1, 0), (0, 0, 0, 1), (0,) * 4)


def tree(share: float, source: int = BITA) -> DraftTree:
    """A chain of two, each with `share`, and a sibling of no promise."""
    return DraftTree((9, 1, 2, 3), SHAPE, (0, source, source, source), (1.0, share, share**2, 0.0))


def lived(share: float, truth: float, steps: int = 400) -> Trust:
    """Trust after steps whose drafts said `share` and were right with `truth`."""
    rng, trust = random.Random(1), Trust()
    for _ in range(steps):
        path = [1, 2][: next((d for d in range(2) if rng.random() >= truth), 2)]
        trust.observe(tree(share * trust()), path)
    return trust


def test_who_has_promised_nothing_is_trusted() -> None:
    assert Trust()() == 1.0


@pytest.mark.parametrize("truth", [0.2, 0.5, 0.8])
def test_promises_are_scaled_to_what_was_kept(truth: float) -> None:
    trust = lived(0.9, truth)
    assert 0.9 * trust() == pytest.approx(truth, abs=0.15)


def test_who_keeps_more_than_promised_is_not_believed_more() -> None:
    assert lived(0.5, 0.9)() == 1.0


def test_who_drafts_nothing_is_tried_again() -> None:
    trust = lived(0.9, 0.1)
    before = trust()
    for _ in range(300):
        trust.observe(DraftTree((9,), TreeTopology.root(0), (0,), (1.0,)), [])
    assert before < 0.4 < 0.9 < trust()


def test_a_new_request_begins_where_the_others_are() -> None:
    shared = Trust()
    rng, one = random.Random(1), Trust(shared)
    for _ in range(400):
        one.observe(tree(0.9 * one()), [1] if rng.random() < 0.4 else [])
    assert Trust(shared)() == pytest.approx(shared())
    assert shared() < 0.7
    good = Trust(shared)
    for _ in range(40):
        good.observe(tree(0.9 * good()), [1, 2])
    assert good() > shared()


def test_other_sources_neither_gain_nor_lose_it() -> None:
    trust = Trust()
    for _ in range(50):
        trust.observe(tree(0.9, NGRAM), [])
    assert trust() == 1.0
