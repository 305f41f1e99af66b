"""An engine of two ranks as a process of its own: what is left when one of them dies."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from engine import EngineClient, EngineConfig, Request, RequestOutput
from engine.errors import EngineDead
from models import DEFAULT_MODEL
from tests.factories import tiny_config
from tests.faults.test_engine_process import LONG, config, tokens, until

pytestmark = pytest.mark.slow

SECONDS = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that two ranks can share, with the embedded model's tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    shape = tiny_config("Llama")
    shape.vocab_size, shape.max_position_embeddings = 4096, 2048
    torch.manual_seed(0)
    LlamaForCausalLM(shape).save_pretrained(folder)
    shutil.copy(DEFAULT_MODEL / "tokenizer.json", folder)
    return folder


def shared(folder: Path, **changes: object) -> EngineConfig:
    """With automatic trees, whose forwards are timed on both ranks.

    In float32: two ranks add up halves, which 16 bit rounds otherwise.
    """
    ranks = {"tensor_parallel_size": 2, "tree": "auto", "dtype": "float32", **changes}
    return config(model=str(folder), adapters={}, **ranks)


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[EngineClient]:
    client = EngineClient(shared(folder))
    await client.start()
    yield client
    await client.stop()


async def ended(stream: AsyncIterator[RequestOutput]) -> None:
    async for _ in stream:
        pass


def pid(client: EngineClient) -> int:
    assert client._engine is not None
    assert client._engine.process is not None
    return client._engine.process.pid


def worker_of(engine: int) -> int:
    """The other rank's process."""
    return int(Path(f"/proc/{engine}/task/{engine}/children").read_text().split()[0])


def is_gone(process: int) -> bool:
    """Ended, if perhaps not waited for yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_two_ranks_answer_as_one_does(client: EngineClient, folder: Path) -> None:
    alone = EngineClient(shared(folder, tensor_parallel_size=1))
    await alone.start()
    assert await tokens(client, "shared") == await tokens(alone, "alone")
    await alone.stop()


@pytest.mark.parametrize("rank", [0, 1])
async def test_a_rank_that_dies_takes_the_other_along_and_fresh_ones_serve_on(
    rank: int, client: EngineClient
) -> None:
    before = await tokens(client, "before")
    processes = [pid(client), worker_of(pid(client))]
    stream = client.generate(Request("running", [1, 300], LONG))
    await anext(stream)
    os.kill(processes[rank], signal.SIGKILL)
    with pytest.raises(EngineDead):
        await asyncio.wait_for(ended(stream), 5)
    await until(lambda: all(map(is_gone, processes)), 5)
    await until(lambda: client.is_ready and client.num_restarts == 1, SECONDS)
    assert await tokens(client, "after") == before


async def test_no_rank_is_left_when_the_engine_is_stopped(folder: Path) -> None:
    client = EngineClient(shared(folder, tree="comb"))
    await client.start()
    processes = [pid(client), worker_of(pid(client))]
    await client.stop()
    await until(lambda: all(map(is_gone, processes)), 5)
