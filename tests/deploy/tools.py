"""What these suites run that is no Python."""

from __future__ import annotations

import shutil

import pytest

_INSTALLED_BY = {
    "buildah": "Debian's package buildah",
    "mmdebstrap": "Debian's package mmdebstrap",
    "nginx": "Debian's package nginx-light",
    "podman": "Debian's package podman",
    "runc": "Debian's package runc",
    "check-jsonschema": "make test-deploy",
    "hadolint": "make test-deploy",
    "podman-compose": "make test-deploy",
}


def need(*tools: str) -> None:
    """Skip the test, and say what to install, where one of `tools` is not on PATH."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(", ".join(f"no {tool}: install {_INSTALLED_BY[tool]}" for tool in missing))
