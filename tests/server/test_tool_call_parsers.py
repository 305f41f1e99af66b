"""Parsers of tool calls: every form, malformed ones, and text cut anywhere."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.pieces import CallArguments, CallEnded, CallStarted, Text
from server.tool_calls.families import FAMILIES, recognised
from tests.server.answers import divide, read
from tests.server.call_cases import (
    ARGUMENTS,
    CASES,
    CODER,
    FOUND,
    FUNCTIONS,
    HERMES,
    LLAMA,
    OBJECT,
    TAG,
)

FLAT = [(family, *case) for family, cases in CASES.items() for case in cases]


def test_every_family_has_cases() -> None:
    assert set(CASES) == set(FAMILIES)


@pytest.mark.parametrize(("family", "text", "expected"), FLAT)
def test_calls_and_text(family: str, text: str, expected: list[Any]) -> None:
    make = FAMILIES[family].parser
    assert read(make(FUNCTIONS), [text]) == expected
    assert read(make(FUNCTIONS), text) == expected


PARTS = (
    "a",
    "(",
    ")",
    "f(a=",
    " ",
    "\n",
    "{",
    "}",
    "[",
    "]",
    ";",
    ",",
    '"',
    "\\",
    "1",
    OBJECT,
    LLAMA,
    CODER,
    "<function=f>",
    "<parameter=place>",
    "<parameter=count>",
    "</parameter>",
    "</function>",
    ARGUMENTS,
)
MARKERS = (*(marker for family in FAMILIES.values() for marker in family.markers), "weather")


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(st.sampled_from([*PARTS, *MARKERS]), max_size=8).map("".join),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_where_the_text_is_cut_makes_no_difference(family: str, text: str, cuts: list[int]) -> None:
    make = FAMILIES[family].parser
    whole = read(make(FUNCTIONS), [text])
    assert read(make(FUNCTIONS), divide(text, cuts)) == whole
    for part in whole:
        if isinstance(part, tuple) and "broken" not in part:
            assert isinstance(json.loads(part[1]), dict)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(text=st.text('<>{}[]":, \\ane1|/tolc_py()', max_size=60))
def test_what_has_no_call_is_left_as_it_is(family: str, text: str) -> None:
    assert read(FAMILIES[family].parser(FUNCTIONS), [text]) == ([text] if text else [])


def test_arguments_come_as_soon_as_the_name_is_known() -> None:
    parser = FAMILIES["hermes"].parser({})
    assert parser.feed('Hi. <tool_call>{"name": "f", ') == [Text("Hi.")]
    started, *rest = parser.feed('"arguments": {"a": "b')
    assert isinstance(started, CallStarted)
    assert (started.index, started.name) == (0, "f")
    assert rest == [CallArguments(0, '{"a": "b')]
    assert parser.feed('c"') == [CallArguments(0, 'c"')]
    assert parser.feed("}") == [CallArguments(0, "}")]
    assert parser.feed("}") == [CallEnded(0, complete=True)]


def test_strings_between_tags_come_as_they_are_written() -> None:
    parser = FAMILIES["qwen3_coder"].parser(FUNCTIONS)
    assert parser.feed("Hi. <tool_call>\n<function=f>\n") == [Text("Hi.")]
    started, begun = parser.feed("<parameter=place>\nŁó")
    assert isinstance(started, CallStarted)
    assert begun == CallArguments(0, '{"place": "Łó')
    assert parser.feed('d"\n') == [CallArguments(0, 'd\\"')]
    assert parser.feed("</parameter>\n<parameter=count>1") == [CallArguments(0, '", "count": ')]
    assert parser.feed("2</parameter>\n") == [CallArguments(0, "12")]
    assert parser.feed("</function>\n") == [CallArguments(0, "}"), CallEnded(0, complete=True)]


def test_text_is_held_back_only_while_it_may_begin_a_call() -> None:
    parser = FAMILIES["hermes"].parser({})
    assert parser.feed("Hello <too") == [Text("Hello")]
    assert parser.feed("ls>") == [Text(" <tools>")]
    parser = FAMILIES["json"].parser({"f": {}})
    assert parser.feed('{"nam') == []
    assert parser.feed('es": ["a') == [Text('{"names": ["a')]


def test_only_the_first_call_is_kept_where_one_is_asked_for() -> None:
    text = f"{HERMES} and <tool_call>{OBJECT[:-2]}x</tool_call>{HERMES}"
    assert read(FAMILIES["hermes"].parser(FUNCTIONS, parallel=False), text) == [
        FOUND,
        "andx</tool_call>",
    ]


def test_ids_are_those_the_familys_templates_take() -> None:
    ids = [FAMILIES[name].new_id() for name in ("hermes", "mistral")]
    assert re.fullmatch(r"call_[0-9a-f]{24}", ids[0])
    assert re.fullmatch(r"[0-9a-zA-Z]{9}", ids[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_long_answers_take_time_in_proportion_to_their_length(family: str) -> None:
    """Every character is read once: these would take hours if any were read again and again."""
    size = 20_000
    for unit in (
        "[",
        " ",
        "<",
        '{"a":',
        '{"name":"f","arguments":{"a":[',
        "<tool_call>",
        TAG,
        "[f(a=",
        "<function=f><parameter=place>",
        "<function=f><parameter=count>\n</parameter>",
    ):
        text = unit * (size // len(unit))
        assert read(FAMILIES[family].parser(FUNCTIONS), [text])


@pytest.mark.parametrize(
    ("template", "vocabulary", "family"),
    [
        ("{{ tools }} <tool_call>", (), "hermes"),
        ("{{ tools }} <tool_call>\n<function=f>\n<parameter=p>", (), "qwen3_coder"),
        ("{{ tools }} [TOOL_CALLS]", (), "mistral"),
        ("{{ tools }} <|python_tag|>", (), "llama3"),
        ("{{ tools }}", ("<|python_tag|>",), "llama3"),
        ("{{ tools }} <tool_call>", ("<|python_tag|>",), "hermes"),
        ("{{ tools }}", (), "json"),
    ],
)
def test_the_template_tells_the_family_and_then_the_vocabulary(
    template: str, vocabulary: tuple[str, ...], family: str
) -> None:
    assert recognised(template, vocabulary.__contains__).name == family
