"""JsonValue takes what RFC 8259 allows, character by character."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.tool_calls.json_value import JsonValue

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def taken(text: str) -> tuple[int, bool]:
    """How many characters are taken, and whether they are a whole value."""
    value = JsonValue()
    for count, char in enumerate(text):
        if not value.take(char):
            return count, value.complete
    return len(text), value.complete


@settings(max_examples=30, deadline=None)
@given(value=values, indent=st.sampled_from([None, 1]), escape=st.booleans())
def test_it_takes_json(value: object, indent: int | None, escape: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escape, allow_nan=True)
    if "Infinity" not in text:
        assert taken(text) == (len(text), True)
        assert taken(text + "\x00") == (len(text), True)


@settings(max_examples=300, deadline=None)
@given(text=st.text('{}[]",:\\u0e1.-+tfn \n', max_size=8))
def test_it_takes_nothing_else(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        assert taken(text) != (len(text), True)
    else:
        assert taken(text.strip()) == (len(text.strip()), True)


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "1.", "01", "-", "1e", '"\x1f"', "[1,]", "{,}"]
)
def test_what_is_no_json_is_not_complete(text: str) -> None:
    assert taken(text) != (len(text), True)


def test_depth_is_no_recursion() -> None:
    assert taken("[" * 100_000 + "]" * 100_000) == (200_000, True)
