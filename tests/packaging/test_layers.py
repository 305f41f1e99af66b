"""The walls between the rooms: who may import whom, and that the server starts without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORTS = """
import importlib, pkgutil, sys

names = sys.argv[1:]
for name in names:
    module = importlib.import_module(name)
    if name == "server":
        names += [found.name for found in pkgutil.walk_packages(module.__path__, "server.")]
heavy = {name.partition(".")[0] for name in sys.modules} & {"torch", "transformers"}
print(len(names), *sorted(heavy))
"""
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in the repository, whose modules come first."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["server.app", "server.cli", "engine", "server"])
def test_neither_torch_nor_transformers_is_imported(module: str) -> None:
    """`server` stands for every one of its modules."""
    run = python("-c", IMPORTS, module)
    assert run.returncode == 0, run.stderr
    count, *heavy = run.stdout.split()
    assert heavy == []
    assert int(count) > 20 if module == "server" else count == "1"


def test_the_import_contracts_hold() -> None:
    run = python("-c", LINT, "--no-cache")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout
