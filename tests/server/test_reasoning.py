"""Reasoning: split off the answer however it is cut, counted, and sent back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.request import FinishReason
from server.pieces import Reasoning, Text
from server.reader import AnswerReader
from server.reasoning import FORMATS, ReasoningSplitter, ReasoningTokens, recognised
from server.tool_calls.families import FAMILIES
from tests.server.answers import Said, divide, read
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL, TEMPLATE, StubClient
from tests.server.wire import CHAT, WEATHER, chat, chunks, error_of

CALL = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'


def reader(inside: bool) -> AnswerReader:
    """Of reasoning and calls."""
    counter = ReasoningTokens(None, None, inside)
    splitter = ReasoningSplitter(FORMATS["think"], inside, counter)
    return AnswerReader(splitter, FAMILIES["hermes"].parser({}))


CASES: list[tuple[bool, str, Said]] = [
    (False, "Hi", ["Hi"]),
    (False, " <thin", [" <thin"]),
    (False, "<think>\nwell\n</think>\n\nHi", [("think", "well"), "Hi"]),
    (False, "\n<think></think>Hi", ["Hi"]),
    (False, "Hi <think>x</think>", ["Hi <think>x</think>"]),
    (False, "a</think>b", ["a</think>b"]),
    (False, "<think>a b </thin", [("think", "a b </thin")]),
    (False, "", []),
    (True, "\nwell \n", [("think", "well")]),
    (True, "well</think> Hi </think>", [("think", "well"), "Hi </think>"]),
    (True, "<think>well</think>Hi", [("think", "<think>well"), "Hi"]),
    (True, f"a {CALL}</think>\n{CALL}", [("think", f"a {CALL}"), ("weather", "{}")]),
    (True, f"</think>Hi {CALL}", ["Hi", ("weather", "{}")]),
]


@pytest.mark.parametrize(("inside", "text", "expected"), CASES)
def test_reasoning_and_answer(inside: bool, text: str, expected: list[Any]) -> None:
    assert read(reader(inside), [text]) == expected
    assert read(reader(inside), text) == expected


@settings(max_examples=100, deadline=None)
@given(
    inside=st.booleans(),
    text=st.lists(
        st.sampled_from(["<think>", "</think>", "<", "/", "a", " ", "\n", CALL]), max_size=8
    ).map("".join),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_where_the_text_is_cut_makes_no_difference(
    inside: bool, text: str, cuts: list[int]
) -> None:
    assert read(reader(inside), divide(text, cuts)) == read(reader(inside), [text])


def test_reasoning_is_held_back_only_while_it_may_end() -> None:
    splitter = ReasoningSplitter(FORMATS["think"], True, ReasoningTokens(None, None, True))
    assert splitter.feed("\n so </th") == [Reasoning("so")]
    assert splitter.feed("en") == [Reasoning(" </then")]
    assert splitter.feed(" </think> a") == [Text("a")]


@pytest.mark.parametrize(
    ("template", "vocabulary", "name"),
    [("</think>", (), "think"), ("", ("[/THINK]",), "mistral"), ("think", (), None)],
)
def test_the_template_tells_the_format_and_then_the_vocabulary(
    template: str, vocabulary: tuple[str, ...], name: str | None
) -> None:
    found = recognised(template, vocabulary.__contains__)
    assert (found and found.name) == name


@pytest.fixture
def thinker(make_http: MakeHttp, client: StubClient, tmp_path: Path) -> httpx.AsyncClient:
    """A model whose template shows earlier reasoning; its markers are tokens."""
    shown = "{{ message.role }}>{{ '(' + message.reasoning_content + ')' if "
    shown += "message.reasoning_content else '' }}{#- </think> -#}"
    template = TEMPLATE.replace("{{ message.role }}>", shown)
    (tmp_path / MODEL / "chat_template.jinja").write_text(template)
    client.tokenizer.add_special_tokens(["<think>", "</think>"])
    return make_http()


async def test_reasoning_has_fields_of_its_own_and_is_counted(
    thinker: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ["<think>", "so", " so</thi", "nk>", "\nHi."]
    answer = (await thinker.post(CHAT, json=chat())).json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["reasoning"]) == ("so so", "so so")
    assert message["content"] == "Hi."
    assert client.requests[0].kept_tokens == [258, 259]


async def test_streamed_reasoning_comes_before_the_text(
    thinker: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ["<think>", "so", " so", "</think>", f"Hi. {CALL}"]
    body = chat(stream=True, stream_options={"include_usage": True}, tools=[WEATHER])
    *sent, last = chunks(await thinker.post(CHAT, json=body))
    deltas = [chunk["choices"][0]["delta"] for chunk in sent[1:]]
    kinds = [next(iter(delta), None) for delta in deltas]
    assert kinds == ["reasoning_content"] * 2 + ["content"] + ["tool_calls"] * 2 + [None]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "so so"
    # The last token is the one that ended the answer.
    assert last["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}


@pytest.mark.parametrize(
    ("pieces", "finish", "count"),
    [
        (["Hi."], FinishReason.STOP, 0),
        (["<think>", "so"], FinishReason.LENGTH, 2),
        (["<think>", "so."], FinishReason.STOP, 2),
        (["Hi.<think>", "so"], FinishReason.LENGTH, None),
    ],
)
async def test_tokens_of_reasoning_are_told_where_that_is_exact(
    pieces: list[str],
    finish: FinishReason,
    count: int | None,
    thinker: httpx.AsyncClient,
    client: StubClient,
) -> None:
    client.pieces, client.finish = pieces, finish
    usage = (await thinker.post(CHAT, json=chat())).json()["usage"]
    assert usage.get("completion_tokens_details", {}).get("reasoning_tokens") == count


async def test_an_answer_that_is_all_reasoning_can_be_sent_back(
    thinker: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces, client.finish = ["<think>so so"], FinishReason.LENGTH
    message = (await thinker.post(CHAT, json=chat())).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("", "so so")
    for name in ("reasoning_content", "reasoning"):
        earlier = {"role": "assistant", "content": "", name: "so so"}
        response = await thinker.post(CHAT, json=chat(messages=[earlier]))
        assert response.status_code == 200
        prompt = client.tokenizer.decode(client.requests[-1].token_ids)
        assert prompt.startswith("<assistant>(so so)")
    response = await thinker.post(
        CHAT, json=chat(messages=[{"role": "user", "content": "Hi", "reasoning": "so"}])
    )
    assert error_of(response)["param"] == "messages.0.reasoning"


async def test_a_prompt_that_opens_it_begins_inside(
    make_http: MakeHttp, client: StubClient, tmp_path: Path
) -> None:
    template = TEMPLATE + "<think>\n{#- </think> -#}"
    (tmp_path / MODEL / "chat_template.jinja").write_text(template)
    client.pieces = ["so</think>Hi"]
    for name, content in (("auto", "Hi"), ("none", "so</think>Hi")):
        http = make_http(reasoning_parser=name)
        message = (await http.post(CHAT, json=chat())).json()["choices"][0]["message"]
        assert message["content"] == content
        assert message.get("reasoning") == ("so" if name == "auto" else None)
