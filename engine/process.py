"""The engine's process: a loop around `Engine.step`, a socket, a heartbeat.

    python -m engine.process FD

One thread owns the model; another only reads the socket, a third adapters' files, which may take
longer than many steps, and so may grammars (`grammar.queue`). The loop drains what was asked,
steps, and sends what is new; while idle it sends an empty message every `BEAT_SECONDS`. It ends
when the socket closes, so that no engine outlives its server. An error in a step ends the process:
the client tells its requests and starts a fresh one, whose state is known.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from engine.adapter_registry import PreparedAdapter
from engine.engine import Engine
from engine.errors import EngineDead, EngineError, RequestError
from engine.grammar.queue import Compiled, CompileQueue
from engine.load import load_engine, model_info, prepare_adapter
from engine.messages import (
    HEADER_BYTES,
    VERSION,
    Abort,
    AdaptersChanged,
    Add,
    Failed,
    LoadAdapter,
    Message,
    Outputs,
    Ready,
    Refused,
    Start,
    UnloadAdapter,
    decode,
    encode,
    length,
)
from engine.request import Request

BEAT_SECONDS = 0.5
STATS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _Read:
    """An adapter that was to be loaded, read by now, or why that failed."""

    asked: LoadAdapter
    adapter: PreparedAdapter | Exception


Inbox: TypeAlias = "queue.SimpleQueue[Message | _Read | Compiled | None]"
"""What the loop is to do next; None once the connection is closed."""


def serve(connection: socket.socket) -> None:
    """Load what the first message asks for, serve it until the connection closes, close it too."""
    with connection:
        _serve(connection)


def _serve(connection: socket.socket) -> None:
    first = _receive(connection)
    if first is None:
        return
    if not isinstance(first, Start) or first.version != VERSION:
        raise EngineDead(f"expected Start of version {VERSION}, got {first!r}")
    engine = _load(connection, first)
    if engine is None:
        return
    inbox: Inbox = queue.SimpleQueue()
    to_read: queue.SimpleQueue[LoadAdapter | None] = queue.SimpleQueue()
    for target, args in ((_read, (connection, inbox)), (_read_adapters, (engine, to_read, inbox))):
        threading.Thread(target=target, args=args, daemon=True).start()
    compiling = CompileQueue(engine.grammars, inbox.put)
    # When the server is gone, nobody is left to tell.
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _loop(engine, connection, inbox, to_read, compiling)
    finally:
        to_read.put(None)
        compiling.close()


def _load(connection: socket.socket, start: Start) -> Engine | None:
    try:
        engine = load_engine(start.config, start.skip_bad_adapters)
        # What is loaded stays: no garbage collection has to walk it during a step.
        gc.freeze()
        connection.sendall(encode(Ready(model_info(engine))))
        return engine
    except Exception as error:
        kind = type(error).__name__ if isinstance(error, EngineError) else "EngineError"
        if not isinstance(error, EngineError):
            traceback.print_exc()
        connection.sendall(encode(Failed(kind, str(error) or type(error).__name__)))
        return None


def _loop(
    engine: Engine,
    connection: socket.socket,
    inbox: Inbox,
    to_read: queue.SimpleQueue[LoadAdapter | None],
    compiling: CompileQueue,
) -> None:
    told = 0.0
    while True:
        try:
            message = inbox.get(timeout=BEAT_SECONDS) if not engine.has_work else inbox.get_nowait()
            while True:
                if message is None:
                    return
                _handle(engine, connection, message, to_read, compiling)
                message = inbox.get_nowait()
        except queue.Empty:
            pass
        for request_id, error in compiling.overdue():
            connection.sendall(encode(_refusal(request_id, error)))
        outputs, now = engine.step(), time.monotonic()
        stats = None
        # Always with the last step: what is read while nothing runs is exact.
        if now - told >= STATS_SECONDS or not engine.has_work:
            stats, told = engine.stats(), now
        connection.sendall(encode(Outputs(outputs, stats)))


def _handle(
    engine: Engine,
    connection: socket.socket,
    message: Message | _Read | Compiled,
    to_read: queue.SimpleQueue[LoadAdapter | None],
    compiling: CompileQueue,
) -> None:
    match message:
        case Abort(request_id):
            compiling.drop(request_id)
            engine.abort(request_id)
        case Add(request) if not compiling.add(request):
            _add(engine, connection, request)
        case Compiled(request, error) if compiling.drop(request.request_id):
            if error is None:
                _add(engine, connection, request)
            else:
                connection.sendall(encode(_refusal(request.request_id, error)))
        case LoadAdapter(request_id, name):
            try:
                engine.adapters.check_new(name)
                to_read.put(message)
            except EngineError as error:
                connection.sendall(encode(_refusal(request_id, error)))
        case UnloadAdapter() | _Read():
            connection.sendall(encode(_change_adapters(engine, message)))


def _add(engine: Engine, connection: socket.socket, request: Request) -> None:
    try:
        engine.add(request)
    except Exception as error:
        connection.sendall(encode(_refusal(request.request_id, error)))


def _change_adapters(engine: Engine, message: UnloadAdapter | _Read) -> AdaptersChanged | Refused:
    """Do it and say so, or why not; what fails leaves the engine as it was."""
    asked = message.asked if isinstance(message, _Read) else message
    try:
        if isinstance(message, UnloadAdapter):
            engine.adapters.unload(message.name)
        elif isinstance(message.adapter, Exception):
            raise message.adapter
        else:
            engine.adapters.load(message.asked.name, message.adapter, message.asked.folder)
    except Exception as error:
        return _refusal(asked.request_id, error)
    return AdaptersChanged(asked.request_id, engine.adapters.folders)


def _refusal(request_id: str, error: Exception) -> Refused:
    """The answer to what raised `error`; what nobody foresaw goes to stderr as well."""
    field = error.field if isinstance(error, RequestError) else None
    if isinstance(error, EngineError):
        return Refused(request_id, type(error).__name__, str(error), field)
    traceback.print_exception(error)
    return Refused(request_id, EngineError.__name__, str(error) or type(error).__name__, field)


def _read_adapters(
    engine: Engine, to_read: queue.SimpleQueue[LoadAdapter | None], inbox: Inbox
) -> None:
    while (asked := to_read.get()) is not None:
        try:
            inbox.put(_Read(asked, prepare_adapter(engine, asked.folder)))
        except Exception as error:
            inbox.put(_Read(asked, error))


def _read(connection: socket.socket, inbox: Inbox) -> None:
    try:
        while (message := _receive(connection)) is not None:
            inbox.put(message)
    except EngineDead:
        traceback.print_exc()  # nothing after it can be read: end as if the server were gone
    inbox.put(None)


def _receive(connection: socket.socket) -> Message | None:
    """The next message; None when the connection is closed."""
    header = _exactly(connection, HEADER_BYTES)
    body = _exactly(connection, length(header)) if header else b""
    return decode(body) if body else None


def _exactly(connection: socket.socket, count: int) -> bytes:
    """`count` bytes, or none if the connection closes before."""
    parts = bytearray()
    while len(parts) < count:
        try:
            part = connection.recv(count - len(parts))
        except OSError:
            return b""
        if not part:
            return b""
        parts += part
    return bytes(parts)


def main() -> NoReturn:
    """Serve on the inherited socket whose number is the only argument."""
    # Ctrl-C reaches the whole process group, and systemd's SIGTERM every process of a service; the
    # server decides when the engine stops.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    status = 1
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
        status = 0
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not the interpreter's own end: it stops threads that are inside C++ code wherever they are,
    # which the C++ runtime answers with `terminate` and a core dump.
    os._exit(status)


if __name__ == "__main__":
    main()
