"""POST /tokenize and /detokenize: vLLM's shapes, and what the model would read."""

from __future__ import annotations

import httpx

from tests.server.stub import MODEL, StubClient
from tests.server.wire import CHAT, COMPLETIONS, WEATHER, chat, completion


async def test_a_text_has_the_tokens_its_completion_would_read(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    asked = {"model": MODEL, "prompt": "Hi é", "return_token_strs": True}
    body = (await http.post("/tokenize", json=asked)).json()
    await http.post(COMPLETIONS, json=completion(prompt="Hi é"))
    assert body["tokens"] == client.requests[0].token_ids
    assert (body["count"], body["max_model_len"]) == (5, 256)
    assert body["token_strs"] == ["H", "i", "Ġ", "Ã", "©"]
    back = await http.post("/detokenize", json={"tokens": body["tokens"]})
    assert back.json() == {"prompt": "Hi é"}


async def test_a_conversation_has_the_tokens_its_answer_would_read(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    asked = {"messages": chat()["messages"], "tools": [WEATHER]}
    body = (await http.post("/tokenize", json=asked)).json()
    await http.post(CHAT, json=chat(tools=[WEATHER]))
    assert body["tokens"] == client.requests[0].token_ids
    assert body["token_strs"] is None
    short = {**asked, "add_generation_prompt": False}
    assert (await http.post("/tokenize", json=short)).json()["count"] == body["count"] - 11


async def test_special_tokens_have_their_text(http: httpx.AsyncClient) -> None:
    body = (await http.post("/detokenize", json={"tokens": [256, 40]})).json()
    assert body == {"prompt": "<|end|>I"}
