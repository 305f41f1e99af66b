"""Tool calls over HTTP: worded as OpenAI's, whole and streamed, and read back as history."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.request import FinishReason
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL, StubClient
from tests.server.wire import CHAT, WEATHER, chat, chunks, error_of

CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Łódź"}}\n</tool_call>'


async def test_an_answer_of_calls_has_no_content(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = [CALL[:20], CALL[20:]]
    choice = (await http.post(CHAT, json=chat(tools=[WEATHER]))).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert re.fullmatch(r"call_[0-9a-f]{24}", call["id"])
    assert call["type"] == "function"
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"place": "Łódź"}


async def test_streamed_calls_are_numbered_and_named_once(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ["One", " moment. <tool", CALL[5:], *CALL]
    sent = chunks(await http.post(CHAT, json=chat(tools=[WEATHER], stream=True)))
    deltas = [chunk["choices"][0]["delta"] for chunk in sent]
    assert "".join(delta.get("content", "") for delta in deltas) == "One moment."
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    started = [call for call in calls if "id" in call]
    assert [call["index"] for call in started] == [0, 1]
    assert all(list(call) == ["index", "id", "type", "function"] for call in started)
    assert {call["function"]["name"] for call in started} == {"weather"}
    more = [call for call in calls if "id" not in call]
    assert all(list(call["function"]) == ["arguments"] for call in more)
    assert len(more) > len(started)
    for index in (0, 1):
        text = "".join(call["function"]["arguments"] for call in calls if call["index"] == index)
        assert text == '{"place": "Łódź"}'
    assert sent[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert deltas[-1] == {}


@pytest.mark.parametrize("fields", [{}, {"tools": [WEATHER], "tool_choice": "none"}])
async def test_without_tools_markers_are_text(
    http: httpx.AsyncClient, client: StubClient, fields: dict[str, Any]
) -> None:
    client.pieces = [CALL]
    choice = (await http.post(CHAT, json=chat(**fields))).json()["choices"][0]
    assert choice["message"]["content"] == CALL
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"
    assert "<tools>" not in client.tokenizer.decode(client.requests[0].token_ids)


async def test_a_parser_may_be_chosen_or_none(make_http: MakeHttp, client: StubClient) -> None:
    client.pieces = ['[TOOL_CALLS]weather{"place": "here"}']
    for name, num_calls in (("mistral", 1), ("none", 0), ("auto", 0)):
        http = make_http(tool_call_parser=name)
        choice = (await http.post(CHAT, json=chat(tools=[WEATHER]))).json()["choices"][0]
        assert len(choice["message"].get("tool_calls", ())) == num_calls
        assert choice["finish_reason"] == ("tool_calls" if num_calls else "stop")


async def test_markers_that_are_special_tokens_are_kept_where_they_are_looked_for(
    make_http: MakeHttp, client: StubClient
) -> None:
    client.tokenizer.add_special_tokens(["[TOOL_CALLS]", "[ARGS]"])
    http = make_http(tool_call_parser="mistral")
    for fields in ({}, {"tools": [WEATHER]}, {"tools": [WEATHER], "tool_choice": "none"}):
        await http.post(CHAT, json=chat(**fields))
    assert [request.kept_tokens for request in client.requests] == [[], [258, 259], []]


async def test_without_parallel_calls_the_first_is_kept(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = [CALL, CALL]
    for parallel, num_calls in ((None, 2), (True, 2), (False, 1)):
        body = chat(tools=[WEATHER], parallel_tool_calls=parallel)
        choice = (await http.post(CHAT, json=body)).json()["choices"][0]
        assert len(choice["message"]["tool_calls"]) == num_calls


async def test_a_call_that_breaks_off_is_no_error(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = [CALL.replace("Łódź", "a\nb")]
    message = (await http.post(CHAT, json=chat(tools=[WEATHER]))).json()["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"place": "a'
    assert message["content"] == 'b"}}\n</tool_call>'


async def test_tools_that_the_template_does_not_show_are_refused(
    make_http: MakeHttp, tmp_path: Path
) -> None:
    (tmp_path / MODEL / "chat_template.jinja").write_text("{{ messages[0].content }}")
    http = make_http()
    response = await http.post(CHAT, json=chat(tools=[WEATHER]))
    assert response.status_code == 400
    assert error_of(response)["param"] == "tools"
    assert (await http.post(CHAT, json=chat())).status_code == 200


async def test_an_answer_cut_short_says_so(http: httpx.AsyncClient, client: StubClient) -> None:
    client.pieces, client.finish = [CALL, CALL[:-40]], FinishReason.LENGTH
    choice = (await http.post(CHAT, json=chat(tools=[WEATHER]))).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["tool_calls"]) == 1


async def test_tools_and_earlier_calls_reach_the_template(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    function = {"name": "weather", "arguments": '{"place": "<x>"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    answer = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    result = {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}
    response = await http.post(CHAT, json=chat(messages=[answer, result], tools=[WEATHER]))
    assert response.status_code == 200
    prompt = client.tokenizer.decode(client.requests[0].token_ids)
    assert '{"name": "weather", "arguments": {"place": "<x>"}}<tool>sunny' in prompt
    assert f"<tools>{json.dumps([WEATHER])}" in prompt


HISTORY = {
    "hermes": (
        '<tool_call>\n{"name": {{ call.function.name | tojson }}, '
        '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    ),
    "mistral": (
        "{%- if call.id | length != 9 -%}{{ raise_exception('9 characters') }}{%- endif -%}"
        "[TOOL_CALLS]{{ call.function.name }}{{ call.function.arguments | tojson }}"
    ),
    "llama3": (
        '<|python_tag|>{"name": {{ call.function.name | tojson }}, '
        '"parameters": {{ call.function.arguments | tojson }}}'
    ),
    "pythonic": (
        "<|python_start|>[{{ call.function.name }}("
        "{%- for key, value in call.function.arguments.items() -%}"
        "{{ key }}={{ value | tojson }}{%- endfor -%})]"
    ),
    "json": (
        '{"name": {{ call.function.name | tojson }}, '
        '"arguments": {{ call.function.arguments | tojson }}}'
    ),
}


@pytest.mark.parametrize("family", HISTORY)
async def test_a_call_sent_back_is_written_as_the_model_wrote_it(
    family: str, make_http: MakeHttp, client: StubClient, tmp_path: Path
) -> None:
    """And the family is found by the template alone."""
    (tmp_path / MODEL / "chat_template.jinja").write_text(
        "{%- for message in messages -%}{{ message.content or '' }}"
        "{%- for call in message.tool_calls or [] -%}" + HISTORY[family] + "{%- endfor -%}"
        "{%- endfor -%}{{ tools | length }}"
    )
    written = {
        "hermes": CALL,
        "mistral": '[TOOL_CALLS]weather{"place": "Łódź"}',
        "llama3": '<|python_tag|>{"name": "weather", "parameters": {"place": "Łódź"}}',
        "pythonic": '<|python_start|>[weather(place="Łódź")]',
        "json": '{"name": "weather", "arguments": {"place": "Łódź"}}',
    }[family]
    http = make_http()
    client.pieces = [written]
    first = (await http.post(CHAT, json=chat(tools=[WEATHER]))).json()["choices"][0]["message"]
    result = {"role": "tool", "content": "sun", "tool_call_id": first["tool_calls"][0]["id"]}
    history = [{"role": "user", "content": "Hi"}, first, result]
    assert (await http.post(CHAT, json=chat(messages=history, tools=[WEATHER]))).status_code == 200
    prompt = client.tokenizer.decode(client.requests[-1].token_ids)
    assert prompt == f"Hi{written}sun1"
