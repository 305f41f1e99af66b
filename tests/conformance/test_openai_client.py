"""The `openai` package against a real server on the loopback, with a stub for an engine."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from engine.errors import ContextLengthExceeded, EngineDead, EngineOverloaded
from engine.request import FinishReason
from tests.server.stub import ADAPTER, MODEL, StubClient

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = '<tool_call>{"name": "weather", "arguments": {"place": "here"}}</tool_call>'


async def test_chat(api: AsyncOpenAI, client: StubClient) -> None:
    answer = await api.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1, n=2)
    assert client.started
    assert [choice.message.content for choice in answer.choices] == ["Hello world"] * 2
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 41
    assert answer._request_id


async def test_chat_stream_with_usage(api: AsyncOpenAI) -> None:
    stream = await api.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *sent, last = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in sent)
    assert text == "Hello world"
    assert sent[0].choices[0].delta.role == "assistant"
    assert last.usage is not None
    assert last.usage.completion_tokens == 11
    metrics: Any = (last.model_extra or {})["metrics"]
    assert metrics["speculative_decoding"]["mean_acceptance_length"] == 5.5


async def test_the_stream_helper_gathers_the_same_answer(api: AsyncOpenAI) -> None:
    async with api.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == "Hello world"


async def test_logprobs(api: AsyncOpenAI) -> None:
    answer = await api.chat.completions.create(
        model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=1
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == "Hello world"


async def test_extra_body_turns_speculation_off(api: AsyncOpenAI, client: StubClient) -> None:
    await api.chat.completions.create(
        model=ADAPTER,
        messages=MESSAGES,
        extra_body={"speculation": {"enabled": False}, "top_k": 3},
    )
    assert client.requests[0].speculation is False
    assert client.requests[0].adapter == ADAPTER


async def test_a_tool_call_and_its_result(api: AsyncOpenAI, client: StubClient) -> None:
    client.pieces = [CALL]
    answer = await api.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[WEATHER])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"place": "here"}
    client.pieces = ["Sunny."]
    history: list[Any] = [*MESSAGES, message]
    history.append({"role": "tool", "content": "sun", "tool_call_id": call.id})
    after = await api.chat.completions.create(model=MODEL, messages=history, tools=[WEATHER])
    assert after.choices[0].message.content == "Sunny."


async def test_streamed_tool_calls(api: AsyncOpenAI, client: StubClient) -> None:
    client.pieces = list(CALL + CALL.replace("here", "there"))
    async with api.chat.completions.stream(
        model=MODEL, messages=MESSAGES, tools=[WEATHER]
    ) as stream:
        arguments = [
            event.arguments_delta
            async for event in stream
            if event.type == "tool_calls.function.arguments.delta"
        ]
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.name for call in calls] == ["weather"] * 2
    given = [json.loads(call.function.arguments) for call in calls]
    assert given == [{"place": "here"}, {"place": "there"}]
    assert len(arguments) > 10
    assert "".join(arguments) == "".join(call.function.arguments for call in calls)
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_streamed_reasoning(api: AsyncOpenAI, client: StubClient) -> None:
    client.pieces = list(f"<think>so so</think>Hi. {CALL}")
    async with api.chat.completions.stream(
        model=MODEL, messages=MESSAGES, tools=[WEATHER]
    ) as stream:
        message = (await stream.get_final_completion()).choices[0].message
    assert message.content == "Hi."
    assert (message.model_extra or {})["reasoning_content"] == "so so"
    assert message.tool_calls is not None
    client.pieces = ["Sunny."]
    result: Any = {"role": "tool", "content": "sun", "tool_call_id": message.tool_calls[0].id}
    history: list[Any] = [*MESSAGES, message, result]
    after = await api.chat.completions.create(model=MODEL, messages=history, tools=[WEATHER])
    assert after.choices[0].message.content == "Sunny."


async def test_completions(api: AsyncOpenAI) -> None:
    answer = await api.completions.create(model=MODEL, prompt=["a", "b"], logprobs=1)
    assert [choice.text for choice in answer.choices] == ["Hello world"] * 2
    stream = await api.completions.create(model=MODEL, prompt=[1, 2], stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello world"


async def test_models(api: AsyncOpenAI) -> None:
    assert [model.id async for model in api.models.list()] == [MODEL, ADAPTER]
    assert (await api.models.retrieve(ADAPTER)).id == ADAPTER
    with pytest.raises(openai.NotFoundError):
        await api.models.retrieve("other")


async def test_errors_are_openais_own_exceptions(api: AsyncOpenAI, client: StubClient) -> None:
    async def ask(**fields: Any) -> None:
        await api.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **fields})

    with pytest.raises(openai.BadRequestError) as refused:
        await ask(temperature=3)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as unknown:
        await ask(model="other")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        await api.with_options(api_key="wrong").models.list()
    client.pieces = []
    for error, kind in (
        (EngineOverloaded("full"), openai.RateLimitError),
        (EngineDead("gone"), openai.InternalServerError),
        (ContextLengthExceeded("This model's maximum context length is"), openai.BadRequestError),
    ):
        client.error = error
        with pytest.raises(kind):
            await ask(stream=True)


async def test_an_error_in_a_stream_is_raised(api: AsyncOpenAI, client: StubClient) -> None:
    client.error = EngineDead("gone")
    stream = await api.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="not available"):
        async for _ in stream:
            pass


async def test_length_is_told(api: AsyncOpenAI, client: StubClient) -> None:
    client.finish = FinishReason.LENGTH
    answer = await api.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].finish_reason == "length"


async def test_closing_a_stream_ends_the_generation(api: AsyncOpenAI, client: StubClient) -> None:
    client.hang = True
    stream = await api.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    await anext(stream)
    await stream.close()
    assert await asyncio.to_thread(client.ended.wait, 5)
    assert client.closed == [client.requests[0].request_id]
