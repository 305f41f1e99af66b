"""Grammars are compiled beside the steps, and nobody waits for ever."""

import queue
import threading

import pytest

from engine.errors import RequestError
from engine.grammar import queue as module
from engine.grammar.queue import Compiled, CompileQueue
from engine.request import Grammar, Request

SECONDS = 30.0


class FakeCompiler:
    """Knows what it was told; "slow" takes until `go`, "bad" is refused."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.known = {"known"}

    def knows(self, grammar: Grammar) -> bool:
        return grammar.text in self.known

    def compile(self, grammar: Grammar) -> None:
        if grammar.text == "slow":
            assert self.go.wait(SECONDS)
        if grammar.text == "bad":
            raise RequestError("bad", grammar.field)


@pytest.fixture
def compiler() -> FakeCompiler:
    return FakeCompiler()


def request(text: str) -> Request:
    return Request(text, [1], grammar=Grammar("regex", text, "guided_regex"))


def make(compiler: FakeCompiler) -> tuple[CompileQueue, queue.Queue[Compiled]]:
    done: queue.Queue[Compiled] = queue.Queue()
    return CompileQueue(compiler, done.put), done  # type: ignore[arg-type]


def test_what_needs_no_compiling_does_not_wait(compiler: FakeCompiler) -> None:
    compiling, _ = make(compiler)
    assert not compiling.add(Request("r", [1]))
    assert not compiling.add(request("known"))


def test_a_slow_grammar_holds_up_no_other(compiler: FakeCompiler) -> None:
    compiling, done = make(compiler)
    assert compiling.add(request("slow"))
    assert compiling.add(request("bad"))
    first = done.get(timeout=SECONDS)
    assert (first.request.request_id, str(first.error)) == ("bad", "bad")
    compiler.go.set()
    assert done.get(timeout=SECONDS) == Compiled(request("slow"), None)
    compiling.close()


def test_what_takes_too_long_is_refused_once(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPILE_SECONDS", 0.0)
    compiling, _ = make(compiler)
    compiling.add(request("slow"))
    [(request_id, error)] = compiling.overdue()
    assert (request_id, error.field) == ("slow", "guided_regex")
    assert "to compile" in str(error)
    assert not compiling.overdue()
    compiler.go.set()
    compiling.close()


def test_nobody_hears_of_a_request_that_was_dropped(compiler: FakeCompiler) -> None:
    compiling, _ = make(compiler)
    compiling.add(request("slow"))
    assert compiling.drop("slow")
    assert not compiling.drop("slow")
    assert not compiling.overdue()
    compiler.go.set()
    compiling.close()
