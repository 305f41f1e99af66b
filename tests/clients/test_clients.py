"""Clients that people have, pointed at this server by nothing but a base URL and a key.

make test-clients
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from typing import Any

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.clients.conftest import KEY, MODEL

pytestmark = [
    pytest.mark.slow,
    # The clients' own affair.
    pytest.mark.filterwarnings("ignore"),
]
ASK = "I want to find a restaurant in San Jose."
MESSAGES: Any = [{"role": "user", "content": ASK}]
FIND: Any = {
    "type": "function",
    "function": {
        "name": "find_restaurants",
        "description": "Restaurants of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def said(url: str) -> str:
    """What `openai` reads as the answer to MESSAGES."""
    with openai.OpenAI(base_url=url, api_key=KEY) as client:
        answer = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, max_tokens=24
        )
    assert answer.choices[0].message.content
    return answer.choices[0].message.content


async def test_openai_async_streams_beside_each_other(url: str, said: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:

        async def ask() -> str:
            stream = await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, temperature=0, max_tokens=24, stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream])

        assert await asyncio.gather(*(ask() for _ in range(4))) == [said] * 4
        response = await client.responses.create(
            model=MODEL, input=ASK, temperature=0, max_output_tokens=24
        )
        assert response.output_text == said


def langchain(url: str, **more: Any) -> Any:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    return chat(base_url=url, api_key=KEY, model=MODEL, temperature=0, max_tokens=24, **more)


def test_langchain_invokes_streams_and_batches(url: str, said: str) -> None:
    model = langchain(url, logprobs=True)
    answer = model.invoke(ASK)
    assert answer.content == said
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"]
    tokens = answer.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens).startswith(said)
    assert "".join(chunk.content for chunk in model.stream(ASK)) == said
    assert [answer.content for answer in model.batch([ASK, ASK])] == [said, said]


async def test_langchain_is_asynchronous_and_speaks_responses(url: str, said: str) -> None:
    assert (await langchain(url).ainvoke(ASK)).content == said
    answer = await langchain(url, use_responses_api=True).ainvoke(ASK)
    assert answer.text == said


def test_langchain_binds_tools_and_sends_their_results(url: str) -> None:
    messages = pytest.importorskip("langchain_core.messages")
    model = langchain(url).bind_tools([FIND])
    asked = messages.HumanMessage(ASK)
    call = {"name": "find_restaurants", "args": {"city": "San Jose"}, "id": "call_1"}
    called = messages.AIMessage("", tool_calls=[call])
    found = messages.ToolMessage('[{"name": "71 Saint Peter"}]', tool_call_id="call_1")
    assert model.invoke([asked])
    assert model.invoke([asked, called, found]).content


def test_litellm_completes_and_streams(url: str, said: str) -> None:
    litellm = pytest.importorskip("litellm")
    settings = {"api_base": url, "api_key": KEY, "temperature": 0, "max_tokens": 24}
    settings |= {"model": f"openai/{MODEL}", "messages": MESSAGES}
    answer = litellm.completion(**settings)
    assert answer.choices[0].message.content == said
    assert answer.usage.completion_tokens > 0
    chunks = list(litellm.completion(**settings, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    assert asyncio.run(litellm.acompletion(**settings)).choices[0].message.content == said


def test_litellm_raises_its_own_errors(url: str) -> None:
    litellm = pytest.importorskip("litellm")
    settings = {"api_base": url, "messages": MESSAGES, "num_retries": 0}
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(model=f"openai/{MODEL}", api_key="wrong", **settings)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/nobody", api_key=KEY, **settings)
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(model=f"openai/{MODEL}", api_key=KEY, temperature=9, **settings)


def test_litellm_speaks_text_completions(url: str) -> None:
    litellm = pytest.importorskip("litellm")
    answer = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}",
        prompt="I want to",
        api_base=url,
        api_key=KEY,
        temperature=0,
        max_tokens=8,
    )
    assert answer.choices[0].text


class Wish(BaseModel):
    """What somebody wants. The model is small: nothing but the schema ends its answer."""

    model_config = ConfigDict(extra="forbid")

    people: int = Field(ge=1, le=12)


def test_instructor_reads_a_model_out_of_the_answer(url: str) -> None:
    instructor = pytest.importorskip("instructor")
    with openai.OpenAI(base_url=url, api_key=KEY) as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
        wish = client.create(
            model=MODEL,
            messages=MESSAGES,
            response_model=Wish,
            max_retries=0,
            temperature=0,
            logit_bias={},
            max_tokens=64,
        )
    assert isinstance(wish, Wish)


def curl(url: str, body: Any, *options: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "-sS", *options, "-H", f"Authorization: Bearer {KEY}"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body), url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_curl(url: str, said: str) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 24}
    answer = json.loads(curl(f"{url}/chat/completions", body))
    assert answer["choices"][0]["message"]["content"] == said
    lines = curl(f"{url}/chat/completions", {**body, "stream": True}, "-N").splitlines()
    *data, done = [line.removeprefix("data: ") for line in lines if line]
    assert done == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in data]
    assert "".join(delta.get("content") or "" for delta in deltas) == said
    refusal = curl(f"{url}/chat/completions", {**body, "n": 10**9}, "-w", "%{http_code}")
    assert refusal.endswith("400")
    assert '"n"' in refusal
    message = json.loads(curl(f"{url}/messages", body))
    assert message["content"][0]["text"] == said
