"""A server as a side: what starts it, what it is asked; and its process."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx

from benchmarks.sessions import Call

START_SECONDS = 180.0
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Side:
    """command: of a port. body: of a call and a temperature. environment: added to our own."""

    name: str
    command: Callable[[int], Sequence[str]]
    body: Callable[[Call, float], dict[str, Any]]
    environment: Mapping[str, str] = field(default_factory=dict)


class Server:
    """The process of a side, ready when the context is entered."""

    def __init__(self, side: Side) -> None:
        self.side, self.port = side, _free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        """Start it and wait until it is healthy; RuntimeError with its log if it is not."""
        self._log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            list(self.side.command(self.port)),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.side.environment},
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"{self.side.name} did not start:\n{self._tail}")
            time.sleep(0.2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Stop it, kindly at first."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.seek(0)
        self._tail = self._log.read()[-2000:]
        self._log.close()

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
