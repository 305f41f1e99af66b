"""Images and containers without a Docker engine: buildah, podman and runc, in a store of their own.

Nothing is pulled: what the files name as base images is made of Debian's packages and given the
same names. Containers share the host's network, since a machine that is a container itself often
cannot give them one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.tools import need

ROOT = Path(__file__).parents[2]
SUITE, PYTHON = "bookworm", "3.11"
"""Debian's release that stands in for Python's image, and the Python it has."""
NGINX_SUITE = "forky"
"""The first whose nginx looks names up again (`resolve`)."""
TORCH = "torch==2.13.0"

_CONTAINERS_CONF = """[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
netns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""


@dataclass(frozen=True, slots=True)
class Store:
    """Images and containers below `folder`, where nobody else has any."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Store:
        """An empty one; skips the test where its tools are missing."""
        need("buildah", "podman", "runc", "mmdebstrap")
        if os.geteuid() != 0:
            pytest.skip("containers are made by root here: run it as root")
        (folder / "containers.conf").write_text(_CONTAINERS_CONF)
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        )
        return cls(folder)

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with which the tools use this store."""
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """What a command that must succeed says on stdout."""
        done = subprocess.run(
            command,
            env={**self.environment, **(env or {})},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def debian(self, name: str, suite: str, *packages: str, then: str = "true") -> None:
        """Make an image of a Debian release with these packages, on which `then` was run."""
        context = self.folder / "context"
        context.mkdir()
        self.run(
            "mmdebstrap",
            "--variant=minbase",
            # A mirror may be older than the release allows.
            '--aptopt=Acquire::Check-Valid-Until "false"',
            f"--include={','.join(packages)}",
            suite,
            f"{context}/root.tar",
        )
        (context / "Dockerfile").write_text(f"FROM scratch\nADD root.tar /\nRUN {then}\n")
        self.run("buildah", "bud", "--tag", name, str(context))
        shutil.rmtree(context)

    def build(self, tag: str, *options: str, **arguments: str) -> None:
        """Build our Dockerfile as it is, with this machine's pip settings during the build only.

        options: of `buildah bud`. arguments: of the build.
        """
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        mounts = [f"--volume={mount}" for mount in self._pip_mounts()]
        self.run(
            *("buildah", "bud", "--format=docker", "--network=host", "--pull-never"),
            *(*mounts, *options, *given, "--tag", tag, str(ROOT)),
        )

    def _pip_mounts(self) -> list[str]:
        """A pip.conf with all that pip is told on this machine, and the files it is told of."""
        lines = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
        ).stdout.splitlines()
        # The environment is listed first, and goes before files.
        told = [line.partition("=") for line in reversed(lines)]
        settings = {key.rpartition(".")[2]: value.strip("'\"") for key, _, value in told}
        file = self.folder / "pip.conf"
        file.write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items()))
        words = {word for value in settings.values() for word in value.split()}
        folders = {_folder(word) for word in words} - {None}
        return [f"{file}:/etc/pip.conf:ro", *(f"{folder}:{folder}:ro" for folder in folders)]


def _folder(word: str) -> Path | None:
    """The folder that a setting's word leads to; an index's files lie beside its pages."""
    if word.startswith("file://"):
        return Path(word.removeprefix("file://")).parent
    path = Path(word)
    if not path.is_absolute() or not path.exists():
        return None
    return path if path.is_dir() else path.parent
