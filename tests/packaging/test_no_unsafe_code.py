"""Nothing that runs code out of a file or a request: read off the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    file
    for room in ("adapters", "engine", "server", "models")
    for file in (ROOT / room).rglob("*.py")
]
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__"),
    *(f"pickle.{name}" for name in ("load", "loads", "Unpickler")),
    *("marshal.loads", "shelve.open", "yaml.load", "joblib.load", "numpy.load", "np.load"),
    *("os.system", "os.popen", "subprocess.getoutput"),
    *("jinja2.Environment", "Environment"),  # a sandboxed one it must be
}


def calls(source: str) -> Iterator[tuple[str, dict[str, ast.expr], int]]:
    """Every call by its dotted name, with its keyword arguments and its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            keywords = {k.arg: k.value for k in node.keywords if k.arg is not None}
            yield ast.unparse(node.func), keywords, node.lineno


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def unsafe(source: str) -> list[tuple[str, int]]:
    """Calls that may run what they read, and their lines."""
    return [
        (name, line)
        for name, keywords, line in calls(source)
        if name in FORBIDDEN
        or (name == "torch.load" and not is_true(keywords.get("weights_only")))
        or is_true(keywords.get("trust_remote_code"))
        or is_true(keywords.get("shell"))
    ]


@pytest.mark.parametrize(
    "call",
    [
        *("eval(x)", "exec(x)", "pickle.loads(x)", "torch.load(f)", "os.system(x)"),
        *("torch.load(f, weights_only=False)", "f(trust_remote_code=True)", "run(x, shell=True)"),
    ],
)
def test_the_list_finds(call: str) -> None:
    assert unsafe(call)


def test_no_source_runs_what_it_reads() -> None:
    assert len(SOURCES) > 100
    found = {
        str(file.relative_to(ROOT)): calls
        for file in SOURCES
        if (calls := unsafe(file.read_text()))
    }
    assert not found
