"""The engine's process: a loop around `Engine.step`, a socket, a heartbeat.

    python -m engine.process FD

One thread owns the model; another only reads the socket. The loop drains what was asked, steps,
and sends what is new; while idle it sends an empty message every `BEAT_SECONDS`. It ends when
the socket closes, so that no engine outlives its server. An error in a step ends the process:
the client tells its requests and starts a fresh one, whose state is known.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import signal
import socket
import sys
import threading
import traceback

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineDead, EngineError, RequestError
from engine.load import load_engine, model_info
from engine.messages import (
    HEADER_BYTES,
    VERSION,
    Abort,
    Add,
    Failed,
    Message,
    Outputs,
    Ready,
    Refused,
    Start,
    decode,
    encode,
    length,
)

BEAT_SECONDS = 0.5


def serve(connection: socket.socket) -> None:
    """Load what the first message asks for, serve it until the connection closes, close it too."""
    with connection:
        _serve(connection)


def _serve(connection: socket.socket) -> None:
    first = _receive(connection)
    if not isinstance(first, Start) or first.version != VERSION:
        raise EngineDead(f"expected Start of version {VERSION}, got {first!r}")
    engine = _load(connection, first.config)
    if engine is None:
        return
    inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(connection, inbox), daemon=True)
    reader.start()
    # When the server is gone, nobody is left to tell.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _loop(engine, connection, inbox)


def _load(connection: socket.socket, config: EngineConfig) -> Engine | None:
    try:
        engine = load_engine(config)
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
    engine: Engine, connection: socket.socket, inbox: queue.SimpleQueue[Message | None]
) -> None:
    while True:
        try:
            message = inbox.get(timeout=BEAT_SECONDS) if not engine.has_work else inbox.get_nowait()
            while True:
                if message is None:
                    return
                _handle(engine, connection, message)
                message = inbox.get_nowait()
        except queue.Empty:
            pass
        outputs = engine.step()
        connection.sendall(encode(Outputs(outputs, engine.stats())))


def _handle(engine: Engine, connection: socket.socket, message: Message) -> None:
    if isinstance(message, Abort):
        engine.abort(message.request_id)
    elif isinstance(message, Add):
        try:
            engine.add(message.request)
        except EngineError as error:
            field = error.field if isinstance(error, RequestError) else None
            kind = type(error).__name__
            refusal = Refused(message.request.request_id, kind, str(error), field)
            connection.sendall(encode(refusal))


def _read(connection: socket.socket, inbox: queue.SimpleQueue[Message | None]) -> None:
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


def main() -> None:
    """Serve on the inherited socket whose number is the only argument."""
    # Ctrl-C reaches the whole process group; the server decides when the engine stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
