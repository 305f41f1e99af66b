"""Which replica a prompt goes to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.cluster.prefixes import CHUNK, MAX_CHUNKS, PrefixIndex, hashes_of

LONG = "I need a table for four tonight. " * 10
RULES: dict[str, Any] = {"min_match": 0.3, "max_imbalance": 4}


def asked(*said: str, **fields: Any) -> tuple[bytes, ...]:
    messages = [{"role": "user", "content": text} for text in said]
    return hashes_of(json.dumps({"messages": messages, **fields}).encode())


def test_prompts_share_hashes_as_far_as_they_are_equal() -> None:
    first, later = asked(LONG), asked(LONG, "And then?" * 20)
    assert len(later) > len(first) > 3
    assert later[: len(first)] == first
    other = asked(LONG[: 2 * CHUNK] + "x" * 500)
    shared = [a == b for a, b in zip(first, other, strict=False)]
    assert shared[0]
    assert not shared[-1]


def test_what_is_not_the_prompt_is_no_part_of_it() -> None:
    assert asked(LONG) == asked(LONG, model="fast", temperature=0.3, seed=4)


@pytest.mark.parametrize(
    "fields", [{"cache_salt": "a"}, {"tools": [{"type": "function"}]}, {"system": "Be kind."}]
)
def test_what_goes_before_it_is(fields: dict[str, Any]) -> None:
    assert not set(asked(LONG)) & set(asked(LONG, **fields))


@pytest.mark.parametrize("name", ["prompt", "input"])
def test_texts_and_token_ids_are_prompts_too(name: str) -> None:
    for value in (LONG, [5] * 300):
        assert len(hashes_of(json.dumps({name: value}).encode())) > 3


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[1]", b'"x"', b"{}", b'{"messages": null}', b'{"messages": []}', b"\xff"),
        *(b"[" * 100_000, b'{"prompt": "\\ud800"}', b'{"messages": 7}'),
    ],
)
def test_nonsense_has_none(body: bytes) -> None:
    assert hashes_of(body) == ()


def test_only_the_beginning_of_a_long_prompt_counts() -> None:
    assert len(asked("x" * CHUNK * MAX_CHUNKS * 2)) == MAX_CHUNKS


def test_a_conversation_goes_where_it_was() -> None:
    index: PrefixIndex[str] = PrefixIndex()
    index.add(asked(LONG), "b")
    assert index.ranked(asked(LONG, "more"), {"a": 0, "b": 3, "c": 0}, **RULES)[0] == "b"


def test_not_where_others_are_much_less_busy() -> None:
    index: PrefixIndex[str] = PrefixIndex()
    index.add(asked(LONG), "b")
    assert index.ranked(asked(LONG), {"a": 0, "b": 4}, **RULES) == ["b", "a"]
    assert index.ranked(asked(LONG), {"a": 0, "b": 5}, **RULES) == ["a", "b"]


def test_a_short_match_is_none() -> None:
    index: PrefixIndex[str] = PrefixIndex()
    index.add(asked(LONG[:100]), "b")
    assert index.ranked(asked(LONG[:100] + "z" * 2000), {"a": 0, "b": 1}, **RULES) == ["a", "b"]


def test_the_replica_with_the_longer_match_goes_before() -> None:
    index: PrefixIndex[str] = PrefixIndex()
    index.add(asked(LONG), "a")
    index.add(asked(LONG, LONG), "b")
    assert index.ranked(asked(LONG, LONG, "?"), {"a": 0, "b": 1}, **RULES) == ["b", "a"]


def test_new_prompts_spread() -> None:
    index: PrefixIndex[str] = PrefixIndex()
    sent = []
    for user in range(4):
        hashes = asked(f"{user} {LONG}")
        sent.append(index.ranked(hashes, {"a": 0, "b": 0}, **RULES)[0])
        index.add(hashes, sent[-1])
    assert sorted(sent) == ["a", "a", "b", "b"]


def test_what_is_gone_is_forgotten_and_the_index_bounded() -> None:
    index: PrefixIndex[str] = PrefixIndex(capacity=len(asked(LONG)))
    index.add(asked(LONG), "a")
    index.forget("a")
    assert index.matches(asked(LONG), ["a", "b"]) == {}
    index.add(asked(LONG), "b")
    index.add(asked("another " + LONG), "b")
    assert index.matches(asked(LONG), ["b"]) == {}
