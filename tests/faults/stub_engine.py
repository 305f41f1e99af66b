"""An engine process without a model, ready in no time: a token for every request every few steps.

    python -m tests.faults.stub_engine FD

It speaks the engine's messages. Where there is a file by the name in `STUB_ENGINE_BROKEN` it ends
instead of loading.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from pathlib import Path

from engine.config import ModelInfo
from engine.messages import HEADER_BYTES, Abort, Add, Message, Outputs, Ready, Start, decode, encode
from engine.messages import length as length_of
from engine.request import FinishReason, Request, RequestOutput
from engine.stats import EngineStats
from tests.server.stub import MODEL, VOCAB_SIZE

STEP_SECONDS = 0.02
BROKEN = "STUB_ENGINE_BROKEN"
INFO = ModelInfo(
    model=MODEL,
    architecture="Stub",
    max_model_len=4096,
    vocab_size=VOCAB_SIZE,
    eos_token_ids=(256,),
    adapters={},
    dtype="float32",
    device="cpu",
    route="interface",
    num_blocks=64,
    block_size=16,
    fingerprint="stub",
)


def receive(connection: socket.socket) -> Message | None:
    """The next message; None once the connection is closed."""
    header = connection.recv(HEADER_BYTES, socket.MSG_WAITALL)
    body = connection.recv(length_of(header), socket.MSG_WAITALL) if header else b""
    return decode(body) if body else None


def serve(connection: socket.socket) -> None:
    """Answer until the connection closes; every request gets the letters of the alphabet."""
    assert isinstance(receive(connection), Start)
    if Path(os.environ.get(BROKEN, "")).is_file():
        return
    connection.sendall(encode(Ready(INFO)))
    running: dict[str, tuple[Request, int]] = {}
    while True:
        while select.select([connection], [], [], STEP_SECONDS)[0]:
            message = receive(connection)
            if message is None:
                return
            if isinstance(message, Add):
                running[message.request.request_id] = (message.request, 0)
            elif isinstance(message, Abort):
                running.pop(message.request_id, None)
        outputs = []
        for name, (request, done) in list(running.items()):
            ended = done + 1 >= (request.sampling.max_tokens or 1)
            outputs.append(
                RequestOutput(
                    name,
                    [32 + done % 26],
                    finish_reason=FinishReason.LENGTH if ended else None,
                    num_prompt_tokens=len(request.token_ids),
                    num_generated_tokens=done + 1,
                )
            )
            running[name] = (request, done + 1)
            if ended:
                del running[name]
        connection.sendall(encode(Outputs(outputs, EngineStats(num_running=len(running)))))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
