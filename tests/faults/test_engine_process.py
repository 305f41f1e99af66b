"""The engine as a process of its own: what its requests see when it refuses, dies or is left."""

import asyncio
import os
import signal

import pytest

from engine import EngineClient, EngineConfig, Request, SamplingParams
from engine.errors import ContextLengthExceeded, EngineDead, EngineError, UnknownAdapter
from models import DEFAULT_ADAPTER, DEFAULT_MODEL

LONG = SamplingParams(temperature=0.0, max_tokens=1500, ignore_eos=True)
SHORT = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


def config(**changes: object) -> EngineConfig:
    settings = {
        "model": str(DEFAULT_MODEL),
        "adapters": {"bita": str(DEFAULT_ADAPTER)},
        "tree": "comb",
        "kv_cache_memory": 1 << 26,
        "num_threads": 1,
        **changes,
    }
    return EngineConfig(**settings)  # type: ignore[arg-type]


async def tokens(client: EngineClient, name: str, params: SamplingParams = SHORT) -> list[int]:
    request = Request(name, [1, 300, 400, 500], params)
    return [t async for output in client.generate(request) for t in output.token_ids]


async def until(condition, seconds: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of a statistic
            await asyncio.sleep(0.05)


async def test_a_killed_engine_fails_its_requests_and_a_fresh_one_serves_on() -> None:
    client = EngineClient(config())
    await client.start()
    try:
        before = await tokens(client, "before")
        stream = client.generate(Request("running", [1, 300], LONG))
        await anext(stream)
        assert client._engine.process is not None
        os.kill(client._engine.process.pid, signal.SIGKILL)
        with pytest.raises(EngineDead):
            async for _ in stream:
                pass
        await until(lambda: client.is_ready and client.num_restarts == 1)
        assert await tokens(client, "after") == before
    finally:
        await client.stop()


async def test_leaving_early_frees_the_blocks_and_bad_requests_hurt_nobody() -> None:
    client = EngineClient(config(), in_process=True)
    await client.start()
    try:
        stream = client.generate(Request("left", [1, 300], LONG))
        await anext(stream)
        with pytest.raises(ContextLengthExceeded, match="maximum context length is 2048"):
            await anext(client.generate(Request("long", [1] * 3000, SHORT)))
        with pytest.raises(UnknownAdapter) as unknown:
            await anext(client.generate(Request("unknown", [1], SHORT, adapter="nobody")))
        assert unknown.value.field == "model"
        await anext(stream)
        await stream.aclose()
        await until(lambda: client.stats.num_running == 0 and client.stats.kv_cache_usage == 0)
    finally:
        await client.stop()


async def test_a_stop_string_cuts_text_tokens_and_receipt_at_the_same_token() -> None:
    client = EngineClient(config(), in_process=True)
    await client.start()
    try:
        prompt = client.tokenizer.encode(
            "<|im_start|>user\nI want a restaurant in San Jose.<|im_end|>\n<|im_start|>assistant\n",
            add_special_tokens=False,
        ).ids
        whole = [o async for o in client.generate(Request("whole", prompt, SHORT))]
        text = "".join(o.text for o in whole)
        stop = text[len(text) // 2 :][:3]
        params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, stop=(stop,))
        cut = [o async for o in client.generate(Request("cut", prompt, params))]
        assert "".join(o.text for o in cut) == text[: text.index(stop)]
        assert cut[-1].finish_reason == "stop"
        assert cut[-1].stop_reason == stop
        emitted = sum(len(o.token_ids) for o in cut)
        assert emitted == cut[-1].num_generated_tokens <= 8
        receipt = cut[-1].speculation
        assert receipt.num_forwards + receipt.num_accepted_tokens + 1 == emitted
    finally:
        await client.stop()


async def test_a_model_that_cannot_be_served_is_refused_at_start(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    (tmp_path / "tokenizer.json").write_bytes((DEFAULT_MODEL / "tokenizer.json").read_bytes())
    with pytest.raises(EngineError, match="recurrent or hybrid"):
        await EngineClient(config(model=str(tmp_path), adapters={})).start()
