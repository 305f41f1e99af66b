"""What the documents tell a reader to type, click or expect is there."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from engine.stats import AdapterStats, EngineStats
from server import cli
from server.intake import Intake
from server.metrics import Metrics
from server.schemas.adapters import LoadAdapterRequest
from server.schemas.base import Schema
from server.schemas.chat import ChatCompletionRequest
from server.schemas.common import Speculation, StreamOptions
from tests.packaging import api_tables
from tests.server.stub import StubClient, server_config

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "examples" / "concierge" / "README.md",
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#:\s]+)\)")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def fences(document: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(document.read_text()) if kind == language]


def commands(document: Path, program: str) -> list[list[str]]:
    """Every call of `program` in a document's shell blocks and inline code, as words."""
    lines = INLINE.findall(FENCE.sub("", document.read_text()))
    for block in fences(document, "sh"):
        lines += block.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]
    return [line[1:] for line in words]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=relative)


def test_the_readme_is_read_and_shows_all_commands() -> None:
    assert {"serve", "tune"} <= {line[0] for line in commands(README, "bita")}
    assert {"serve", "test"} <= {line[0] for line in commands(README, "make")}
    assert len(README.read_text().splitlines()) <= 150


@every_document
def test_commands_and_flags_exist(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, *rest in commands(document, "bita"):
        words = [command, *rest[:1]] if command == "adapters" else [command]
        with pytest.raises(SystemExit) as exit_:
            cli.main([*words, "--help"])
        assert exit_.value.code == 0
        known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        used = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert used <= known, f"bita {command} has no {used - known}"


@pytest.mark.parametrize(("page", "command"), [("operations", "serve"), ("tuning", "tune")])
def test_options_in_tables_exist_and_the_servers_are_all_there(
    page: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    known = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    text = (ROOT / "docs" / f"{page}.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `--")]
    named = {flag for row in rows for flag in re.findall(r"`(--[a-z-]+)`", row)}
    assert rows
    assert named <= known
    if page == "operations":
        assert named == known


@every_document
def test_make_targets_exist(document: Path) -> None:
    known = set(TARGET.findall((ROOT / "Makefile").read_text()))
    used = {line[0] for line in commands(document, "make")}
    assert used <= known


@pytest.mark.parametrize(("target", "last"), [("serve", "bita serve"), ("test", "-m pytest")])
def test_the_two_commands_set_up_and_run(target: str, last: str, tmp_path: Path) -> None:
    """On a machine without an environment; read off a dry run."""
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS"}
    environment = {k: v for k, v in os.environ.items() if k not in outer}
    steps = subprocess.run(
        ["make", "-n", target],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    order = [steps.index(part) for part in ("-m venv .venv", "torch", "-e '.[dev]'", last)]
    assert order == sorted(order)


@every_document
def test_python_examples_compile(document: Path) -> None:
    for example in fences(document, "python"):
        compile(example, relative(document), "exec")


def test_the_curl_example_is_a_valid_request() -> None:
    calls = [line for line in _curl_calls() if "-d" in line]
    assert calls
    for call in calls:
        body = json.loads(call[call.index("-d") + 1])
        assert ChatCompletionRequest.model_validate(body).model == "bita-concierge"


def _curl_calls() -> list[list[str]]:
    blocks = [block for block in fences(README, "sh") if block.startswith("curl ")]
    return [shlex.split(block) for block in blocks]


@every_document
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        assert (document.parent / link).exists(), link


def test_every_series_is_on_the_metrics_page() -> None:
    client = StubClient(stats=EngineStats(adapters={"quick": AdapterStats()}))
    exposed = Metrics(server_config(ROOT / "model"), client, Intake(1)).exposition().decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposed, re.MULTILINE))
    series = {name: kind for name, kind in types.items() if not name.endswith("_created")}
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert dict(re.findall(r"^\| `(\S+)` \| (\w+) \|", page, re.MULTILINE)) == series


def test_the_tables_of_fields_are_the_schemas() -> None:
    page = api_tables.PAGE.read_text()
    assert all(f"<!-- fields of {model.__name__} -->" in page for model in api_tables.MODELS)
    assert api_tables.filled(page) == page, "run python -m tests.packaging.api_tables"
    assert all(f.description for model in api_tables.MODELS for f in model.model_fields.values())


@pytest.mark.parametrize("schema", [StreamOptions, Speculation, LoadAdapterRequest])
def test_every_part_of_a_field_is_on_the_api_page(schema: type[Schema]) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert all(name in page for name in schema.model_fields)
