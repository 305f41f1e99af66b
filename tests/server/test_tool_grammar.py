"""Which answers the grammar of tool calls lets through, on the embedded model's own tokens."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from engine.grammar.compiler import GrammarCompiler
from engine.request import Grammar
from models import DEFAULT_MODEL
from server.pieces import CallStarted, Text
from server.schemas.chat import ChatCompletionRequest
from server.tool_calls.families import FAMILIES
from server.tool_calls.grammar import FORMATS, tool_grammar

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/City"}, "n": {"type": "integer"}},
    "required": ["city", "n"],
    "additionalProperties": False,
    "$defs": {"City": {"type": "string", "minLength": 1}},
}
NAMED = {"type": "function", "function": {"name": "now"}}
ANSWER = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
    },
}
ONE = {"parallel_tool_calls": False}


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


BOOK, NOW = call("book", '{"city": "Rome", "n": 3}'), call("now", "{}")
WRONG = call("book", '{"city": 3}')


@cache
def compiler() -> GrammarCompiler:
    return GrammarCompiler(DEFAULT_MODEL, 4096, (2,))


def grammar(
    strict: bool | None = None,
    family: str = "hermes",
    special: dict[str, int] | None = None,
    **fields: Any,
) -> Grammar | None:
    function = {"name": "book", "parameters": PARAMETERS, "strict": strict}
    tools = [{"type": "function", "function": f} for f in (function, {"name": "now"})]
    messages = [{"role": "user", "content": "?"}]
    body = {"model": "m", "messages": messages, "tools": tools, **fields}
    return tool_grammar(ChatCompletionRequest.model_validate(body), FORMATS[family], special or {})


def lets_through(wanted: Grammar | None, text: str, special: dict[str, int] | None = None) -> bool:
    assert wanted is not None
    matcher = compiler().compile(wanted)._matcher
    tokens: list[int] = []
    for part in (
        re.split("(" + "|".join(map(re.escape, special)) + ")", text) if special else [text]
    ):
        number = (special or {}).get(part)
        tokens += compiler()._of_tokens(wanted).tokenize_str(part) if number is None else [number]
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        (
            {"tool_choice": "required"},
            [BOOK, NOW, f"{BOOK}\n{NOW}"],
            ["", "hi", f"hi {BOOK}", WRONG, call("other", "{}"), BOOK[:-1]],
        ),
        ({"tool_choice": "required", **ONE}, [BOOK, NOW], [f"{BOOK}\n{NOW}", "hi"]),
        ({"tool_choice": NAMED}, [NOW], [BOOK, f"{NOW}\n{NOW}", call("now", '{"a": 1}')]),
        (
            {"strict": True},
            ["", "hi", BOOK, f"Well.\n{BOOK}", f"a <tool b {NOW} and\n{BOOK} c"],
            [WRONG, f"hi {WRONG}", f"{BOOK}\n{WRONG}", "<tool_call>"],
        ),
        (ONE, ["", "hi", BOOK, f"Well. {BOOK}"], [f"{BOOK}\n{NOW}", f"{BOOK} hi"]),
        ({"response_format": ANSWER}, ['{"a": 1}', BOOK, f"{BOOK}\n{NOW}"], ["hi", '{"a": 2}']),
        (
            {"response_format": ANSWER, **ONE},
            ['{"a": 1}', BOOK],
            [f"{BOOK}\n{NOW}", f'{BOOK}{{"a": 1}}'],
        ),
    ],
)
def test_an_answer_has_the_calls_it_may_have(
    fields: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    wanted = grammar(**fields)
    for text, fits in [(t, True) for t in good] + [(t, False) for t in bad]:
        assert lets_through(wanted, text) is fits, text


def plain(name: str, arguments: str, key: str = "arguments") -> str:
    return f'{{"name": "{name}", "{key}": {arguments}}}'


ROME = '{"city": "Rome", "n": 3}'
MARKER = {"[TOOL_CALLS]": 1}
FORMS: list[tuple[str, dict[str, int], list[str], list[str]]] = [
    (
        "json",
        {},
        [plain("book", ROME), f"{plain('book', ROME)}, {plain('now', '{}')}"],
        ["hi", plain("book", "{}"), plain("x", "{}"), f"{plain('now', '{}')} hi"],
    ),
    (
        "llama3",
        {},
        [
            plain("book", ROME, "parameters"),
            f"{plain('book', ROME, 'parameters')}; {plain('now', '{}', 'parameters')}",
        ],
        ["hi", plain("now", "{}"), plain("book", '{"n": 3}', "parameters")],
    ),
    *(
        (
            "mistral",
            special,
            [
                f"[TOOL_CALLS][{plain('book', ROME)}]",
                f"[TOOL_CALLS][{plain('book', ROME)}, {plain('now', '{}')}]",
            ],
            ["hi", f"[{plain('now', '{}')}]", f"[TOOL_CALLS][{plain('book', '{}')}]"],
        )
        for special in ({}, MARKER)
    ),
]


@pytest.mark.parametrize(("family", "special", "good", "bad"), FORMS)
def test_calls_are_in_the_form_that_is_read(
    family: str, special: dict[str, int], good: list[str], bad: list[str]
) -> None:
    wanted = grammar(family=family, special=special, tool_choice="required")
    one = grammar(family=family, special=special, tool_choice="required", **ONE)
    for text in [*good, *bad]:
        assert lets_through(wanted, text, special) is (text in good), text
    assert [lets_through(one, text, special) for text in good] == [True, False]
    for number, text in enumerate(good, start=1):
        parser = FAMILIES[family].parser({"book": {}, "now": {}})
        pieces = parser.feed(text) + parser.finish()
        assert sum(isinstance(piece, CallStarted) for piece in pieces) == number
        assert not any(isinstance(piece, Text) for piece in pieces)


@pytest.mark.parametrize("special", [{}, MARKER], ids=["text", "token"])
def test_a_strict_function_among_text_is_held_to_its_schema(special: dict[str, int]) -> None:
    wanted = grammar(strict=True, family="mistral", special=special)
    call = f"Well. [TOOL_CALLS][{plain('book', ROME)}]"
    for text in ("", "hi [no call]", call, f"{call} and {call} so"):
        assert lets_through(wanted, text, special), text
    for text in ("[TOOL_CALLS]", f"hi [TOOL_CALLS][{plain('book', '{}')}]", f"{call}{call[:-1]}"):
        assert not lets_through(wanted, text, special), text


def test_a_model_that_may_call_as_it_likes_has_no_grammar() -> None:
    assert grammar() is None
    assert grammar(parallel_tool_calls=True, tool_choice="auto") is None
    assert grammar(strict=True, tool_choice="none") is None
    assert grammar(parallel_tool_calls=False, ignore_eos=True) is None


def test_a_name_or_a_schema_cannot_break_out_of_the_grammar() -> None:
    function = {"name": 'a"\n%json {}', "parameters": {"type": "object", "title": '"\n::= %x'}}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "?"}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
    }
    wanted = tool_grammar(ChatCompletionRequest.model_validate(body), FORMATS["hermes"], {})
    assert wanted is not None
    compiler().compile(wanted)
