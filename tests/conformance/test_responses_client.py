"""Responses through the `openai` package, and held to its types."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import FunctionToolParam, Response, ResponseStreamEvent
from pydantic import TypeAdapter

from engine.errors import EngineDead
from engine.request import FinishReason
from tests.server.stub import MODEL, StubClient

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
CALL = '<tool_call>{"name": "weather", "arguments": {"place": "here"}}</tool_call>'
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def held_to_its_type(response: Response) -> None:
    """The client itself takes anything: this does not."""
    Response.model_validate(response.model_dump(by_alias=True, warnings=False), strict=True)


async def test_a_response(api: AsyncOpenAI) -> None:
    response = await api.responses.create(
        model=MODEL, input="Hi", instructions="Be kind.", metadata={"a": "b"}, store=False
    )
    held_to_its_type(response)
    assert response.output_text == "Hello world"
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens == 11
    metrics: Any = (response.model_extra or {})["metrics"]
    assert metrics["speculative_decoding"]["mean_acceptance_length"] == 5.5


async def test_a_call_its_result_and_the_answer(api: AsyncOpenAI, client: StubClient) -> None:
    client.pieces = ["One moment.", CALL]
    turns: list[Any] = [{"role": "user", "content": "Weather?"}]
    response = await api.responses.create(model=MODEL, input=turns, tools=[WEATHER])
    held_to_its_type(response)
    call = response.output[1]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"place": "here"}
    client.pieces = ["Sunny."]
    turns += response.output
    turns.append({"type": "function_call_output", "call_id": call.call_id, "output": "sun"})
    after = await api.responses.create(model=MODEL, input=turns, tools=[WEATHER])
    assert after.output_text == "Sunny."


@pytest.mark.parametrize("finish", [FinishReason.STOP, FinishReason.LENGTH])
async def test_every_event_is_of_openais_types(
    api: AsyncOpenAI, client: StubClient, finish: FinishReason
) -> None:
    client.pieces, client.finish = ["One moment.", CALL, "Then"], finish
    stream = await api.responses.create(
        model=MODEL,
        input="Hi",
        tools=[WEATHER],
        stream=True,
        include=["message.output_text.logprobs"],
    )
    events = [event async for event in stream]
    for event in events:
        EVENT.validate_python(event.model_dump(by_alias=True, warnings=False))
    held_to_its_type(events[-1].response)  # type: ignore[union-attr]


async def test_the_stream_helper_gathers_the_same_response(
    api: AsyncOpenAI, client: StubClient
) -> None:
    client.pieces = ["One", " moment.", *CALL]
    async with api.responses.stream(model=MODEL, input="Hi", tools=[WEATHER]) as stream:
        response = await stream.get_final_response()
    assert response.output_text == "One moment."
    call = response.output[1]
    assert call.type == "function_call"
    assert call.arguments == '{"place": "here"}'


async def test_errors_are_openais_own_exceptions(api: AsyncOpenAI, client: StubClient) -> None:
    with pytest.raises(openai.BadRequestError, match="stores no responses") as refused:
        await api.responses.create(model=MODEL, input="Hi", previous_response_id="resp_1")
    assert refused.value.param == "previous_response_id"
    client.error = EngineDead("gone")
    stream = await api.responses.create(model=MODEL, input="Hi", stream=True)
    *_, last = [event async for event in stream]
    assert last.type == "response.failed"
    assert last.response.error is not None
    EVENT.validate_python(last.model_dump(by_alias=True, warnings=False))


async def test_closing_a_stream_ends_the_generation(api: AsyncOpenAI, client: StubClient) -> None:
    client.hang = True
    stream = await api.responses.create(model=MODEL, input="Hi", stream=True)
    await anext(stream)
    await stream.close()
    assert await asyncio.to_thread(client.ended.wait, 5)
