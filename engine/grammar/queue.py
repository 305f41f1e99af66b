"""Requests whose grammar is being compiled, beside the steps.

Compiling may take longer than many steps, so it has threads of its own; the library lets go of the
interpreter's lock meanwhile. Whoever waits longer than `COMPILE_SECONDS` is refused; the thread
goes on to the library's own limits.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import RequestError
from engine.grammar.compiler import GrammarCompiler
from engine.request import Request

COMPILE_SECONDS = 10.0
THREADS = 2


@dataclass(frozen=True, slots=True)
class Compiled:
    """A request's grammar is at hand, or cannot be: `error` says why."""

    request: Request
    error: Exception | None


class CompileQueue:
    """What waits, and the threads that work it off.

    done: called by a thread with every `Compiled`.
    """

    def __init__(self, compiler: GrammarCompiler, done: Callable[[Compiled], None]) -> None:
        self._compiler, self._done = compiler, done
        self._todo: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._deadlines: dict[str, tuple[float, Request]] = {}
        self._started = False

    def add(self, request: Request) -> bool:
        """Compile a request's grammar; False where nothing has to be."""
        if request.grammar is None or self._compiler.knows(request.grammar):
            return False
        if not self._started:
            self._started = True
            for _ in range(THREADS):
                threading.Thread(target=self._work, daemon=True).start()
        self._deadlines[request.request_id] = (time.monotonic() + COMPILE_SECONDS, request)
        self._todo.put(request)
        return True

    def drop(self, request_id: str) -> bool:
        """Let nobody wait for this request any more; whether somebody did."""
        return self._deadlines.pop(request_id, None) is not None

    def overdue(self) -> list[tuple[str, RequestError]]:
        """Requests that have waited too long, each with what to tell it; they are dropped."""
        now = time.monotonic()
        late = [request for deadline, request in self._deadlines.values() if deadline < now]
        refusals = []
        for request in late:
            self.drop(request.request_id)
            field = request.grammar.field if request.grammar else None
            message = f"Invalid '{field}': it takes longer than {COMPILE_SECONDS:.0f} s to compile"
            refusals.append((request.request_id, RequestError(message, field)))
        return refusals

    def close(self) -> None:
        """End the threads."""
        for _ in range(THREADS):
            self._todo.put(None)

    def _work(self) -> None:
        while (request := self._todo.get()) is not None:
            error: Exception | None = None
            # Who is gone by now needs no answer.
            if request.request_id in self._deadlines and request.grammar is not None:
                try:
                    self._compiler.compile(request.grammar)
                except Exception as caught:
                    error = caught
                self._done(Compiled(request, error))
