"""Images that more than one suite runs; each takes minutes, so they are built once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import yaml

from tests.deploy.containers import NGINX_SUITE, PYTHON, ROOT, SUITE, TORCH, Store

WGET = "ln -s busybox /usr/bin/wget"
"""By which compose asks for health in images that are not ours."""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("containers")
    yield Store.make(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def base_image(store: Store) -> str:
    """The name of Python's slim image, under which there is a Debian with its own Python."""
    name = f"docker.io/library/python:{PYTHON}-slim"
    packages = ("python3", "python3-venv", "python3-pip", "python-is-python3", "ca-certificates")
    store.debian(name, SUITE, *packages)
    return name


@pytest.fixture(scope="session")
def image(store: Store, base_image: str) -> str:
    """Our image's name, built by the Dockerfile."""
    store.build("bita-serve:cpu", PYTHON_VERSION=PYTHON, TORCH=TORCH, REVISION="abc", SOURCE="here")
    return "localhost/bita-serve:cpu"


@pytest.fixture(scope="session")
def nginx_image(store: Store) -> str:
    """The name of the image that compose has in front, with Debian's nginx in it."""
    name = _named_in_compose("front")
    store.debian(name, NGINX_SUITE, "nginx-light", "busybox", then=WGET)
    return name


@pytest.fixture(scope="session")
def prometheus_image(store: Store) -> str:
    """The same of Prometheus, which Debian has in an older version."""
    name = _named_in_compose("prometheus")
    store.debian(name, SUITE, "prometheus", "busybox", then=f"{WGET}; mkdir -m 1777 /prometheus")
    return name


def _named_in_compose(service: str) -> str:
    image: str = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service][
        "image"
    ]
    return f"docker.io/{image}" if "/" in image else f"docker.io/library/{image}"
