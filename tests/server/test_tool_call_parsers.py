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
from tests.server.answers import Said, divide, read

NAMES = ("weather", "f")
ARGUMENTS = '{"place": "Łódź", "days": [1, -2.5e3]}'
OBJECT = f'{{"name": "weather", "arguments": {ARGUMENTS}}}'
LLAMA = f'{{"name": "weather", "parameters": {ARGUMENTS}}}'
FOUND = ("weather", ARGUMENTS)
HERMES = f"<tool_call>\n{OBJECT}\n</tool_call>"
TAG = "<|python_tag|>"


def hermes(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


CASES: dict[str, list[tuple[str, Said]]] = {
    "hermes": [
        ("a < b <tool> \n", ["a < b <tool> \n"]),
        (HERMES, [FOUND]),
        (f"Let me see.\n{HERMES}\n", ["Let me see.", FOUND]),
        (f"{HERMES}\n{HERMES}", [FOUND, FOUND]),
        (f"<tool_call>{OBJECT}<tool_call>{OBJECT}", [FOUND, FOUND]),
        (f"{HERMES}\n\nThere.\n", [FOUND, "There.\n"]),
        ("<<tool_call>x", ["<<tool_call>x"]),
        ("a </tool_call> b", ["a </tool_call> b"]),
        # No call: the text as it was.
        ("a <tool_call>{</tool_call> b", ["a <tool_call>{</tool_call> b"]),
        ("a <tool_call> {} </tool_call> b", ["a <tool_call> {} </tool_call> b"]),
        (hermes('{"x": 1}'), [hermes('{"x": 1}')]),
        (hermes('{"name": ""}'), [hermes('{"name": ""}')]),
        (hermes('{"name": "\\ud800"}'), [hermes('{"name": "\\ud800"}')]),
        (hermes('{"name": "f", "arguments": [1]}'), [hermes('{"name": "f", "arguments": [1]}')]),
        (hermes('{"name": "f", "arguments": "x"}'), [hermes('{"name": "f", "arguments": "x"}')]),
        (f"<tool_call>x{HERMES}", ["<tool_call>x", FOUND]),
        (f'<tool_call>{{"name": "wea\n{HERMES}', ['<tool_call>{"name": "wea', FOUND]),
        ('<tool_call>{"name": "wea', ['<tool_call>{"name": "wea']),
        ("<tool_call>", ["<tool_call>"]),
        # A call that lacks something.
        (f"<tool_call>{OBJECT}", [FOUND]),
        (f"<tool_call>{OBJECT[:-1]}</tool_call>", [FOUND]),
        (f"<tool_call>{OBJECT[:-1]}", [FOUND]),
        (f"<tool_call>{OBJECT}}}</tool_call>", [FOUND, "}</tool_call>"]),
        (f"<tool_call>{OBJECT[:40]}", [("weather", ARGUMENTS[: 40 - 33], "broken")]),
        (
            hermes('{"name": "f", "arguments": {"a": x}}') + " b",
            [("f", '{"a": ', "broken"), "x}}</tool_call> b"],
        ),
        (hermes('{"name": "f"}'), [("f", "{}")]),
        (hermes('{"name": "f", "arguments": ""}'), [("f", "{}")]),
        # Other keys, another order, arguments as text.
        (hermes('{"id": 1, "name": "f", "arguments": {}, "x": [{}]}'), [("f", "{}")]),
        (hermes(f'{{"arguments": {ARGUMENTS}, "name": "weather"}}'), [FOUND]),
        (hermes('{"name": "f", "arguments": "{\\"a\\": 1}"}'), [("f", '{"a": 1}')]),
        (
            hermes('{"name": "f", "arguments": {}, "name": "g"}'),
            [("f", "{}"), ', "name": "g"}</tool_call>'],
        ),
    ],
    "llama3": [
        (LLAMA, [FOUND]),
        (f"\n {LLAMA} \n", [FOUND]),
        (f"{LLAMA}; {LLAMA};{LLAMA}", [FOUND, FOUND, FOUND]),
        (f"{LLAMA}\n{LLAMA}", [FOUND, FOUND]),
        (f"{TAG}{LLAMA}", [FOUND]),
        (f"One moment. {TAG} {LLAMA}; {LLAMA}", ["One moment.", FOUND, FOUND]),
        (f'{{"type": "function", {LLAMA[1:]}', [FOUND]),
        (f"{LLAMA}; then text", [FOUND, "; then text"]),
        (f"{TAG}print(1)", [f"{TAG}print(1)"]),
        (f"Like this: {LLAMA}", [f"Like this: {LLAMA}"]),
        # Bare JSON is a call only if it says so in every respect.
        ('{"name": "Ann", "parameters": {}}', ['{"name": "Ann", "parameters": {}}']),
        ('{"name": "f", "age": 3}', ['{"name": "f", "age": 3}']),
        ('{"name": "f"}', ['{"name": "f"}']),
        ("[1, 2]", ["[1, 2]"]),
        ("[]", ["[]"]),
        ("{}", ["{}"]),
        (f'{TAG}{{"name": "Ann", "parameters": {{}}}}', [("Ann", "{}")]),
        (f"{LLAMA}; {{}}", [FOUND, "; {}"]),
    ],
    "mistral": [
        (f"[TOOL_CALLS][{OBJECT}]", [FOUND]),
        (f"[TOOL_CALLS] [{OBJECT}, {OBJECT}]", [FOUND, FOUND]),
        (f"Well. [TOOL_CALLS]{OBJECT}", ["Well.", FOUND]),
        (f"[TOOL_CALLS]weather{ARGUMENTS}", [FOUND]),
        (f"[TOOL_CALLS]weather{ARGUMENTS}[TOOL_CALLS]f{{}}", [FOUND, ("f", "{}")]),
        (f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}", [FOUND]),
        (f"[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS] {ARGUMENTS} ", [FOUND]),
        ("[TOOL_CALLS][]", ["[TOOL_CALLS][]"]),
        ("[TOOL_CALLS][1]", ["[TOOL_CALLS][1]"]),
        ("[TOOL_CALLS]f[ARG]{}", ["[TOOL_CALLS]f[ARG]{}"]),
        ("[TOOL_CALLS] {}", ["[TOOL_CALLS] {}"]),
        ("[TOOL_CALLS]f g", ["[TOOL_CALLS]f g"]),
        ("[TOOL_CALLS]{", ["[TOOL_CALLS]{"]),
        (f"[TOOL_CALLS][{OBJECT}, 3]", [FOUND, ", 3]"]),
        (f"[TOOL_CALLS][{OBJECT}", [FOUND]),
        ('[TOOL_CALLS]f{"a" 1}', [("f", '{"a" ', "broken"), "1}"]),
        ("[TOOL_CALL", ["[TOOL_CALL"]),
    ],
    "pythonic": [
        ('[weather(place="Łódź", days=[1, -2.5e3])]', [FOUND]),
        ("[f(), f(a=true, b=None,)]", [("f", "{}"), ("f", '{"a": true, "b": null}')]),
        (" [f(a={'k': (1,)})] \n", [("f", '{"a": {"k": [1]}}')]),
        ("[f(a='])\\'\\d')] so", [("f", '{"a": "])\'\\\\d"}'), "so"]),
        ("Yes. <|python_start|>[g.h(x=1)]<|python_end|>", ["Yes.", ("g.h", '{"x": 1}')]),
        ("[f(a=1), f(1)]", [("f", '{"a": 1}'), ", f(1)]"]),
        ("[f(a=1)", [("f", '{"a": 1}')]),
        ("a <|python_end|>", ["a <|python_end|>"]),
        *(
            (text, [text])
            for text in (
                "[g()]",
                "[f(1)]",
                "[f(**a)]",
                "[f(a=b)]",
                "[f(a=)]",
                "[f(a=1",
                "[f(a='\\",
                "[f(a='b\n')]",
                "[f(a=nan)]",
                "[f(a={1: 2})]",
                "[f(a=[1)]",
                "[f(a=1 2)]",
                "[f(a=(]))]",
                "[f, (1)]",
                "[1] says",
                "[]",
            )
        ),
    ],
    "json": [
        (OBJECT, [FOUND]),
        (LLAMA, [FOUND]),
        (f" [{OBJECT},\n {OBJECT}]", [FOUND, FOUND]),
        (f"{OBJECT}\n{OBJECT}", [FOUND, FOUND]),
        (f"[{OBJECT}] done", [FOUND, "done"]),
        ('{"place": "Łódź"}', ['{"place": "Łódź"}']),
        (f"No. {OBJECT}", [f"No. {OBJECT}"]),
        (f'{{"arguments": {ARGUMENTS}, "name": "weather"}}', [FOUND]),
        (f'{{"arguments": {ARGUMENTS}}}', [f'{{"arguments": {ARGUMENTS}}}']),
    ],
}
FLAT = [(family, *case) for family, cases in CASES.items() for case in cases]


def test_every_family_has_cases() -> None:
    assert set(CASES) == set(FAMILIES)


@pytest.mark.parametrize(("family", "text", "expected"), FLAT)
def test_calls_and_text(family: str, text: str, expected: list[Any]) -> None:
    make = FAMILIES[family].parser
    assert read(make(NAMES), [text]) == expected
    assert read(make(NAMES), text) == expected


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
    whole = read(make(NAMES), [text])
    assert read(make(NAMES), divide(text, cuts)) == whole
    for part in whole:
        if isinstance(part, tuple) and "broken" not in part:
            assert isinstance(json.loads(part[1]), dict)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(text=st.text('<>{}[]":, \\ane1|/tolc_py()', max_size=60))
def test_what_has_no_call_is_left_as_it_is(family: str, text: str) -> None:
    assert read(FAMILIES[family].parser(NAMES), [text]) == ([text] if text else [])


def test_arguments_come_as_soon_as_the_name_is_known() -> None:
    parser = FAMILIES["hermes"].parser()
    assert parser.feed('Hi. <tool_call>{"name": "f", ') == [Text("Hi.")]
    started, *rest = parser.feed('"arguments": {"a": "b')
    assert isinstance(started, CallStarted)
    assert (started.index, started.name) == (0, "f")
    assert rest == [CallArguments(0, '{"a": "b')]
    assert parser.feed('c"') == [CallArguments(0, 'c"')]
    assert parser.feed("}") == [CallArguments(0, "}")]
    assert parser.feed("}") == [CallEnded(0, complete=True)]


def test_text_is_held_back_only_while_it_may_begin_a_call() -> None:
    parser = FAMILIES["hermes"].parser()
    assert parser.feed("Hello <too") == [Text("Hello")]
    assert parser.feed("ls>") == [Text(" <tools>")]
    parser = FAMILIES["json"].parser(["f"])
    assert parser.feed('{"nam') == []
    assert parser.feed('es": ["a') == [Text('{"names": ["a')]


def test_only_the_first_call_is_kept_where_one_is_asked_for() -> None:
    text = f"{HERMES} and <tool_call>{OBJECT[:-2]}x</tool_call>{HERMES}"
    assert read(FAMILIES["hermes"].parser(NAMES, parallel=False), text) == [
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
    ):
        text = unit * (size // len(unit))
        assert read(FAMILIES[family].parser(NAMES), [text])


@pytest.mark.parametrize(
    ("template", "vocabulary", "family"),
    [
        ("{{ tools }} <tool_call>", (), "hermes"),
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
