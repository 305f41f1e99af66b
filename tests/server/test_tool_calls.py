"""Tool calls: found however the text is cut, and worded as OpenAI's."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.request import FinishReason
from server.pieces import CallArguments, CallStarted, Text
from server.tool_calls.hermes import HermesParser
from tests.server.stub import StubClient
from tests.server.wire import CHAT, WEATHER, chat, chunks

CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Łódź"}}\n</tool_call>'
FOUND = ("weather", '{"place": "Łódź"}')


def parse(pieces: list[str]) -> list[str | tuple[str, str]]:
    """Text and calls, neighbouring texts joined."""
    parser = HermesParser()
    found = [item for piece in pieces for item in parser.feed(piece)]
    joined: list[str | tuple[str, str]] = []
    for item in [*found, *parser.finish()]:
        match item:
            case CallStarted(_, _, name):
                joined.append((name, ""))
            case CallArguments(_, text):
                name, arguments = joined.pop()
                joined.append((name, arguments + text))
            case Text(text) if joined and isinstance(joined[-1], str):
                joined[-1] += text
            case Text(text):
                joined.append(text)
    return joined


CASES: dict[str, tuple[str, list[str | tuple[str, str]]]] = {
    "text": ("a < b <tool> \n", ["a < b <tool> \n"]),
    "call": (CALL, [FOUND]),
    "text then call": (f"Let me see.\n{CALL}\n", ["Let me see.", FOUND]),
    "two calls": (f"{CALL}\n{CALL}", [FOUND, FOUND]),
    "text after": (f"{CALL}\n\nThere.\n", [FOUND, "There.\n"]),
    "invalid": ("a <tool_call>{</tool_call> b", ["a <tool_call>{</tool_call> b"]),
    "no name": ('<tool_call>{"x": 1}</tool_call>', ['<tool_call>{"x": 1}</tool_call>']),
    "invalid then call": (f"<tool_call>x{CALL}", ["<tool_call>x", FOUND]),
    "unclosed": (CALL.removesuffix("</tool_call>"), [FOUND]),
    "cut short": ('<tool_call>{"name": "wea', ['<tool_call>{"name": "wea']),
    "no arguments": ('<tool_call>{"name": "f"}</tool_call>', [("f", "{}")]),
    "text arguments": (
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        [("f", '{"a": 1}')],
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_calls_are_found_between_markers(text: str, expected: list[Any]) -> None:
    assert parse([text]) == expected
    assert parse(list(text)) == expected


@given(
    text=st.lists(
        st.sampled_from(["a", " ", "\n", "<", "<tool_call>", "</tool_call>", "{}", CALL]),
        max_size=8,
    ).map("".join),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_where_the_text_is_cut_makes_no_difference(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert parse(pieces) == parse([text])


def test_text_is_held_back_only_while_it_may_begin_a_call() -> None:
    parser = HermesParser()
    assert parser.feed("Hello <too") == [Text("Hello")]
    assert parser.feed("ls>") == [Text(" <tools>")]


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
    arguments = [call for call in calls if "id" not in call]
    assert all(list(call["function"]) == ["arguments"] for call in arguments)
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


async def test_an_answer_cut_short_says_so(http: httpx.AsyncClient, client: StubClient) -> None:
    client.pieces, client.finish = [CALL, CALL[:-20]], FinishReason.LENGTH
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
