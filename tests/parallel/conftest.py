"""Two ranks, this process and a worker, that load one tiny model after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from transformers.utils import logging

from engine.config import EngineConfig
from engine.model.build import Build
from engine.model.loaded import LoadedModel
from engine.parallel import group
from engine.parallel.leader import lead, load_with
from engine.parallel.wire import Op

CPU = torch.device("cpu")

Share = Callable[[Any], tuple[LoadedModel, Build]]


@pytest.fixture(scope="package")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[group.Workers]:
    """The other rank; it must have ended by itself once its leader closed the connection."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = EngineConfig("", dtype="float32", device="cpu", tensor_parallel_size=2)
    with mock.patch.object(group, "WORKER_MODULE", "tests.parallel.worker"):
        workers = group.Workers(config, on_death=lambda: None)
    with mock.patch.dict(os.environ):
        workers.join(CPU)
        yield workers
        workers.close()
    torch.set_num_threads(threads)
    assert [process.returncode for process in workers._processes] == [0]


@pytest.fixture
def share(workers: group.Workers, tmp_path: Path) -> Iterator[Share]:
    """Shares a model between the ranks: rank 0's part, and how its runner is built."""
    logging.disable_progress_bar()

    def load(model: Any) -> tuple[LoadedModel, Build]:
        model.save_pretrained(tmp_path)
        config = EngineConfig(str(tmp_path), dtype="float32", device="cpu", tensor_parallel_size=2)
        workers.tell(Op.BUILD, list(str(tmp_path).encode()))
        return load_with(workers, config, CPU), partial(lead, workers)

    yield load
    workers.tell(Op.END)
