"""A rank that is gone is noticed, and none is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from engine.config import EngineConfig
from engine.parallel import group

SECONDS = 20


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "WORKER_MODULE", "tests.parallel.idle")


@pytest.fixture
def died() -> threading.Event:
    return threading.Event()


@pytest.fixture
def workers(died: threading.Event) -> Iterator[group.Workers]:
    workers = group.Workers(EngineConfig("", tensor_parallel_size=3), on_death=died.set)
    yield workers
    workers.close()


def test_a_worker_that_dies_is_noticed_and_named(
    workers: group.Workers, died: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    workers._processes[1].kill()
    assert died.wait(SECONDS)
    assert f"rank 2 ended with status {-signal.SIGKILL}" in caplog.text


def test_workers_end_with_their_leader_which_does_not_take_it_for_death(
    workers: group.Workers, died: threading.Event
) -> None:
    workers.close()
    assert [process.returncode for process in workers._processes] == [0, 0]
    assert not died.is_set()
