"""Every field of every request model is honoured, refused by name, or said to have no effect."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tokenizers import processors

from server.app import create_app
from server.schemas.base import Schema
from server.schemas.chat import ChatCompletionRequest
from server.schemas.common import NO_EFFECT
from server.schemas.completions import CompletionRequest
from server.schemas.tokens import DetokenizeRequest, TokenizeRequest
from server.warnings import HEADER
from tests.server.stub import ADAPTER, StubClient, model_folder, server_config
from tests.server.wire import CHAT, COMPLETIONS, WEATHER, chat, completion, error_of

ROUTES = {
    ChatCompletionRequest: (CHAT, chat()),
    CompletionRequest: (COMPLETIONS, completion()),
    TokenizeRequest: ("/tokenize", {"prompt": "Hi"}),
    DetokenizeRequest: ("/detokenize", {"tokens": [1, 2]}),
}
TEMPLATE = (
    "{#- calls are written <tool_call>{...}</tool_call> -#}"
    "{%- for m in messages -%}{{ m | tojson }}{%- endfor -%}{{ tools | tojson }}"
    "{{ enable_thinking }}{{ reasoning_effort }}{{ verbosity }}"
    "{%- if add_generation_prompt -%}<assistant>{%- endif -%}"
)
HI = [{"role": "user", "content": "Hi"}]
CALL: dict[str, Any] = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

# Field -> (value, what else the request has, with and without it). By class where it matters.
COMMON: dict[str, tuple[Any, dict[str, Any]]] = {
    "model": (ADAPTER, {}),
    "stream": (True, {}),
    "stream_options": ({"include_usage": True}, {"stream": True}),
    "n": (2, {}),
    "temperature": (0.5, {}),
    "top_p": (0.5, {}),
    "top_k": (5, {}),
    "min_p": (0.1, {}),
    "seed": (7, {}),
    "stop": ("x", {}),
    "stop_token_ids": ([5], {}),
    "include_stop_str_in_output": (True, {}),
    "skip_special_tokens": (False, {}),
    "presence_penalty": (1.0, {}),
    "frequency_penalty": (1.0, {}),
    "repetition_penalty": (1.5, {}),
    "logit_bias": ({"5": 1.0}, {}),
    "max_tokens": (9, {}),
    "min_tokens": (3, {}),
    "ignore_eos": (True, {}),
    "prompt_logprobs": (1, {}),
    "return_token_ids": (True, {}),
    "speculation": ({"enabled": False}, {}),
    "service_tier": ("flex", {}),
    "priority": (3, {}),
    "cache_salt": ("s", {}),
    "response_format": ({"type": "json_object"}, {}),
    "structured_outputs": ({"regex": "a"}, {}),
    "guided_json": ({"type": "object"}, {}),
    "guided_regex": ("a", {}),
    "guided_choice": (["a"], {}),
    "guided_grammar": ("start: /a/", {}),
    "json_schema": ({"type": "object"}, {}),
    "regex": ("a", {}),
    "ebnf": ('root ::= "a"', {}),
    "grammar": ('root ::= "a"', {}),
    "user": ("u", {}),
    "metadata": ({"a": "b"}, {}),
    "safety_identifier": ("s", {}),
    "prompt_cache_key": ("k", {}),
    "prompt_cache_retention": ("24h", {}),
}
CONVERSATION: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": ([{"role": "user", "content": "You"}], {}),
    "tools": ([WEATHER], {"messages": HI}),
    "add_generation_prompt": (False, {"messages": HI}),
    "continue_final_message": (True, {"messages": HI}),
    "chat_template_kwargs": ({"enable_thinking": True}, {"messages": HI}),
}
VALUES: dict[type[Schema], dict[str, tuple[Any, dict[str, Any]]]] = {
    ChatCompletionRequest: {
        **COMMON,
        **CONVERSATION,
        "max_completion_tokens": (5, {"max_tokens": 9}),
        "logprobs": (True, {}),
        "top_logprobs": (2, {"logprobs": True}),
        "prediction": ({"type": "content", "content": "Hello"}, {}),
        "reasoning_effort": ("low", {}),
        "verbosity": ("low", {}),
        "tool_choice": ("required", {"tools": [WEATHER]}),
        "parallel_tool_calls": (False, {"tools": [WEATHER]}),
        "store": (True, {}),
    },
    CompletionRequest: {
        **COMMON,
        "prompt": ("You", {}),
        "logprobs": (2, {}),
        "echo": (True, {}),
        "best_of": (3, {}),
        "add_special_tokens": (False, {}),
    },
    TokenizeRequest: {
        **{name: (value, {**more, "prompt": None}) for name, (value, more) in CONVERSATION.items()},
        "messages": ([{"role": "user", "content": "You"}], {"prompt": None, "messages": HI}),
        "model": ("none of ours", {}),
        "prompt": ("You", {}),
        "add_special_tokens": (False, {}),
        "return_token_strs": (True, {}),
    },
    DetokenizeRequest: {"model": ("none of ours", {}), "tokens": ([5], {})},
}
# What the model says where the field is about that.
SAYS = {"parallel_tool_calls": ['<tool_call>{"name": "f", "arguments": {}}</tool_call>'] * 2}
# Parts of a request: (class, field) -> the request's fields without it, and with it.
ASKED: dict[str, Any] = {"type": "function", "function": {"name": "f"}}


def said(**message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi", **message}]}


def asked(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **function}}]}


def called(**call: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "tool_calls": [{**CALL, **call}]}]}


def predicted(content: Any) -> dict[str, Any]:
    return {"prediction": {"type": "content", "content": content}}


def formatted(**fields: Any) -> dict[str, Any]:
    schema = {"name": "x", "schema": {"type": "object"}, **fields}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def formed(**how: Any) -> dict[str, Any]:
    return {"structured_outputs": how}


def chosen(name: str = "f", **fields: Any) -> dict[str, Any]:
    """Two functions, of which one must be called."""
    choice = {"type": "function", "function": {"name": name}, **fields}
    other = {"type": "function", "function": {"name": "g"}}
    return {"tools": [ASKED, other], "tool_choice": choice}


def drafts(**who: Any) -> dict[str, Any]:
    return {"speculation": who}


def counted(**how: Any) -> dict[str, Any]:
    return {"stream": True, "stream_options": how}


PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Message.role": (said(), said(role="system")),
    "Message.content": (said(), said(content=[{"type": "text", "text": "You"}])),
    "Message.name": (said(), said(name="Ann")),
    "Message.tool_calls": (
        said(role="assistant"),
        said(role="assistant", tool_calls=[CALL]),
    ),
    "Message.reasoning_content": (
        said(role="assistant"),
        said(role="assistant", reasoning_content="So."),
    ),
    "Message.reasoning": (said(role="assistant"), said(role="assistant", reasoning="So.")),
    "Message.tool_call_id": (
        said(role="tool", tool_call_id="1"),
        said(role="tool", tool_call_id="2"),
    ),
    "TextPart.type": (said(content=[{"type": "text", "text": "a"}]), said(content=[{"text": "a"}])),
    "TextPart.text": tuple(said(content=[{"type": "text", "text": t}]) for t in "ab"),  # type: ignore[dict-item]
    "ToolCallMessage.id": (called(), called(id="2")),
    "ToolCallMessage.type": (called(), called(type="x")),
    "ToolCallMessage.function": (called(), called(function={"name": "g", "arguments": "{}"})),
    "FunctionCall.name": (called(), called(function={"name": "g", "arguments": "{}"})),
    "FunctionCall.arguments": (called(), called(function={"name": "f", "arguments": '{"a": 1}'})),
    "Tool.type": ({"tools": [ASKED]}, {"tools": [{**ASKED, "type": "x"}]}),
    "Tool.function": (asked(), asked(name="g")),
    "Function.name": (asked(), asked(name="g")),
    "Function.description": (asked(), asked(description="d")),
    "Function.parameters": (asked(), asked(parameters={"type": "object"})),
    "Function.strict": (asked(), asked(strict=True)),
    "NamedTool.type": (chosen(), chosen(type="x")),
    "NamedTool.function": (chosen(), chosen("g")),
    "FunctionName.name": (chosen(), chosen("g")),
    "ResponseFormat.type": (
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
    ),
    "ResponseFormat.json_schema": (formatted(), formatted(schema={"type": "array"})),
    "JsonSchemaFormat.name": (formatted(), formatted(name="not a name")),
    "JsonSchemaFormat.json_schema": (formatted(), formatted(schema={"type": "array"})),
    "JsonSchemaFormat.strict": (formatted(), formatted(strict=True)),
    "StructuredOutputs.json_schema": (formed(json="{}"), formed(json={"type": "array"})),
    "StructuredOutputs.json_object": (formed(json="{}"), formed(json_object=True)),
    "StructuredOutputs.regex": (formed(regex="a"), formed(regex="b")),
    "StructuredOutputs.choice": (formed(choice=["a"]), formed(choice=["b"])),
    "StructuredOutputs.grammar": (formed(grammar="a"), formed(grammar="b")),
    "Prediction.type": (predicted("a"), {"prediction": {"type": "x", "content": "a"}}),
    "Prediction.content": (predicted("a"), predicted([{"type": "text", "text": "b"}])),
    "StreamOptions.include_usage": ({"stream": True}, counted(include_usage=True)),
    "StreamOptions.continuous_usage_stats": (
        {"stream": True},
        counted(continuous_usage_stats=True),
    ),
    "Speculation.enabled": ({}, drafts(enabled=False)),
    "Speculation.bita": ({}, drafts(bita=False)),
    "Speculation.ngram": ({}, drafts(ngram=False)),
    "Speculation.prediction": ({}, drafts(prediction=False)),
    "Speculation.grammar": ({}, drafts(grammar=False)),
    "Speculation.trace": ({}, drafts(trace=True)),
}
# What says nothing to the model, or what openai's own objects carry beside what they say.
SILENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Message.parsed": (said(role="assistant"), said(role="assistant", parsed={"a": 1})),
    "JsonSchemaFormat.description": (formatted(), formatted(description="d")),
    "ToolCallMessage.index": (called(), called(index=0)),
    "FunctionCall.parsed_arguments": (
        called(),
        called(function={**CALL["function"], "parsed_arguments": {}}),
    ),
}


@pytest.fixture(scope="module")
def client() -> StubClient:
    return StubClient()


@pytest.fixture(scope="module")
def app(client: StubClient, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """A server whose template and tokenizer show all that they are given."""
    model = model_folder(tmp_path_factory.mktemp("fields"))
    (model / "chat_template.jinja").write_text(TEMPLATE)
    client.tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 257)]
    )
    return create_app(server_config(model), client)


@pytest.fixture
async def fields_http(app: FastAPI, client: StubClient) -> AsyncIterator[httpx.AsyncClient]:
    client.requests.clear()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        yield http


async def observed(
    http: httpx.AsyncClient, client: StubClient, model: type[Schema], body: dict[str, Any]
) -> tuple[Any, ...]:
    """What the engine was asked, and what was answered, without what differs every time."""
    client.requests.clear()
    response = await http.post(ROUTES[model][0], json=body)
    asked = [dataclasses.replace(request, request_id="") for request in client.requests]
    text = response.text
    for request in client.requests:
        text = text.replace(request.request_id.rpartition("-")[0], "ID")
    noted = response.headers.get(HEADER)
    assert noted is None or not model.IGNORED.keys().isdisjoint(body)
    return response.status_code, asked, _without_time(text), noted


def _without_time(text: str) -> str:
    head, found, tail = text.partition('"created":')
    return head + tail.partition(",")[2] if found and "data: " not in text else text


EVERY_FIELD = [(model, name) for model in ROUTES for name in model.model_fields]


@pytest.mark.parametrize(
    ("model", "name"), EVERY_FIELD, ids=lambda v: v if isinstance(v, str) else v.__name__
)
async def test_a_field_changes_what_it_says_or_says_that_it_changes_nothing(
    fields_http: httpx.AsyncClient, client: StubClient, model: type[Schema], name: str
) -> None:
    value, more = VALUES[model][name]
    client.pieces = SAYS.get(name, StubClient.pieces)
    before = {**ROUTES[model][1], **more}
    one = await observed(fields_http, client, model, before)
    other = await observed(fields_http, client, model, {**before, name: value})
    if model.model_fields[name].description == NO_EFFECT:
        assert one == other
    else:
        assert one != other
    assert one[0] == 200 or (model, name) == (TokenizeRequest, "messages")


@pytest.mark.parametrize(
    ("model", "name"),
    [(m, n) for m, n in EVERY_FIELD if m in (ChatCompletionRequest, CompletionRequest)],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
async def test_a_stream_takes_it_or_refuses_it_by_name(
    fields_http: httpx.AsyncClient, client: StubClient, model: type[Schema], name: str
) -> None:
    value, more = VALUES[model][name]
    body = {**ROUTES[model][1], **more, name: value}
    response = await fields_http.post(ROUTES[model][0], json={**body, "stream": True})
    extra = model.model_fields[name].json_schema_extra or {}
    assert isinstance(extra, dict)
    if extra.get("x-streaming") is False:
        assert response.status_code == 400
        assert error_of(response)["param"] == name
        return
    assert response.status_code == 200
    streamed = [dataclasses.replace(r, request_id="") for r in client.requests]
    await fields_http.post(ROUTES[model][0], json={**body, "stream": None, "stream_options": None})
    whole = client.requests[len(streamed) :]
    assert streamed == [dataclasses.replace(r, request_id="") for r in whole]


@pytest.mark.parametrize("name", PARTS)
async def test_a_part_of_a_field_changes_something(
    fields_http: httpx.AsyncClient, client: StubClient, name: str
) -> None:
    without, with_it = PARTS[name]
    one = await observed(fields_http, client, ChatCompletionRequest, chat(**without))
    other = await observed(fields_http, client, ChatCompletionRequest, chat(**with_it))
    assert one[0] == 200
    assert one != other


@pytest.mark.parametrize("name", SILENT)
async def test_a_part_without_a_say_changes_nothing(
    fields_http: httpx.AsyncClient, client: StubClient, name: str
) -> None:
    without, with_it = SILENT[name]
    one = await observed(fields_http, client, ChatCompletionRequest, chat(**without))
    assert one == await observed(fields_http, client, ChatCompletionRequest, chat(**with_it))
    assert one[0] == 200


def test_every_part_is_tested() -> None:
    parts = {part for model in ROUTES for part in _parts_of(model)} - set(ROUTES)
    assert {f"{part.__name__}.{name}" for part in parts for name in part.model_fields} == {
        *PARTS,
        *SILENT,
    }


def _parts_of(model: type[Schema]) -> Iterator[type[Schema]]:
    for field in model.model_fields.values():
        for part in _schemas_in(field.annotation):
            yield part
            yield from _parts_of(part)


def _schemas_in(annotation: Any) -> Iterator[type[Schema]]:
    if isinstance(annotation, type) and issubclass(annotation, Schema):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _schemas_in(argument)


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in ROUTES for name in model.UNSUPPORTED],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
async def test_what_is_not_done_is_refused_by_name_unless_it_asks_for_nothing(
    fields_http: httpx.AsyncClient, model: type[Schema], name: str
) -> None:
    path, body = ROUTES[model]
    refused = await fields_http.post(path, json={**body, name: {"x": 1}})
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["param"]) == (
        *(400, "unsupported_parameter"),
        name,
    )
    for neutral in (None, *model.UNSUPPORTED[name]):
        taken = await fields_http.post(path, json={**body, name: neutral})
        assert taken.status_code == 200
        assert HEADER not in taken.headers


@pytest.mark.parametrize("model", ROUTES, ids=lambda m: m.__name__)
async def test_an_unknown_field_is_reported_in_a_header(
    fields_http: httpx.AsyncClient, model: type[Schema]
) -> None:
    path, body = ROUTES[model]
    response = await fields_http.post(path, json={**body, "colour": "red", 'x\r\n"': 1})
    assert response.status_code == 200
    assert response.headers[HEADER] == "fields ignored: colour, x???"


@pytest.mark.parametrize(("store", "warns"), [(True, True), (False, False), (None, False)])
async def test_a_chat_that_is_to_be_stored_is_told_that_it_is_not(
    fields_http: httpx.AsyncClient, store: bool | None, warns: bool
) -> None:
    """OpenAI's own first example asks for it."""
    response = await fields_http.post(CHAT, json=chat(store=store))
    assert response.status_code == 200
    assert response.headers.get(HEADER) == ("fields ignored: store" if warns else None)


async def test_unknown_parts_are_reported_and_not_shown_to_the_model(
    fields_http: httpx.AsyncClient, client: StubClient
) -> None:
    body = chat(messages=[{"role": "user", "content": "Hi", "mood": "SECRET"}], stream=True)
    response = await fields_http.post(CHAT, json={**body, "tools": [{**ASKED, "y": 1}]})
    assert response.headers[HEADER] == "fields ignored: messages.0.mood, tools.0.y"
    assert "SECRET" not in client.tokenizer.decode(client.requests[0].token_ids)


async def test_a_warning_has_its_bounds(fields_http: httpx.AsyncClient) -> None:
    body = chat(**{f"{'x' * 100}{n}": 1 for n in range(1000)})
    response = await fields_http.post(CHAT, json=body)
    assert response.status_code == 200
    assert len(response.headers[HEADER]) < 1200
    assert response.headers[HEADER].endswith(", ...")
