"""A real Prometheus scrapes a loaded server: names keep their colon, every panel has data."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.grafana.dashboard import FOLDER, Dashboard, filled
from models import DEFAULT_ADAPTER
from tests.deploy.load import load
from tests.served import free_port, served

pytestmark = pytest.mark.deploy

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
SECONDS, USERS = 12.0, 12
INTERVAL = "8s"
"""Of rates; the test scrapes once a second."""


@pytest.fixture(autouse=True)
def tools() -> None:
    for tool, package in (("prometheus", "prometheus"), ("amtool", "prometheus-alertmanager")):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: install Debian's package {package}")


def run(*command: str | Path) -> None:
    """Run it; what it says is shown where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """Ours, but for whom it scrapes, how often, and alerts that nobody would receive; its URL."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (ours,) = [job for job in config["scrape_configs"] if job["job_name"] == "bita"]
    del ours["dns_sd_configs"], config["alerting"]
    ours["static_configs"] = [{"targets": [target]}]
    config["scrape_configs"] = [ours]
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    storage = f"--storage.tsdb.path={folder / 'data'}"
    command = ["prometheus", f"--config.file={file}", storage, f"--web.listen-address={address}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(f"http://{address}/-/ready", process)
            yield f"http://{address}"
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "prometheus ended"
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("prometheus did not become ready")


def asked(url: str, expr: str) -> list[dict[str, Any]]:
    """What an instant query finds."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expr}).json()
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def test_its_tools_find_no_fault() -> None:
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    run("promtool", "check", "rules", PROMETHEUS / "alerts.yml")
    run("amtool", "check-config", PROMETHEUS / "alertmanager.yml")


def test_every_alert_fires_where_it_should_and_not_where_it_should_not() -> None:
    run("promtool", "test", "rules", Path(__file__).parent / "alerts_test.yml")


def test_what_a_loaded_server_tells_is_what_dashboards_and_routers_ask_for(tmp_path: Path) -> None:
    adapters = [f"--adapter={name}={DEFAULT_ADAPTER}" for name in ("first", "second")]
    # So little cache that some requests lose theirs on the way.
    small = ("--kv-cache-memory", "8MiB", "--max-num-seqs", "8")
    model = "--served-model-name=m"
    with (
        served(*adapters, *small, model) as server,
        prometheus(server.url.removeprefix("http://"), tmp_path) as url,
    ):
        asyncio.run(load(server.url, SECONDS, USERS, ["m", "first", "second"]))
        time.sleep(1.5)
        empty = [
            (panel.title, target.expr)
            for file in FOLDER.glob("*.json")
            for panel in Dashboard.read(file).panels
            for target in panel.targets
            if not [n for n in asked(url, filled(target.expr, INTERVAL)) if n["value"][1] != "NaN"]
        ]
        assert not empty
        names = httpx.get(f"{url}/api/v1/label/__name__/values").json()["data"]
        assert "vllm:num_requests_waiting" in names
        assert not [name for name in names if name.startswith("vllm_")]
        (cache,) = asked(url, "vllm:cache_config_info")
        assert int(cache["metric"]["num_gpu_blocks"]) > 1
        (lora,) = asked(url, "count_values without () ('time', vllm:lora_requests_info)")[-1:]
        assert lora["metric"]["max_lora"] == "2"
        assert float(asked(url, "vllm:num_preemptions_total")[0]["value"][1]) > 0
        for code in ("200", "400", "404"):
            assert asked(url, f'sum(bita_http_requests_total{{code="{code}"}}) > 0'), code
        assert {"first", "second"} <= {
            one["metric"]["adapter"] for one in asked(url, "bita_adapter_requests_total > 0")
        }
        rules = httpx.get(f"{url}/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} == {"ok"}
        assert not [rule["name"] for rule in rules if rule["state"] == "firing"]
