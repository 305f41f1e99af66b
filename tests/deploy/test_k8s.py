"""The manifests of deploy/k8s: what they promise, as YAML; their schemas, where the tools are."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.app import PATHS, create_app
from server.auth import OPEN_PATHS
from server.cluster.options import parsed
from server.commands.serve import config_of
from tests.server.stub import StubClient

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
# Kinds of operators' own: kubernetes-validate has no schema of theirs.
CUSTOM = {
    "PodMonitor": "monitoring.coreos.com/v1",
    "ScaledObject": "keda.sh/v1alpha1",
    "InferencePool": "inference.networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
}
IMAGE_UID = 10001

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH")


@cache
def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def base(name: str) -> dict[str, Any]:
    return documents(K8S / "base" / name)[0]


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = base("deployment.yaml")["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def server(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def option(server: dict[str, Any], name: str) -> str:
    (value,) = [arg.partition("=")[2] for arg in server["args"] if arg.startswith(f"--{name}=")]
    return str(value)


def test_every_file_is_part_of_something() -> None:
    kept = {path.resolve() for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml"}
    used: set[Path] = set()
    for file in K8S.rglob("kustomization.yaml"):
        (found,) = documents(file)
        patches = [patch["path"] for patch in found.get("patches", []) if "path" in patch]
        for name in [*found.get("resources", []), *found.get("components", []), *patches]:
            assert (file.parent / name).exists()
            used.add((file.parent / name).resolve())
    assert kept <= used
    assert {K8S / "components" / name for name in COMPONENTS} - used == {
        K8S / "components" / "gateway"  # takes a picker that is not ours
    }


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_ask_for_what_there_is(server: dict[str, Any], probe: str) -> None:
    asked = server[probe]["httpGet"]
    assert asked["path"] in PATHS
    assert asked["path"] in OPEN_PATHS
    assert asked["port"] in {port["name"] for port in server["ports"]}
    wanted = "/health/live" if probe == "livenessProbe" else "/health/ready"
    assert asked["path"] == wanted


def test_readiness_turns_before_liveness_kills(server: dict[str, Any]) -> None:
    def seconds(probe: str) -> int:
        return int(server[probe]["periodSeconds"] * server[probe]["failureThreshold"])

    assert seconds("readinessProbe") < 10 < seconds("livenessProbe")
    assert seconds("startupProbe") >= 600


def test_there_is_time_to_drain(pod: dict[str, Any], server: dict[str, Any]) -> None:
    command = server["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    needed = int(command[1]) + int(option(server, "shutdown-timeout"))
    assert pod["terminationGracePeriodSeconds"] >= needed + 10


def test_ports_agree(server: dict[str, Any]) -> None:
    (port,) = server["ports"]
    assert int(option(server, "port")) == port["containerPort"]
    (outside,) = base("service.yaml")["spec"]["ports"]
    assert outside["targetPort"] == port["name"]
    (entry,) = base("network.yaml")["spec"]["ingress"]
    assert [found["port"] for found in entry["ports"]] == [port["name"]]
    (endpoint,) = documents(K8S / "components/monitoring/podmonitor.yaml")[0]["spec"][
        "podMetricsEndpoints"
    ]
    assert endpoint["port"] == port["name"]
    pool = documents(K8S / "components/gateway/pool.yaml")[0]
    assert pool["spec"]["targetPorts"] == [{"number": port["containerPort"]}]


def test_a_pod_has_no_rights(pod: dict[str, Any], server: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == IMAGE_UID
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"limits", "requests"} <= set(server["resources"])
    policy = base("network.yaml")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy


def test_what_the_image_writes_to_is_mounted(server: dict[str, Any]) -> None:
    """Its root is read-only; torch makes a folder in its cache as it starts."""
    image = (K8S.parents[1] / "Dockerfile").read_text()
    (written,) = re.findall(r"^VOLUME (\S+)$", image, re.MULTILINE)
    mounts = {mount["mountPath"]: mount for mount in server["volumeMounts"]}
    assert {written, "/tmp"} <= set(mounts)
    assert not mounts[written].get("readOnly")


def test_no_secret_is_in_the_repository(server: dict[str, Any]) -> None:
    (key,) = [env for env in server["env"] if env["name"] == "BITA_API_KEY"]
    assert set(key["valueFrom"]) == {"secretKeyRef"}
    assert not key["valueFrom"]["secretKeyRef"].get("optional")
    kinds = {found["kind"] for file in K8S.rglob("*.yaml") for found in documents(file)}
    assert "Secret" not in kinds


def test_kinds_of_operators_are_of_the_versions_meant() -> None:
    for file in (K8S / "components").rglob("*.yaml"):
        for found in documents(file):
            if found["kind"] in CUSTOM:
                assert found["apiVersion"] == CUSTOM[found["kind"]]


def test_replicas_follow_the_queue_of_a_series_we_have() -> None:
    (scaled,) = documents(K8S / "components/autoscaling/scaledobject.yaml")
    (trigger,) = scaled["spec"]["triggers"]
    app = create_app(config_of(parsed([])), StubClient())
    series = app.state.serving.metrics.exposition().decode()
    assert "vllm:num_requests_waiting" in trigger["metadata"]["query"]
    assert "\nvllm:num_requests_waiting{" in series
    assert scaled["spec"]["scaleTargetRef"]["name"] == base("deployment.yaml")["metadata"]["name"]
    assert scaled["spec"]["minReplicaCount"] == base("deployment.yaml")["spec"]["replicas"]


@needs_kubectl
@pytest.mark.deploy
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_applied_meets_its_schemas(overlay: str, tmp_path: Path) -> None:
    validate = shutil.which("kubernetes-validate")
    if validate is None:
        pytest.skip("no kubernetes-validate: `make test-deploy` installs it")
    rendered = kustomized(K8S / "overlays" / overlay)
    core = [found for found in rendered if found["kind"] not in CUSTOM]
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= {
        found["kind"] for found in core
    }
    file = tmp_path / "core.yaml"
    file.write_text(yaml.safe_dump_all(core))
    subprocess.run([validate, "--strict", str(file)], check=True)


@needs_kubectl
@pytest.mark.deploy
def test_overlays_say_what_they_are_for() -> None:
    cpu, gpu = (kustomized(K8S / "overlays" / name) for name in ("cpu", "gpu"))
    (cpu_server,), (gpu_server,) = map(servers, (cpu, gpu))
    assert cpu_server["image"] == "bita-serve:cpu"
    assert gpu_server["image"] == "bita-serve:gpu"
    assert gpu_server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"ScaledObject", "PodMonitor", "PersistentVolumeClaim"} <= {f["kind"] for f in gpu}
    (deployment,) = [found for found in gpu if found["kind"] == "Deployment"]
    assert "replicas" not in deployment["spec"]
    for found in [*cpu, *gpu]:
        assert found["metadata"]["namespace"] == "bita-serve"
        for selector in selectors(found):
            assert selector == {"app.kubernetes.io/name": "bita-serve"}


def kustomized(folder: Path) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return list(yaml.safe_load_all(output))


def servers(rendered: list[dict[str, Any]]) -> list[dict[str, Any]]:
    (deployment,) = [found for found in rendered if found["kind"] == "Deployment"]
    containers: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
    return containers


def selectors(found: dict[str, Any]) -> list[dict[str, str]]:
    """Of a Deployment, a Service, a budget, a policy or a monitor."""
    given = [found["spec"].get(name) for name in ("selector", "podSelector")]
    return [selector.get("matchLabels", selector) for selector in given if selector is not None]
