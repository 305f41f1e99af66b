"""docker-compose.yml: what it holds, and what comes of bringing it up."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.config import ServerConfig
from tests.deploy.containers import ROOT, Store
from tests.deploy.front import CONFIG, wait_for, write_config
from tests.deploy.names import NameServer
from tests.deploy.replica import Replica, serving
from tests.deploy.test_image import LOAD_SECONDS, chat
from tests.deploy.tools import need
from tests.served import free_port

FILE = ROOT / "docker-compose.yml"
HOST_NETWORK = ROOT / "tests" / "deploy" / "host-network.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = ("server-cpu", "server-gpu")
DEFAULTS = {field.name: field.default for field in fields(ServerConfig)}
PROJECT = "bita-deploy"
STARTED = ("server-cpu", "front", "prometheus")
"""What is brought up; there is nothing to make Grafana's image of."""

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))


@every_service
def test_a_service_has_no_rights_it_does_not_need(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode"} & set(service)
    # Ours says it itself.
    assert service["image"].startswith("bita-serve:") or int(service["user"].split(":")[0]) > 0


@every_service
def test_only_the_front_may_be_reached_from_elsewhere(service: dict[str, Any]) -> None:
    addresses = {port.rsplit(":", 2)[0] for port in service.get("ports", [])}
    front = service is SERVICES["front"]
    assert addresses <= {"${BITA_LISTEN:-127.0.0.1}" if front else "127.0.0.1"}


def test_servers_have_no_way_out_and_share_a_name() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in SERVERS:
        assert SERVICES[name]["networks"] == {"inside": {"aliases": ["server"]}}
        assert "ports" not in SERVICES[name]
    assert "server server:8000 resolve" in (CONFIG / "servers.conf").read_text()


@every_service
def test_what_is_mounted_is_there(service: dict[str, Any]) -> None:
    for volume in service.get("volumes", []):
        source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume


@every_service
def test_images_are_of_one_version_and_secrets_are_not_written_down(
    service: dict[str, Any],
) -> None:
    assert re.search(r":(cpu|gpu|v?\d+\.\d+.*)$", service["image"])
    settings = service.get("environment", {})
    if isinstance(settings, dict):
        secret = {name: value for name, value in settings.items() if "PASSWORD" in name}
        assert all(name.endswith("__FILE") for name in secret)
    else:
        assert not any("=" in setting for setting in settings)


def test_what_runs_has_time_to_end() -> None:
    for name in (*SERVERS, "front"):
        grace = SERVICES[name]["stop_grace_period"]
        assert int(grace.removesuffix("s")) > DEFAULTS["shutdown_timeout"] + 5
    assert SERVICES["front"]["stop_signal"] == "SIGQUIT"


def test_the_front_is_set_up_for_servers_as_they_are_by_default() -> None:
    text = (CONFIG / "nginx.conf").read_text()
    (body,) = re.findall(r"client_max_body_size (\d+)m;", text)
    assert int(body) * 1024**2 == DEFAULTS["max_body_bytes"]
    (silence,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    assert int(silence) > DEFAULTS["keep_alive_seconds"]
    (port,) = re.findall(r"listen (\d+);", text)
    assert SERVICES["front"]["ports"][0].endswith(f":8000:{port}")


def test_the_gpu_service_is_given_a_gpu() -> None:
    (device,) = SERVICES["server-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


@pytest.mark.deploy
def test_the_file_is_what_the_compose_specification_allows() -> None:
    need("check-jsonschema")
    command = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.deploy
def test_the_fronts_image_takes_the_configuration_as_it_is(store: Store, nginx_image: str) -> None:
    front = SERVICES["front"]
    store.run(
        *("podman", "run", "--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"),
        *(f"--user={front['user']}", f"--volume={CONFIG}:/etc/nginx/bita:ro"),
        *(nginx_image, *front["entrypoint"], "-t"),
    )


@pytest.mark.deploy
def test_servers_that_come_and_go_are_found_by_their_name(
    store: Store, nginx_image: str, tmp_path: Path
) -> None:
    front, name, port = SERVICES["front"], "bita-front", free_port()
    first = Replica()
    second = Replica("127.0.0.2", first.server_address[1])
    with serving(first, second), NameServer() as names:
        names.addresses = ["127.0.0.1"]
        server = f"server:{first.server_address[1]} resolve"
        config = write_config(tmp_path / "nginx", port, [server], resolver=names.address)
        process = subprocess.Popen(
            [
                *("podman", "run", "--rm", f"--name={name}", "--read-only", "--tmpfs=/tmp"),
                *(f"--user={front['user']}", f"--volume={config.parent}:/etc/nginx/bita:ro"),
                *(nginx_image, *front["entrypoint"]),
            ],
            env=store.environment,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/any")
            assert not second.asked
            names.addresses = ["127.0.0.2"]
            deadline = time.monotonic() + 60
            while not second.asked and time.monotonic() < deadline:
                assert httpx.get(f"http://127.0.0.1:{port}/any").status_code == 200
                time.sleep(0.5)
            assert second.asked
        finally:
            store.run("podman", "stop", name)
            process.wait()


class Up:
    """The project, brought up at ports of its own."""

    def __init__(self, store: Store, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.store = store
        server = free_port()
        config = write_config(folder / "nginx", port, [f"127.0.0.1:{server}"])
        prometheus = free_port()
        self.prometheus_url = f"http://127.0.0.1:{prometheus}"
        self._env = {
            "SERVER_PORT": str(server),
            "FRONT_CONFIG": str(config.parent),
            "PROMETHEUS_PORT": str(prometheus),
        }

    def compose(self, *command: str) -> str:
        """Run a command of podman-compose with our file and the host's network."""
        files = (f"--file={FILE}", f"--file={HOST_NETWORK}")
        profiles = ("--profile=cpu", "--profile=monitoring")
        program = ("podman-compose", f"--project-name={PROJECT}", *files, *profiles)
        return self.store.run(*program, *command, env=self._env)

    def state(self, service: str) -> dict[str, Any]:
        """What podman knows of a service's container."""
        told = self.store.run("podman", "inspect", f"{PROJECT}_{service}_1")
        state: dict[str, Any] = json.loads(told)[0]
        return state


@pytest.fixture
def up(
    store: Store, image: str, nginx_image: str, prometheus_image: str, tmp_path: Path
) -> Iterator[Up]:
    need("podman-compose")
    project = Up(store, tmp_path)
    try:
        project.compose("up", "--detach", "--no-build", *STARTED)
        wait_for(f"{project.url}/health/ready", LOAD_SECONDS)
        yield project
    finally:
        project.compose("down", "--volumes")


@pytest.mark.deploy
def test_compose_brings_up_a_server_behind_its_front_and_drains_both(up: Up) -> None:
    for service in STARTED:
        settings = up.state(service)["HostConfig"]
        assert settings["ReadonlyRootfs"] is True
        assert not up.state(service)["EffectiveCaps"]
    wait_for(f"{up.prometheus_url}/-/ready")
    rules = httpx.get(f"{up.prometheus_url}/api/v1/rules").json()
    assert rules["data"]["groups"]
    request = {**chat(16), "stream": False}
    answer = httpx.post(f"{up.url}/v1/chat/completions", json=request, timeout=60)
    assert answer.json()["usage"]["completion_tokens"] == 16
    with httpx.stream("POST", f"{up.url}/v1/chat/completions", json=chat(300), timeout=60) as it:
        lines = it.iter_lines()
        assert next(lines).startswith("data: {")
        up.compose("stop")
        assert [line for line in lines if line][-1] == "data: [DONE]"
    for service in STARTED:
        assert up.state(service)["State"]["ExitCode"] == 0
