"""nginx as deploy/nginx sets it up, but for where it listens and which servers it knows."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.served import free_port

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx"
LISTEN, SERVER = "listen 8080;", "server server:8000 resolve "
RESOLVER = "resolver 127.0.0.11 "
START_SECONDS = 10


def write_config(
    folder: Path, port: int, servers: Sequence[str], resolver: str = "127.0.0.11"
) -> Path:
    """Copy the two files into `folder`, which is made; the name of the first.

    port: where nginx listens, on the loopback address. servers: their addresses, HOST:PORT.
    resolver: whom nginx asks for names.
    """
    main, line = (CONFIG / name for name in ("nginx.conf", "servers.conf"))
    assert LISTEN in main.read_text()
    assert RESOLVER in main.read_text()
    assert SERVER in line.read_text()
    folder.mkdir()
    folder.chmod(0o755)
    file = folder / main.name
    text = main.read_text().replace(LISTEN, f"listen 127.0.0.1:{port};")
    file.write_text(text.replace(RESOLVER, f"resolver {resolver} "))
    own = [line.read_text().replace(SERVER, f"server {address} ") for address in servers]
    (folder / line.name).write_text("".join(own))
    return file


@contextmanager
def nginx(folder: Path, servers: Sequence[str]) -> Iterator[str]:
    """The URL of a running nginx before `servers`; its files lie in `folder`."""
    port = free_port()
    config = write_config(folder / "nginx", port, servers)
    # Root's workers would be somebody else, who may not write in root's folder.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config), *user])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/health/front")
        yield url
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, seconds: float = START_SECONDS) -> None:
    """Return once `url` answers with 200."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.1)
