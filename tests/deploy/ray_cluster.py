"""A Ray cluster of this machine alone, and what is deployed on it with `serve deploy`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.served import free_port

PACKAGES = os.environ.get("RAY_PACKAGES", "")
"""Folder that Ray is installed in, where it is not beside us: what the tests import stays ours."""
START_SECONDS, DEPLOY_SECONDS = 60, 150


@dataclass(frozen=True, slots=True)
class Cluster:
    """dashboard: URL of its REST API. url: of what is deployed. folder: for files and logs."""

    dashboard: str
    url: str
    folder: Path
    env: dict[str, str]

    def deploy(self, config: dict[str, Any]) -> None:
        """Return when all of it runs, and nothing of what ran before."""
        self.submit(config)
        deadline = time.monotonic() + DEPLOY_SECONDS
        while not self.is_running():
            assert time.monotonic() < deadline, self.state()
            time.sleep(0.3)

    def submit(self, config: dict[str, Any]) -> None:
        """Tell Ray what should run."""
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        command = ["ray.serve.scripts", "deploy", str(file), "-a", self.dashboard]
        subprocess.run([sys.executable, "-m", *command], env=self.env, check=True)

    def is_running(self) -> bool:
        """Whether every deployment has all its replicas, and none that starts or stops."""
        state = self.state()
        assert state["status"] not in ("DEPLOY_FAILED", "UNHEALTHY"), state
        return state["status"] == "RUNNING" and all(
            replica["state"] == "RUNNING" for replica in _replicas(state)
        )

    def state(self) -> dict[str, Any]:
        """Of the one application."""
        answer = httpx.get(f"{self.dashboard}/api/serve/applications/", timeout=30)
        applications = answer.json().get("applications", {})
        found: dict[str, Any] = next(iter(applications.values()), {"status": "NONE"})
        return found

    def pids(self, deployment: str) -> set[int]:
        """Of a deployment's replicas."""
        replicas = self.state()["deployments"][deployment]["replicas"]
        return {replica["pid"] for replica in replicas if replica["state"] == "RUNNING"}


def _replicas(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for deployment in state["deployments"].values():
        yield from deployment["replicas"]


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """One that listens on the loopback interface; every process of it is gone at the end."""
    dashboard, port = free_port(), free_port()
    # In /tmp, as the names of its sockets have room for few characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as temp:
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (PACKAGES, os.getcwd()))),
            "BITA_DTYPE": "float32",
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *_options(temp, dashboard)]
        log = Path(temp) / "start.log"
        with log.open("w") as output:
            head = subprocess.Popen(
                command, env=env, stdout=output, stderr=output, start_new_session=True
            )
        cluster = Cluster(
            f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{port}", Path(temp), env
        )
        try:
            _wait_until_up(cluster, head, log)
            yield cluster
        finally:
            _end(head)


def _options(temp: str, dashboard: int) -> list[str]:
    ports = {
        "port": free_port(),
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
    }
    hosts = {"node-ip-address": "127.0.0.1", "dashboard-host": "127.0.0.1"}
    sizes = {"num-cpus": 4, "num-gpus": 0, "object-store-memory": 100_000_000}
    named = {"temp-dir": temp, **ports, **hosts, **sizes}
    flags = ["--head", "--block", "--disable-usage-stats"]
    return flags + [f"--{name}={value}" for name, value in named.items()]


def _end(head: subprocess.Popen[bytes]) -> None:
    """Kill the session that the head began: Ray's own end of it takes half a minute."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(head.pid)], capture_output=True, text=True
    )
    for pid in map(int, found.stdout.split()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    head.wait()


def _wait_until_up(cluster: Cluster, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(f"{cluster.dashboard}/api/version", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
