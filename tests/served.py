"""`bita serve` in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

READY_SECONDS = 120
END_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Served:
    """url: without /v1. process: the server's own, whose child is the engine."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def served(*options: str, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A server of the embedded model, ready; stopped by SIGTERM, after which it must exit with 0.

    options: of `bita serve`. env: what its environment has beside ours. PYTHONPATH, by which
    suites with packages of their own find them, is not handed on.
    """
    port = free_port()
    main = "import sys; from server.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "serve", "--port", str(port), *options]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**inherited, "BITA_DTYPE": "float32", **(env or {})}
    process = subprocess.Popen(command, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        yield Served(url, process)
    finally:
        process.terminate()
        assert process.wait(timeout=END_SECONDS) == 0


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Return once `/health/ready` is 200; fails if `process` ends before, or it takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while not _ready(url):
        assert process is None or process.poll() is None, "the server ended while starting"
        assert time.monotonic() < deadline, "the server did not become ready"
        time.sleep(0.2)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
