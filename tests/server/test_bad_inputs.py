"""Bad requests: each an OpenAI-shaped 4xx that names the field, and the next request is fine."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server.app import create_app
from tests.server.stub import MODEL, StubClient, model_folder, server_config
from tests.server.wire import CHAT, COMPLETIONS, WEATHER, chat, completion, error_of

TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
BASES: dict[str, dict[str, Any]] = {
    CHAT: chat(),
    COMPLETIONS: completion(),
    TOKENIZE: {"prompt": "Hi"},
    DETOKENIZE: {"tokens": [1]},
}
BOTH = (CHAT, COMPLETIONS)
INF, NAN = float("inf"), float("nan")
LONE = "\ud800"

# Field -> values it may not have, wherever it is a field of chat and completions alike.
NUMBERS: dict[str, list[Any]] = {
    "temperature": [-0.1, 2.1, 1e9, NAN, INF, -INF, "1", True, [], {}, 10**400],
    "top_p": [0, -1, 1.1, NAN, "0.5", False, [1]],
    "top_k": [-2, 2**31, 2**63, 1.5, "5", NAN, True, {}],
    "min_p": [-0.1, 1.01, NAN, "0", [0]],
    "presence_penalty": [-2.1, 2.1, NAN, INF, "1", {}],
    "frequency_penalty": [-2.1, 2.1, -INF, "1", True],
    "repetition_penalty": [0, -1, 101, NAN, "1"],
    "n": [0, -1, 129, 10**9, 2**63, 1.5, "2", True, [1], NAN],
    "seed": [2**63, -(2**63) - 1, 1.5, "7", [7], INF, True, 10**300],
    "max_tokens": [-1, 2**31, 2**63, 1.5, "9", True, [9], NAN],
    "min_tokens": [-1, 2**31, 1.5, "3", False],
    "prompt_logprobs": [-1, 21, 10**6, 0.5, "1", True],
    "priority": [2**31, -(2**31) - 1, 1.5, "1"],
}
OTHERS: dict[str, list[Any]] = {
    "model": [5, None, ["m"], {}, True],
    "stream": ["true", 1, 0, [], "yes"],
    "stream_options": [True, "usage", [], {"include_usage": True}],
    "stop": ["", [""], ["a"] * 17, 5, [5], [None], {"a": 1}, "x" * 1025, ["x" * 1025], True],
    "stop_token_ids": [[-1], [258], [2**31], ["5"], [1.5], 5, [True], [0] * 65, "5"],
    "logit_bias": [
        *([], 5, "x", {"x": 1}, {"-1": 1}, {"258": 1}, {"1.5": 1}, {"9" * 5000: 1}, {"": 1}),
        *({"\u0665": 1}, {" 5": 1}),
    ],
    "include_stop_str_in_output": [1, "true", []],
    "skip_special_tokens": [0, "false", {}],
    "ignore_eos": [1, "no", [True]],
    "return_token_ids": [1, "yes"],
    "speculation": [True, "off", 5, []],
    "service_tier": ["scale", "fast", "", 5, ["flex"], "FLEX"],
    "cache_salt": ["", 5, "x" * 513, ["a"]],
    "user": [5, ["u"], {}],
    "metadata": [5, "x", [], {str(n): "" for n in range(17)}],
    "safety_identifier": [5, {}],
    "prompt_cache_key": [5, []],
    "store": ["yes", 1, []],
    "response_format": ["json", {}, {"type": "xml"}, [], {"type": "json_schema"}],
    "structured_outputs": [{}, True, "a", {"regex": "a", "choice": ["a"]}],
    "guided_json": [5, ["a"], True],
    "guided_regex": [5, ["a"], LONE],
    "guided_choice": ["a", [], {}],
    "guided_grammar": [5, {}],
    "json_schema": [5, [], LONE],
    "regex": [5, True],
    "ebnf": [5, []],
    "grammar": [{}, 5],
    "structural_tag": ["{}", {}],
    "bad_words": [["x"], "x"],
    "use_beam_search": [True, 1],
    "truncate_prompt_tokens": [5],
}


def user(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more}]


def part(**fields: Any) -> list[dict[str, Any]]:
    return user([fields])


IMAGE = {"url": "http://x/y.png"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def said(**message: Any) -> dict[str, Any]:
    return {"messages": [message]}


def calling(**call: Any) -> dict[str, Any]:
    return said(role="assistant", tool_calls=[{**CALL, **call}])


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": function}]}


# Route, fields, the field that the error names.
SINGLE: list[tuple[str, dict[str, Any], str]] = [
    *((CHAT, {"messages": value}, "messages") for value in ([], "Hi", 5, {}, None, True)),
    *((CHAT, {"messages": [value]}, "messages.0") for value in ("Hi", 5, None, [])),
    *(
        (CHAT, {"messages": user("a", role=role)}, "messages.0.role")
        for role in ("", "bot", "USER", "function", 5, None, ["user"])
    ),
    *(
        (CHAT, {"messages": user(content)}, "messages.0.content")
        for content in (None, 5, {}, True, [], 1.5)
    ),
    (CHAT, said(content="a"), "messages.0.role"),
    (CHAT, said(role="user"), "messages.0.content"),
    (CHAT, said(role="assistant"), "messages.0.content"),
    (CHAT, said(role="assistant", tool_calls=[]), "messages.0.content"),
    (CHAT, said(role="tool", content="a"), "messages.0.tool_call_id"),
    (CHAT, said(role="tool", content="a", tool_call_id=5), "messages.0.tool_call_id"),
    (CHAT, said(role="user", content="a", tool_calls=[CALL]), "messages.0.tool_calls"),
    (CHAT, said(role="user", content="a", name=5), "messages.0.name"),
    (CHAT, said(role="user", content="a", audio={"id": "1"}), "messages.0.audio"),
    (CHAT, said(role="assistant", content="a", refusal="no"), "messages.0.refusal"),
    (CHAT, said(role="assistant", content="a", function_call={}), "messages.0.function_call"),
    (CHAT, {"messages": user(LONE)}, "messages"),
    (CHAT, {"messages": user("a" + LONE + "b")}, "messages"),
    (CHAT, {"messages": user("a") * 4097}, "messages"),
    *(
        (CHAT, {"messages": part(type=kind, **{kind: IMAGE})}, "messages.0.content.0.type")
        for kind in ("image_url", "input_audio", "file", "video_url", "refusal", "")
    ),
    (CHAT, {"messages": part(type="text")}, "messages.0.content.0.text"),
    (CHAT, {"messages": part(type="text", text=5)}, "messages.0.content.0.text"),
    (CHAT, {"messages": part(type="text", text=None)}, "messages.0.content.0.text"),
    (CHAT, {"messages": part(type=5, text="a")}, "messages.0.content.0.type"),
    (CHAT, {"messages": part(text="a")}, "messages.0.content.0.type"),
    (CHAT, {"messages": user(["a"])}, "messages.0.content.0"),
    (CHAT, {"messages": user([None])}, "messages.0.content.0"),
    (CHAT, calling(id=5), "messages.0.tool_calls.0.id"),
    (CHAT, calling(type="x"), "messages.0.tool_calls.0.type"),
    (CHAT, calling(function={"name": "f"}), "messages.0.tool_calls.0.function.arguments"),
    (CHAT, calling(function={"arguments": ""}), "messages.0.tool_calls.0.function.name"),
    (
        CHAT,
        calling(function={"name": "f", "arguments": {}}),
        "messages.0.tool_calls.0.function.arguments",
    ),
    (CHAT, said(role="assistant", tool_calls=["f"]), "messages.0.tool_calls.0"),
    (CHAT, said(role="assistant", tool_calls="f"), "messages.0.tool_calls"),
    (CHAT, {"tools": "f"}, "tools"),
    (CHAT, {"tools": {}}, "tools"),
    (CHAT, {"tools": ["f"]}, "tools.0"),
    (CHAT, {"tools": [{}]}, "tools.0.type"),
    (CHAT, {"tools": [{"type": "web_search"}]}, "tools.0.type"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools.0.function"),
    (CHAT, {"tools": [WEATHER] * 129}, "tools"),
    (CHAT, tool(), "tools.0.function.name"),
    (CHAT, tool(name=""), "tools.0.function.name"),
    (CHAT, tool(name=5), "tools.0.function.name"),
    (CHAT, tool(name="f", parameters=[]), "tools.0.function.parameters"),
    (CHAT, tool(name="f", parameters="{}"), "tools.0.function.parameters"),
    (CHAT, tool(name="f", description=5), "tools.0.function.description"),
    (CHAT, tool(name="f", parameters={"a": NAN}), "tools.0.function.parameters.a"),
    (CHAT, tool(name="f", parameters={"a": [1, INF]}), "tools.0.function.parameters.a.1"),
    (CHAT, tool(name=LONE), "tools.0.function.name"),
    (CHAT, {"tool_choice": "any"}, "tool_choice"),
    (CHAT, {"tool_choice": 5}, "tool_choice"),
    (CHAT, {"tool_choice": "auto"}, "tool_choice"),
    (CHAT, {"logprobs": 1}, "logprobs"),
    (CHAT, {"logprobs": "true"}, "logprobs"),
    (CHAT, {"top_logprobs": 1}, "top_logprobs"),
    (CHAT, {"top_logprobs": 1, "logprobs": False}, "top_logprobs"),
    *(
        (CHAT, {"logprobs": True, "top_logprobs": value}, "top_logprobs")
        for value in (-1, 21, 10**6, 1.5, "5", True, NAN)
    ),
    *(
        (CHAT, {"max_completion_tokens": value}, "max_completion_tokens")
        for value in (0, -1, 2**31, 1.5, "5", True)
    ),
    (CHAT, {"max_tokens": 0}, "max_tokens"),
    (CHAT, {"max_tokens": 4, "min_tokens": 5}, "min_tokens"),
    (CHAT, {"prediction": "x"}, "prediction"),
    (CHAT, {"prediction": {"type": "content"}}, "prediction.content"),
    (CHAT, {"prediction": {"type": "x", "content": ""}}, "prediction.type"),
    (CHAT, {"prediction": {"type": "content", "content": 5}}, "prediction.content"),
    (CHAT, {"prediction": {"type": "content", "content": LONE}}, "prediction.content"),
    *(
        (CHAT, {"reasoning_effort": value}, "reasoning_effort")
        for value in ("low", "high", "much", 5, ["low"])
    ),
    *((CHAT, {"verbosity": value}, "verbosity") for value in ("low", "high", "loud", 5)),
    (CHAT, {"add_generation_prompt": "no"}, "add_generation_prompt"),
    (CHAT, {"continue_final_message": 1}, "continue_final_message"),
    (
        CHAT,
        {"continue_final_message": True, "add_generation_prompt": True},
        "add_generation_prompt",
    ),
    (
        CHAT,
        {"continue_final_message": True, **calling()},
        "continue_final_message",
    ),
    (CHAT, {"chat_template_kwargs": []}, "chat_template_kwargs"),
    (CHAT, {"chat_template_kwargs": "x"}, "chat_template_kwargs"),
    (CHAT, {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
    (CHAT, {"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
    (CHAT, {"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs.self"),
    (CHAT, {"chat_template_kwargs": {"eos_token": ""}}, "chat_template_kwargs.eos_token"),
    (
        CHAT,
        {"chat_template_kwargs": {"raise_exception": 1}},
        "chat_template_kwargs.raise_exception",
    ),
    (CHAT, {"chat_template_kwargs": {"unheard": 1}}, "chat_template_kwargs.unheard"),
    *(
        (CHAT, {name: value}, name)
        for name, value in {
            "audio": {"voice": "x"},
            "modalities": ["text", "audio"],
            "functions": [],
            "function_call": "auto",
            "web_search_options": {},
            "chat_template": "{{ 1 }}",
            "documents": [],
            "best_of": 2,
            "echo": True,
        }.items()
    ),
    *(
        (CHAT, {"speculation": {name: value}}, f"speculation.{name}")
        for name in ("enabled", "bita", "ngram", "prediction", "grammar")
        for value in (1, "yes")
    ),
    (
        CHAT,
        {"stream": True, "stream_options": {"include_usage": 1}},
        "stream_options.include_usage",
    ),
    (
        CHAT,
        {"stream": True, "stream_options": {"continuous_usage_stats": "y"}},
        "stream_options.continuous_usage_stats",
    ),
    (
        CHAT,
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
    ),
    (CHAT, {"metadata": {"a": 5}}, "metadata.a"),
    (CHAT, {"metadata": {"a": "x" * 513}}, "metadata.a"),
    (CHAT, {"service_tier": "flex", "priority": 1}, "priority"),
    (CHAT, {"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
    (CHAT, {"logit_bias": {"5": 101}}, "logit_bias.5"),
    (CHAT, {"logit_bias": {"5": NAN}}, "logit_bias.5"),
    (CHAT, {"logit_bias": {"5": "1"}}, "logit_bias.5"),
    (CHAT, {"stop_token_ids": [5, -1]}, "stop_token_ids.1"),
    *(
        (COMPLETIONS, {"prompt": value}, "prompt")
        for value in ("", [], 5, None, {}, True, LONE, [258], [1] * 2 + [300])
    ),
    (COMPLETIONS, {"prompt": [[]]}, "prompt.0"),
    (COMPLETIONS, {"prompt": [[1], []]}, "prompt"),
    (COMPLETIONS, {"prompt": [""]}, "prompt"),
    (COMPLETIONS, {"prompt": ["a", ""]}, "prompt"),
    (COMPLETIONS, {"prompt": [[258]]}, "prompt"),
    *(
        (COMPLETIONS, {"prompt": value}, "prompt")
        for value in ([-1], [1.5], [2**31], [2**63], ["a", 1], [None], [[1], "a"], [["a"]], [True])
    ),
    (COMPLETIONS, {"prompt": ["a"] * 129}, "prompt"),
    (COMPLETIONS, {"prompt": ["a"] * 65, "n": 2}, "prompt"),
    (COMPLETIONS, {"prompt": ["a"] * 65, "best_of": 2}, "prompt"),
    *(
        (COMPLETIONS, {"logprobs": value}, "logprobs")
        for value in (-1, 21, 10**6, 2**63, 1.5, "1", True, [1], NAN)
    ),
    *(
        (COMPLETIONS, {"best_of": value}, "best_of")
        for value in (0, -1, 129, 10**9, 1.5, "2", True)
    ),
    (COMPLETIONS, {"best_of": 2, "n": 3}, "best_of"),
    (COMPLETIONS, {"best_of": 2, "stream": True}, "best_of"),
    (COMPLETIONS, {"echo": "yes"}, "echo"),
    (COMPLETIONS, {"echo": 1}, "echo"),
    (COMPLETIONS, {"suffix": "x"}, "suffix"),
    (COMPLETIONS, {"max_tokens": 0}, "max_tokens"),
    (COMPLETIONS, {"min_tokens": 17}, "min_tokens"),
    (COMPLETIONS, {"add_special_tokens": "no"}, "add_special_tokens"),
    (COMPLETIONS, {"prediction": {"type": "content", "content": "x"}}, "prediction"),
    (TOKENIZE, {"prompt": None}, "prompt"),
    (TOKENIZE, {"messages": user("a")}, "prompt"),
    (TOKENIZE, {"prompt": 5}, "prompt"),
    (TOKENIZE, {"prompt": ["a"]}, "prompt"),
    (TOKENIZE, {"prompt": LONE}, "prompt"),
    (TOKENIZE, {"prompt": None, "messages": []}, "messages"),
    (TOKENIZE, {"prompt": None, "messages": user(5)}, "messages.0.content"),
    (TOKENIZE, {"tools": [WEATHER]}, "tools"),
    (TOKENIZE, {"add_generation_prompt": True}, "add_generation_prompt"),
    (TOKENIZE, {"chat_template_kwargs": {}}, "chat_template_kwargs"),
    (TOKENIZE, {"add_special_tokens": 1}, "add_special_tokens"),
    (TOKENIZE, {"return_token_strs": "y"}, "return_token_strs"),
    (TOKENIZE, {"chat_template": "x"}, "chat_template"),
    (TOKENIZE, {"model": 5}, "model"),
    *((DETOKENIZE, {"tokens": value}, "tokens") for value in (None, 5, "x", {}, [258], [2**30])),
    *(
        (DETOKENIZE, {"tokens": [value]}, "tokens.0")
        for value in (-1, 2**31, 2**63, 1.5, "1", None, True, [])
    ),
    (DETOKENIZE, {"tokens": [1], "model": []}, "model"),
]
EVERYWHERE = [
    (route, {name: value}, name)
    for table in (NUMBERS, OTHERS)
    for name, values in table.items()
    for value in values
    for route in BOTH
]

TABLE: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
for _route, _fields, _param in (*SINGLE, *EVERYWHERE):
    TABLE[_route, _param].append(_fields)

GOOD = json.dumps(chat())
# A body as it is sent, and the code of the error.
RAW: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "missing_required_parameter"),
    "spaces": (b"  ", "invalid_json"),
    "half": (GOOD[:-1].encode(), "invalid_json"),
    "behind": (GOOD.encode() + b"x", "invalid_json"),
    "two": (GOOD.encode() * 2, "invalid_json"),
    "comma": (GOOD[:-1].encode() + b",}", "invalid_json"),
    "quotes": (GOOD.replace('"', "'").encode(), "invalid_json"),
    "comment": (b"// no\n" + GOOD.encode(), "invalid_json"),
    "null": (b"null", "invalid_type"),
    "number": (b"5", "invalid_type"),
    "text": (b'"x"', "invalid_type"),
    "list": (b"[1]", "invalid_type"),
    "nan": (b"NaN", "invalid_type"),
    "deep lists": (b"[" * 10**5, "invalid_json"),
    "deep whole": (b'{"model": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "invalid_json"),
    "deep objects": (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "invalid_json"),
    "a little deep": (b'{"model": ' + b"[" * 200 + b"]" * 200 + b"}", "invalid_json"),
    "many digits": (b'{"n": ' + b"9" * 5000 + b"}", "invalid_json"),
    "twice": (b'{"model": "a", "model": "b"}', "duplicate_key"),
    "twice inside": (GOOD[:-1].encode() + b', "metadata": {"a": "1", "a": "2"}}', "duplicate_key"),
    "utf-16": (GOOD.encode("utf-16"), "invalid_json"),
    "utf-32": (GOOD.encode("utf-32"), "invalid_json"),
    "latin-1": (json.dumps(chat(user="é"), ensure_ascii=False).encode("latin-1"), "invalid_json"),
    "cut character": (b'{"model": "\xe2\x82"}', "invalid_json"),
    "raw surrogate": (b'{"model": "\xed\xa0\x80"}', "invalid_json"),
    "raw control": (b'{"model": "a\nb"}', "invalid_json"),
    "raw nul": (b'{"model": "a\x00b"}', "invalid_json"),
    "only nul": (b"\x00" * 10, "invalid_json"),
    "form": (b"model=a&messages=b", "invalid_json"),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\x00" * 20, "invalid_json"),
}
TYPES = [
    *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *("application/xml", "text/json", "application/octet-stream", "json", "application/"),
]


@pytest.fixture(scope="module")
def client() -> StubClient:
    return StubClient()


@pytest.fixture(scope="module")
def app(client: StubClient, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder: Path = tmp_path_factory.mktemp("bad")
    return create_app(server_config(model_folder(folder), max_body_bytes=1 << 20), client)


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://server"
    ) as http:
        yield http


async def refused(http: httpx.AsyncClient, response: httpx.Response) -> dict[str, Any]:
    """The error of a response that must be one of the client's making; the next request is fine."""
    assert 400 <= response.status_code < 500, response.text
    error = error_of(response)
    assert (error["type"], bool(error["message"])) == ("invalid_request_error", True)
    assert len(response.content) < 10_000
    assert (await http.post(DETOKENIZE, json={"tokens": [1]})).status_code == 200
    return error


def label(value: Any) -> str:
    return re.sub(r"[^\w.]+", "-", ascii(value))[:60]


@pytest.mark.parametrize(("route", "param"), [*TABLE], ids=label)
async def test_a_bad_field_is_refused_by_name(
    http: httpx.AsyncClient, route: str, param: str
) -> None:
    headers = {"content-type": "application/json"}
    for fields in TABLE[route, param]:
        body = json.dumps({**BASES[route], **fields})
        response = await http.post(route, content=body, headers=headers)
        assert response.status_code == 400, label(fields)
        named = (await refused(http, response))["param"]
        assert f"{named}.".startswith(f"{param}."), label(fields)


@pytest.mark.parametrize("name", RAW)
async def test_a_body_that_is_no_request_is_refused(http: httpx.AsyncClient, name: str) -> None:
    body, code = RAW[name]
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert (await refused(http, response))["code"] == code


@pytest.mark.parametrize("kind", [*TYPES, None])
async def test_a_body_of_another_type_is_refused(http: httpx.AsyncClient, kind: str | None) -> None:
    """A page in a browser may send any of these to a server on the same machine, unasked."""
    headers = {} if kind is None else {"content-type": kind}
    response = await http.post(CHAT, content=GOOD, headers=headers)
    assert response.status_code == 415
    assert "application/json" in (await refused(http, response))["message"]


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"]
)
async def test_json_by_any_name_is_taken(http: httpx.AsyncClient, kind: str) -> None:
    headers = {"content-type": kind}
    response = await http.post(CHAT, content=b"\xef\xbb\xbf" + GOOD.encode(), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "fields",
    [{"stop": ["x" * 10**7]}, {"user": "x" * 10**7}, {"messages": user("x" * 10**7)}],
    ids=label,
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_refused_alike_however_it_comes(
    http: httpx.AsyncClient, fields: dict[str, Any], chunked: bool
) -> None:
    body = json.dumps(chat(**fields)).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    headers = {"content-type": "application/json"}
    content = pieces() if chunked else body
    response = await http.post(CHAT, content=content, headers=headers)
    assert response.status_code == 413
    assert (await refused(http, response))["code"] == "body_too_large"


@pytest.mark.parametrize("model", ["", "x", "\0", LONE, "../" + MODEL, MODEL.upper(), "x" * 10**5])
@pytest.mark.parametrize("route", BASES)
async def test_an_unknown_model_is_not_found(
    http: httpx.AsyncClient, route: str, model: str
) -> None:
    body = json.dumps({**BASES[route], "model": model})
    response = await http.post(route, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 404
    assert (await refused(http, response))["code"] == "model_not_found"


@pytest.mark.parametrize(
    "content",
    [
        "\0",
        "<|end|>",
        "<|begin|><|end|>",
        "<assistant>",
        "\u2402continue here ",
        "\u2028",
        "🙂" * 9,
    ],
    ids=label,
)
async def test_strange_text_is_text(http: httpx.AsyncClient, content: str) -> None:
    for route, body in ((CHAT, chat(messages=user(content))), (COMPLETIONS, completion())):
        body = body if route == CHAT else {**body, "prompt": content}
        assert (await http.post(route, json=body)).status_code == 200
    body = chat(messages=user(content + "x"), continue_final_message=True)
    assert (await http.post(CHAT, json=body)).status_code == 200


def test_the_table_is_long() -> None:
    assert len(SINGLE) + len(EVERYWHERE) + len(RAW) + len(TYPES) >= 300
