"""`bita serve` on the embedded model, as started in an environment without the clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

MODEL = "bita-concierge"
KEY = "secret"

# litellm otherwise asks the net for prices when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@pytest.fixture(scope="session")
def base() -> Iterator[str]:
    """Its URL, ready to be asked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    main = "import sys; from server.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "serve", "--port", str(port), "--api-key", KEY]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(command, env={**environment, "BITA_DTYPE": "float32"})
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _ready(base):
            assert process.poll() is None, "the server ended while starting"
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.2)
        yield base
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


@pytest.fixture(scope="session")
def url(base: str) -> str:
    """What a client is given for a base URL."""
    return f"{base}/v1"


def _ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
