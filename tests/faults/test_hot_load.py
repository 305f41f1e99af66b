"""Adapters of a running engine process: loaded beside streams, kept through a crash, refused."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import pytest

from engine import EngineClient, EngineConfig, Request, SamplingParams
from engine.errors import (
    AdapterNameTaken,
    AdapterRefused,
    EngineDead,
    NoFreeSlot,
    UnknownAdapter,
)
from engine.request import RequestOutput
from models import DEFAULT_ADAPTER, DEFAULT_MODEL

PROMPT = [1, 300, 400, 500]
Streams: TypeAlias = AsyncIterator[RequestOutput]


def config(**changes: object) -> EngineConfig:
    settings = {
        "model": str(DEFAULT_MODEL),
        "max_adapters": 2,
        "tree": "comb",
        "dtype": "float32",
        "kv_cache_memory": 1 << 26,
        "num_threads": 1,
        **changes,
    }
    return EngineConfig(**settings)  # type: ignore[arg-type]


def request(name: str, max_tokens: int, adapter: str | None) -> Request:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    return Request(name, PROMPT, params, adapter=adapter)


async def answer(
    client: EngineClient, name: str, adapter: str | None = None, max_tokens: int = 24
) -> tuple[list[int], int]:
    """Tokens, and how many of them were drafted."""
    outputs = [o async for o in client.generate(request(name, max_tokens, adapter))]
    return [t for o in outputs for t in o.token_ids], outputs[-1].speculation.num_accepted_tokens


async def kill(client: EngineClient) -> None:
    """Kill the engine and wait for the fresh one."""
    assert client._engine.process is not None
    restarts = client.num_restarts
    os.kill(client._engine.process.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not (client.is_ready and client.num_restarts > restarts):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The embedded model's adapter, in a folder that a test may spoil."""
    return Path(shutil.copytree(DEFAULT_ADAPTER, tmp_path / "bita"))


async def test_an_adapter_comes_and_goes_while_requests_run_and_survives_a_crash(
    folder: Path,
) -> None:
    client = EngineClient(config())
    await client.start()
    try:
        assert client.info.adapters == {}
        plain, drafted = await answer(client, "plain", max_tokens=200)
        assert drafted == 0
        running = asyncio.create_task(answer(client, "beside", max_tokens=200))
        await asyncio.sleep(0)
        await client.load_adapter("one", str(folder))
        assert not running.done()
        assert client.info.adapters == {"one": str(folder)}
        with_adapter = asyncio.create_task(answer(client, "with", "one", max_tokens=200))
        while not client.stats.rows["mask"]:  # noqa: ASYNC110 - nothing tells of a statistic
            await asyncio.sleep(0.01)
        await client.unload_adapter("one")
        assert not with_adapter.done()
        with pytest.raises(UnknownAdapter) as unknown:
            await answer(client, "late", "one")
        assert unknown.value.field == "model"
        assert await running == (plain, 0)
        tokens, drafted = await with_adapter
        assert tokens == plain
        assert drafted > 0

        await client.load_adapter("two", str(folder))
        await kill(client)
        assert client.info.adapters == {"two": str(folder)}
        tokens, drafted = await answer(client, "after", "two")
        assert tokens == plain[:24]
        assert drafted > 0
        with pytest.raises(UnknownAdapter):
            await answer(client, "gone", "one")
        assert await answer(client, "default") == (tokens, drafted)
    finally:
        await client.stop()


async def test_an_adapter_that_went_bad_is_left_out_after_a_crash(folder: Path) -> None:
    """A server without one of its adapters serves on; one that cannot start serves nobody."""
    other = Path(shutil.copytree(folder, folder.parent / "other"))
    client = EngineClient(config(adapters={"good": str(DEFAULT_ADAPTER)}, max_adapters=3))
    await client.start()
    try:
        await client.load_adapter("bad", str(folder))
        await client.load_adapter("other", str(other))
        shutil.rmtree(folder)
        await kill(client)
        assert list(client.info.adapters) == ["good", "other"]
        assert (await answer(client, "after"))[1] > 0
    finally:
        await client.stop()


def another_base(folder: Path) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_layers": 7}))


def no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def unreadable(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 64)


async def test_what_cannot_be_loaded_is_refused_with_the_reason(folder: Path) -> None:
    client = EngineClient(config(), in_process=True)
    await client.start()
    try:
        for spoil, said in (
            (another_base, "num_layers: adapter has 7, the model has 6"),
            (no_weights, "adapter_model.safetensors is missing"),
            (unreadable, "adapter_model.safetensors"),
            (shutil.rmtree, "not a BiTA adapter folder"),
        ):
            spoil(folder)
            with pytest.raises(AdapterRefused, match=said) as refused:
                await client.load_adapter("bad", str(folder))
            assert refused.value.field == "path"
            shutil.copytree(DEFAULT_ADAPTER, folder, dirs_exist_ok=True)
        await client.load_adapter("a", str(folder))
        with pytest.raises(AdapterNameTaken):
            await client.load_adapter("a", str(folder))
        both = [client.load_adapter(name, str(folder)) for name in "bc"]
        loaded, refused_one = await asyncio.gather(*both, return_exceptions=True)
        assert (loaded, type(refused_one)) == (None, NoFreeSlot)
        with pytest.raises(UnknownAdapter) as unknown:
            await client.unload_adapter("c")
        assert unknown.value.field == "name"
        assert list(client.info.adapters) == ["a", "b"]
        assert (await answer(client, "fine", "b"))[1] > 0
    finally:
        await client.stop()
    with pytest.raises(EngineDead):
        await client.load_adapter("late", str(folder))
