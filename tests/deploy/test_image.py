"""The image: what its recipe holds, and what comes of building and running it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.deploy.containers import ROOT, Store
from tests.deploy.front import wait_for
from tests.deploy.tools import need
from tests.served import free_port

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CACHE = "/var/cache/bita"
LOAD_SECONDS = 240
LABEL = "org.opencontainers.image"


def instructions(name: str) -> list[str]:
    """What follows each `name` in the recipe, lines joined."""
    text = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)


def test_signals_reach_the_server_itself() -> None:
    (entrypoint,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entrypoint) == ["bita"]
    assert json.loads(command) == ["serve"]
    (healthcheck,) = instructions("HEALTHCHECK")
    assert json.loads(healthcheck.partition("CMD ")[2])[0] == "python"


def test_dependencies_come_before_the_source() -> None:
    first, *rest = instructions("COPY")
    assert first.split() == ["pyproject.toml", "./"]
    assert rest == [". .", "--from=dependencies /opt/bita /opt/bita"]
    requirements, wheel = (DOCKERFILE.index(text) for text in ("-r requirements", "pip wheel"))
    assert requirements < wheel


def test_the_version_is_the_projects() -> None:
    assert f"VERSION={PROJECT['project']['version']}" in instructions("ARG")


def test_no_registry_is_named_but_the_base_images() -> None:
    assert set(re.findall(r"://([^:/]+)", DOCKERFILE)) == {"127.0.0.1"}
    assert set(instructions("FROM")) == {
        "python:${PYTHON_VERSION}-slim AS dependencies",
        "python:${PYTHON_VERSION}-slim AS build",
        "python:${PYTHON_VERSION}-slim AS base",
        "base",
    }


def test_the_build_is_sent_all_packages_and_nothing_else_of_ours() -> None:
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    files = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert sent == {name.rstrip("*") for name in packages} | files


@pytest.mark.deploy
def test_hadolint_finds_nothing() -> None:
    need("hadolint")
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.deploy
def test_an_image_says_how_it_is_run(store: Store, image: str) -> None:
    told = json.loads(store.run("buildah", "inspect", "--type=image", image))["Docker"]["config"]
    assert told["User"] == "10001:10001"
    assert told["Entrypoint"] == ["bita"]
    assert told["Cmd"] == ["serve"]
    assert told["StopSignal"] == "SIGTERM"
    assert told["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert list(told["ExposedPorts"]) == ["8000/tcp"]
    assert list(told["Volumes"]) == [CACHE]
    labels = {key.rpartition(".")[2]: value for key, value in told["Labels"].items()}
    assert labels["version"] == PROJECT["project"]["version"]
    assert (labels["revision"], labels["source"]) == ("abc", "here")
    assert labels["licenses"] == "Apache-2.0 AND CC-BY-SA-4.0"


@pytest.mark.deploy
def test_it_compiles_its_kernels_and_serves_with_a_read_only_root_and_no_rights(
    store: Store, image: str
) -> None:
    with running(store, image) as (name, url, process):
        assert store.run("podman", "exec", name, "id", "-u").strip() == "10001"
        root = ("podman", "exec", name, "touch", "/x")
        assert subprocess.run(root, env=store.environment, capture_output=True).returncode != 0
        kernels = store.run("podman", "exec", name, "ls", f"{CACHE}/bita/kernels")
        assert kernels.strip().endswith(".so")
        store.run("podman", "healthcheck", "run", name)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=chat(300), timeout=60) as it:
            lines = it.iter_lines()
            assert next(lines).startswith("data: {")
            stopping = subprocess.Popen(
                ["podman", "stop", "--time=45", name], env=store.environment
            )
            received = [line for line in lines if line]
        assert received[-1] == "data: [DONE]"
        assert json.loads(received[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert stopping.wait() == 0
        assert process.wait() == 0


def chat(max_tokens: int) -> dict[str, Any]:
    """A request whose answer is streamed and as long as this."""
    return {
        "model": "bita-concierge",
        "stream": True,
        "ignore_eos": True,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Hi, can you help me book a bus?"}],
    }


@contextmanager
def running(store: Store, image: str) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """A container that is ready: its name, its URL, and the process that ends when it does."""
    name, port = "bita-image", free_port()
    hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    settings = (f"--env=BITA_PORT={port}", "--env=BITA_HOST=127.0.0.1", "--env=BITA_THREADS=2")
    process = subprocess.Popen(
        ["podman", "run", "--rm", f"--name={name}", *hardened, *settings, image],
        env=store.environment,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/health/ready", LOAD_SECONDS)
        yield name, url, process
    finally:
        subprocess.run(
            ["podman", "rm", "--force", "--ignore", name], env=store.environment, check=True
        )
        process.wait()
