"""Every way to ask for a form reaches the engine as a grammar, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.errors import RequestError
from engine.request import Grammar
from server.schemas.structured import LENIENT
from server.warnings import HEADER
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL, StubClient
from tests.server.wire import CHAT, COMPLETIONS, WEATHER, chat, completion, error_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
STRICT = {"name": "x", "schema": SCHEMA, "strict": True}
ANY = {"type": "object"}
OTHER = {"type": "function", "function": {"name": "other"}}


def formatted(**fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {**STRICT, **fields}}}


def outputs(**fields: Any) -> dict[str, Any]:
    return {"structured_outputs": fields}


def given(grammar: Grammar) -> Any:
    """What was asked, without what says how exactly it is to be taken."""
    if grammar.kind not in ("json_schema", "choice"):
        return grammar.text
    value = json.loads(grammar.text)
    if isinstance(value, dict):
        value.pop("x-guidance", None)
    return value


@pytest.mark.parametrize(
    ("fields", "kind", "text", "field"),
    [
        (formatted(), "json_schema", SCHEMA, "response_format.json_schema.schema"),
        (formatted(strict=None), "json_schema", SCHEMA, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_object"}},
            "json_schema",
            ANY,
            "response_format.json_schema.schema",
        ),
        (outputs(json=SCHEMA), "json_schema", SCHEMA, "structured_outputs.json"),
        (outputs(json=json.dumps(SCHEMA)), "json_schema", SCHEMA, "structured_outputs.json"),
        (outputs(json_object=True), "json_schema", ANY, "structured_outputs.json_object"),
        (outputs(regex="a+"), "regex", "a+", "structured_outputs.regex"),
        (outputs(choice=["a", "b"]), "choice", ["a", "b"], "structured_outputs.choice"),
        (outputs(grammar="root ::= a"), "ebnf", "root ::= a", "structured_outputs.grammar"),
        ({"guided_json": SCHEMA}, "json_schema", SCHEMA, "guided_json"),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", SCHEMA, "guided_json"),
        ({"guided_regex": "a+"}, "regex", "a+", "guided_regex"),
        ({"guided_choice": ["a"]}, "choice", ["a"], "guided_choice"),
        ({"guided_grammar": "root ::= a"}, "ebnf", "root ::= a", "guided_grammar"),
        ({"json_schema": SCHEMA}, "json_schema", SCHEMA, "json_schema"),
        ({"json_schema": json.dumps(SCHEMA)}, "json_schema", SCHEMA, "json_schema"),
        ({"regex": "a+"}, "regex", "a+", "regex"),
        ({"ebnf": "root ::= a"}, "ebnf", "root ::= a", "ebnf"),
        ({"grammar": "root ::= a"}, "ebnf", "root ::= a", "grammar"),
    ],
)
async def test_the_form_reaches_the_engine(
    http: httpx.AsyncClient,
    client: StubClient,
    fields: dict[str, Any],
    kind: str,
    text: Any,
    field: str,
) -> None:
    assert (await http.post(CHAT, json=chat(**fields, n=2))).status_code == 200
    assert (await http.post(COMPLETIONS, json=completion(**fields))).status_code == 200
    assert len(client.requests) == 3
    for request in client.requests:
        assert request.grammar is not None
        assert (request.grammar.kind, given(request.grammar)) == (kind, text)
        assert request.grammar.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": {"type": "text"}},
        {"response_format": None, "structured_outputs": None, "guided_json": None},
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "parallel_tool_calls": True},
        {"tools": [WEATHER], "tool_choice": "none", "parallel_tool_calls": False},
        {"regex": None, "json_schema": None, "ebnf": None, "grammar": None},
    ],
)
async def test_what_asks_for_no_form_has_no_grammar(
    http: httpx.AsyncClient, client: StubClient, fields: dict[str, Any]
) -> None:
    assert (await http.post(CHAT, json=chat(**fields))).status_code == 200
    assert client.requests[0].grammar is None


@pytest.mark.parametrize(("strict", "options"), [(True, {}), (False, LENIENT), (None, LENIENT)])
async def test_only_a_strict_schema_is_kept_to_the_letter(
    http: httpx.AsyncClient, client: StubClient, strict: bool | None, options: dict[str, Any]
) -> None:
    assert (await http.post(CHAT, json=chat(**formatted(strict=strict)))).status_code == 200
    assert client.requests[0].grammar is not None
    assert json.loads(client.requests[0].grammar.text)["x-guidance"] == options


FORCED = {"tools": [WEATHER], "tool_choice": "required"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "text", "json_schema": STRICT}},
            "response_format.json_schema",
        ),
        (formatted(name=None), "response_format.json_schema.name"),
        (formatted(name="a b"), "response_format.json_schema.name"),
        (formatted(name="a" * 65), "response_format.json_schema.name"),
        (formatted(schema=None), "response_format.json_schema.schema"),
        (formatted(schema=[]), "response_format.json_schema.schema"),
        (outputs(), "structured_outputs"),
        (outputs(regex="a", choice=["a"]), "structured_outputs"),
        (outputs(json_object=False), "structured_outputs"),
        (outputs(structural_tag="{}"), "structured_outputs.structural_tag"),
        (outputs(whitespace_pattern=" "), "structured_outputs.whitespace_pattern"),
        (outputs(choice=[]), "structured_outputs.choice"),
        (outputs(choice=[""]), "structured_outputs.choice.0"),
        (outputs(regex="\ud800"), "structured_outputs.regex"),
        ({"guided_regex": 5}, "guided_regex"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({**formatted(), **outputs(regex="a")}, "structured_outputs"),
        ({**formatted(), "guided_regex": "a"}, "guided_regex"),
        ({"guided_json": SCHEMA, "guided_regex": "a"}, "guided_regex"),
        ({**FORCED, **formatted()}, "response_format"),
        ({**FORCED, "guided_regex": "a"}, "guided_regex"),
        ({"tools": [WEATHER], **outputs(regex="a")}, "structured_outputs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": OTHER}, "tool_choice"),
        ({"tool_choice": OTHER, "tools": [WEATHER]}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "function"}, "tools": [WEATHER]}, "tool_choice.function"),
        ({"tool_choice": "always", "tools": [WEATHER]}, "tool_choice"),
    ],
)
async def test_what_cannot_be_asked_is_named(
    http: httpx.AsyncClient, client: StubClient, fields: dict[str, Any], param: str
) -> None:
    body = json.dumps(chat(**fields))
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert error_of(response)["param"] == param
    assert not client.requests


async def test_what_the_engine_finds_wrong_is_the_requests_400(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces, client.error = [], RequestError("Invalid 'guided_regex': no", "guided_regex")
    response = await http.post(CHAT, json=chat(guided_regex="("))
    assert response.status_code == 400
    assert error_of(response)["param"] == "guided_regex"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "a"}}])
async def test_a_forced_call_is_a_grammar_and_ends_as_a_call(
    http: httpx.AsyncClient, client: StubClient, choice: Any
) -> None:
    client.pieces = ['<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>']
    tool = {"type": "function", "function": {"name": "a", "strict": True}}
    response = await http.post(CHAT, json=chat(tools=[tool], tool_choice=choice))
    answer = response.json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] is None
    assert answer["message"]["tool_calls"][0]["function"] == {"name": "a", "arguments": "{}"}
    grammar = client.requests[0].grammar
    assert grammar is not None
    assert (grammar.kind, grammar.field) == ("lark", "tools")
    # How strictly a call is kept is nothing for the model to read.
    assert "strict" not in client.tokenizer.decode(client.requests[0].token_ids)


async def test_an_unknown_part_of_a_form_is_reported_by_the_name_it_was_given(
    http: httpx.AsyncClient,
) -> None:
    response = await http.post(CHAT, json=chat(**formatted(colour=1)))
    assert response.status_code == 200
    assert response.headers[HEADER].endswith(": response_format.json_schema.colour")


DEMANDS: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
    (formatted(), "response_format"),
    ({"tools": [WEATHER, {"type": "function", "function": {"name": "f", "strict": True}}]}, ""),
]


@pytest.mark.parametrize(
    ("family", "held_to"),
    [("pythonic", 0), ("none", 0), ("json", 2), ("llama3", 2), ("mistral", 4)],
)
async def test_calls_of_a_form_without_a_grammar_cannot_be_demanded(
    make_http: MakeHttp, client: StubClient, family: str, held_to: int
) -> None:
    http = make_http(tool_call_parser=family)
    for number, (fields, param) in enumerate(DEMANDS):
        response = await http.post(CHAT, json=chat(**{"tools": [WEATHER], **fields}))
        if number < held_to:
            assert client.requests[-1].grammar is not None
            continue
        error = error_of(response)
        assert (error["code"], error["param"]) == (
            "unsupported_parameter",
            param or "tools.1.function.strict",
        )
    # All but the first are dropped where they are read.
    more = chat(tools=[WEATHER], parallel_tool_calls=False)
    assert (await http.post(CHAT, json=more)).status_code == 200


async def test_an_answer_of_a_given_form_is_no_reasoning(
    make_http: MakeHttp, client: StubClient, tmp_path: Path
) -> None:
    (tmp_path / MODEL / "chat_template.jinja").write_text(
        "{{ messages[0].content }}</think><think>"
    )
    client.pieces = ["{}"]
    http = make_http()
    for fields, said in (({}, None), (formatted(), "{}")):
        message = (await http.post(CHAT, json=chat(**fields))).json()["choices"][0]["message"]
        assert (message["content"] or None) == said


async def test_other_apis_ask_for_forms_in_their_own_words(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    form = {"text": {"format": {"type": "json_schema", **STRICT}}}
    body = {"model": MODEL, "input": "Hi", **form}
    assert (await http.post("/v1/responses", json=body)).status_code == 200
    tool = {"name": "weather", "input_schema": SCHEMA}
    call = {"tools": [tool], "tool_choice": {"type": "any"}}
    turns = [{"role": "user", "content": "Hi"}]
    asked = {"model": MODEL, "max_tokens": 9, "messages": turns, **call}
    assert (await http.post("/v1/messages", json=asked)).status_code == 200
    kinds = [request.grammar.kind for request in client.requests if request.grammar is not None]
    assert kinds == ["json_schema", "lark"]
    field = "response_format.json_schema.schema"
    client.pieces, client.error = [], RequestError(f"Invalid '{field}': no", field)
    error = error_of(await http.post("/v1/responses", json=body))
    assert (error["param"], error["message"]) == (
        "text.format.schema",
        "Invalid 'text.format.schema': no",
    )
