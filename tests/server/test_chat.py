"""POST /v1/chat/completions: what is asked of the engine, and how its answer is worded."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from engine.request import FinishReason
from tests.server.stub import ADAPTER, MODEL, StubClient
from tests.server.wire import CHAT, chat, chunks, frames


async def test_answer_has_every_key_openai_requires(http: httpx.AsyncClient) -> None:
    body = (await http.post(CHAT, json=chat())).json()
    assert body["id"].startswith("chatcmpl-")
    assert isinstance(body["created"], int)
    assert (body["object"], body["model"]) == ("chat.completion", MODEL)
    assert body["system_fingerprint"] == "fp_stub"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello world", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": len("<user>Hi<assistant>"),
        "completion_tokens": 11,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 16},
    }


async def test_answer_carries_the_receipt_of_speculation(http: httpx.AsyncClient) -> None:
    body = (await http.post(CHAT, json=chat())).json()
    assert body["metrics"]["speculative_decoding"] == {
        "mean_acceptance_length": 5.5,
        "draft_acceptance_rate": 0.5625,
        "acceptance_histogram": [0, 0, 0, 0, 1, 1],
        "num_spec_steps": 2,
        "num_accepted_draft_tokens": 9,
        "num_draft_tokens": 16,
        "num_spec_tokens": 5,
    }


def without_ids(chunk: dict[str, Any]) -> dict[str, Any]:
    return {key: chunk[key] for key in chunk if key not in ("id", "created", "metrics")}


def golden(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None}
    choice["finish_reason"] = finish_reason
    if finish_reason:
        choice["stop_reason"] = None
    return {
        "object": "chat.completion.chunk",
        "model": MODEL,
        "system_fingerprint": "fp_stub",
        "choices": [choice],
    }


async def test_stream_is_role_then_content_then_finish(http: httpx.AsyncClient) -> None:
    sent = chunks(await http.post(CHAT, json=chat(stream=True)))
    assert [without_ids(chunk) for chunk in sent] == [
        golden({"role": "assistant", "content": ""}),
        golden({"content": "Hello"}),
        golden({"content": " world"}),
        golden({}, "stop"),
    ]
    assert len({(chunk["id"], chunk["created"]) for chunk in sent}) == 1
    assert ["metrics" in chunk for chunk in sent] == [False, False, False, True]


async def test_stream_frames_are_openais_bytes(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=chat(stream=True))
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert frames(response)[-1] == "[DONE]"


async def test_usage_comes_last_in_a_chunk_of_its_own(http: httpx.AsyncClient) -> None:
    options = {"include_usage": True}
    *others, last = chunks(await http.post(CHAT, json=chat(stream=True, stream_options=options)))
    assert all(chunk["usage"] is None and "metrics" not in chunk for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 30
    assert last["metrics"]["speculative_decoding"]["num_spec_steps"] == 2


async def test_lines_never_break_inside_an_event(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ["a\nb\r\n", "c\u2028d\u0085", "é\N{GRINNING FACE}"]
    response = await http.post(CHAT, json=chat(stream=True))
    assert response.text.isascii()
    said = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(response)]
    assert "".join(said) == "".join(client.pieces)


async def test_running_out_of_tokens_is_length(http: httpx.AsyncClient, client: StubClient) -> None:
    client.finish = FinishReason.LENGTH
    body = (await http.post(CHAT, json=chat(max_tokens=2))).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert client.requests[0].sampling.max_tokens == 2


async def test_a_stop_string_is_told(http: httpx.AsyncClient, client: StubClient) -> None:
    client.stop_reason = "END"
    body = (await http.post(CHAT, json=chat(stop="END"))).json()
    choice = body["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")
    assert client.requests[0].sampling.stop == ("END",)


async def test_every_sampling_field_reaches_the_engine(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "seed": 3,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.25,
        "repetition_penalty": 1.5,
        "min_tokens": 2,
        "ignore_eos": True,
    }
    asked = chat(
        **fields,
        max_tokens=9,
        max_completion_tokens=8,
        logit_bias={"5": -100},
        stop=["a", "b"],
        stop_token_ids=[4],
        logprobs=True,
        top_logprobs=1,
        speculation={"enabled": False},
    )
    assert (await http.post(CHAT, json=asked)).status_code == 200
    (request,) = client.requests
    assert {name: getattr(request.sampling, name) for name in fields} == fields
    assert request.sampling.max_tokens == 8
    assert request.sampling.logit_bias == {5: -100.0}
    assert request.sampling.stop == ("a", "b")
    assert request.sampling.stop_token_ids == (4,)
    assert request.sampling.logprobs == 1
    assert request.speculation is False


async def test_nulls_ask_for_the_defaults(http: httpx.AsyncClient, client: StubClient) -> None:
    asked = chat(temperature=None, max_tokens=None, stop=None, tools=None, prediction=None, n=None)
    assert (await http.post(CHAT, json=asked)).status_code == 200
    assert client.requests[0].sampling.temperature == 1.0
    assert client.requests[0].sampling.max_tokens is None
    assert client.requests[0].speculation is True


async def test_fields_that_ask_for_nothing_are_taken(http: httpx.AsyncClient) -> None:
    asked = chat(
        user="u",
        metadata={"a": "b"},
        store=False,
        safety_identifier="s",
        prompt_cache_key="k",
        response_format={"type": "text"},
        modalities=["text"],
        parallel_tool_calls=True,
        service_tier="auto",
        tools=[],
    )
    assert (await http.post(CHAT, json=asked)).status_code == 200


async def test_choices_have_seeds_of_their_own(http: httpx.AsyncClient, client: StubClient) -> None:
    body = (await http.post(CHAT, json=chat(n=3, seed=7))).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [request.sampling.seed for request in client.requests] == [7, 8, 9]
    assert len({request.request_id for request in client.requests}) == 3
    assert body["usage"]["prompt_tokens"] == 19
    assert body["usage"]["completion_tokens"] == 33


async def test_streamed_choices_each_begin_and_end_once(http: httpx.AsyncClient) -> None:
    sent = chunks(await http.post(CHAT, json=chat(n=2, stream=True)))
    for index in (0, 1):
        own = [chunk["choices"][0] for chunk in sent if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in own) == "Hello world"
        assert [choice["finish_reason"] for choice in own].count("stop") == 1
    assert ["metrics" in chunk for chunk in sent].count(True) == 1


async def test_logprobs_list_every_token(http: httpx.AsyncClient, client: StubClient) -> None:
    client.pieces = ["Aé"]
    body = (await http.post(CHAT, json=chat(logprobs=True, top_logprobs=2))).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert [entry["bytes"] for entry in content] == [[65], [0xC3], [0xA9]]
    assert content[0]["token"] == "A"
    assert [entry["logprob"] for entry in content[0]["top_logprobs"]] == [-0.5, -9999.0]


async def test_streamed_logprobs_are_those_of_the_whole(http: httpx.AsyncClient) -> None:
    asked = chat(logprobs=True, top_logprobs=0)
    whole = (await http.post(CHAT, json=asked)).json()["choices"][0]["logprobs"]["content"]
    streamed: list[Any] = []
    for chunk in chunks(await http.post(CHAT, json={**asked, "stream": True})):
        streamed += (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    assert streamed == whole
    assert "".join(entry["token"] for entry in whole) == "Hello world"


@pytest.mark.parametrize(("model", "adapter"), [(MODEL, None), (ADAPTER, ADAPTER)])
async def test_the_model_may_name_an_adapter(
    http: httpx.AsyncClient, client: StubClient, model: str, adapter: str | None
) -> None:
    body = (await http.post(CHAT, json=chat(model=model))).json()
    assert body["model"] == model
    assert client.requests[0].adapter == adapter


async def test_messages_are_rendered_by_the_models_template(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "S"}, {"role": "user", "content": parts}]
    await http.post(CHAT, json=chat(messages=messages))
    prompt = client.tokenizer.decode(client.requests[0].token_ids)
    assert prompt == "<system>S<user>a\nb<assistant>"


async def test_a_long_prompt_is_encoded_whole(http: httpx.AsyncClient, client: StubClient) -> None:
    messages = [{"role": "user", "content": "x" * 20_000}]
    assert (await http.post(CHAT, json=chat(messages=messages))).status_code == 200
    assert len(client.requests[0].token_ids) == 20_000 + len("<user><assistant>")
