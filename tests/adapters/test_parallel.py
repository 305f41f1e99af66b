"""Two processes give the adapter of one that has the batch of both."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.errors import AdapterError
from adapters.tuning import parallel
from tests.adapters.parallel_worker import RECIPE, tuner

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind, each in a file of its own."""
    folder = tmp_path_factory.mktemp("parallel")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["PYTHONPATH"] = str(ROOT)
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.adapters.parallel_worker", str(folder)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.slow
def test_parameters_are_equal_across_processes_and_those_of_one_alone(
    ranks: list[dict[str, Any]],
) -> None:
    alone = tuner()
    for _ in range(RECIPE.steps):
        alone.step()
    first, second = (rank["parameters"] for rank in ranks)
    for one, two, whole in zip(first, second, alone.parameters, strict=True):
        assert torch.equal(one, two)
        assert torch.allclose(one, whole, atol=1e-5)
    assert sum(rank["contexts"] for rank in ranks) <= len(alone.samples)


@pytest.mark.slow
def test_the_leader_alone_writes_and_its_checkpoint_is_anyones(folder: Path) -> None:
    assert sorted(f.name for f in (folder / "run").iterdir()) == ["checkpoint.pt", "log.jsonl"]
    lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    resumed = tuner()
    resumed.fit(folder / "run")
    assert resumed.steps_done == RECIPE.steps


@pytest.mark.slow
def test_what_is_gathered_is_in_order_and_the_leader_is_believed(
    ranks: list[dict[str, Any]],
) -> None:
    assert all(rank["gathered"] == list(range(7)) for rank in ranks)
    assert all(rank["of_leader"] == "from 0" for rank in ranks)


@pytest.mark.slow
def test_a_process_whose_numbers_overflow_stops_all(ranks: list[dict[str, Any]]) -> None:
    assert all("step 5: the loss is" in rank["stopped"] for rank in ranks)


def test_alone_nothing_is_shared() -> None:
    assert parallel.join("auto") == "auto"
    assert (parallel.world(), parallel.rank(), parallel.leads()) == (1, 0, True)
    assert [1, 2, 3][parallel.shard(5)] == [1, 2, 3]
    assert parallel.gather([1, 2]) == [1, 2]
    parallel.leave()


@pytest.mark.parametrize(("device", "match"), [("cuda:0", "one device"), ("cuda", "0 GPUs")])
def test_devices_that_do_not_go_round_are_refused(
    device: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(AdapterError, match=match):
        parallel.join(device)


def test_more_processes_than_conversations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "world", lambda: 7)
    with pytest.raises(AdapterError, match="7 processes"):
        tuner()
