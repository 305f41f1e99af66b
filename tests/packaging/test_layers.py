"""The walls between the rooms: who may import whom, and that the server starts without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTS = """
import importlib, pkgutil, sys
import engine.client
import server

of_an_extra = {"server.cluster.router", "server.cluster.serve_app"}  # [ray]
for module in pkgutil.walk_packages(server.__path__, "server."):
    if module.name not in of_an_extra:
        importlib.import_module(module.name)
print(*sys.modules)
print(*{"torch", "transformers"} & {name.partition(".")[0] for name in sys.modules})
"""
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in the repository, whose modules come first."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_module_of_the_server_imports_torch_or_transformers() -> None:
    run = python("-c", IMPORTS)
    assert run.returncode == 0, run.stderr
    imported, heavy = map(str.split, run.stdout.splitlines())
    assert {"server.app", "server.cli", "server.commands.serve", "engine.client"} <= set(imported)
    assert heavy == []


def test_the_import_contracts_hold() -> None:
    run = python("-c", LINT, "--no-cache")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout
