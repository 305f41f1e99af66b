"""An engine process without a model: every step gives every request its next token, at once.

    python -m benchmarks.overhead.engine FD

It speaks the engine's messages, a step a message as the engine does, and waits only where the
server has not read the last ones yet.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from tokenizers import Tokenizer

from engine.config import ModelInfo
from engine.messages import Abort, Add, Message, Outputs, Ready, Start, encode
from engine.process import BEAT_SECONDS, _receive
from engine.request import FinishReason, Request, RequestOutput, SpecReceipt
from engine.stats import EngineStats

TEXT = (
    "There are three restaurants in San Jose which serve Italian food. Would you like me to book a "
    "table for two at half past seven on Saturday evening, or is there another place you prefer?\n"
)


class Answering:
    """A request and how many of its tokens are out."""

    def __init__(self, request: Request) -> None:
        self.request, self.done, self.receipt = request, 0, SpecReceipt()

    def output(self, token_id: int) -> RequestOutput:
        """The next token."""
        self.done += 1
        self.receipt.add(drafted=0, accepted=0)
        return RequestOutput(
            self.request.request_id,
            [token_id],
            finish_reason=FinishReason.LENGTH if self.ended else None,
            num_prompt_tokens=len(self.request.token_ids),
            num_generated_tokens=self.done,
            speculation=self.receipt,
        )

    @property
    def ended(self) -> bool:
        """Whether that was the last one."""
        return self.done >= (self.request.sampling.max_tokens or 1)


def serve(connection: socket.socket) -> None:
    """Answer until the connection closes."""
    start = _receive(connection)
    assert isinstance(start, Start)
    tokenizer = Tokenizer.from_file(str(Path(start.config.model) / "tokenizer.json"))
    connection.sendall(encode(Ready(_info(tokenizer.get_vocab_size()))))
    text = cycle(tokenizer.encode(TEXT, add_special_tokens=False).ids)
    running: dict[str, Answering] = {}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while True:
            for message in _arrived(connection, wait=not running):
                if message is None:
                    return
                if isinstance(message, Add):
                    running[message.request.request_id] = Answering(message.request)
                elif isinstance(message, Abort):
                    running.pop(message.request_id, None)
            outputs = [one.output(next(text)) for one in running.values()]
            connection.sendall(encode(Outputs(outputs, EngineStats(num_running=len(running)))))
            running = {name: one for name, one in running.items() if not one.ended}


def _arrived(connection: socket.socket, wait: bool) -> Iterator[Message | None]:
    """What can be read now, or until the next heartbeat is due; None once it is closed."""
    seconds = BEAT_SECONDS if wait else 0.0
    while select.select([connection], [], [], seconds)[0]:
        message = _receive(connection)
        yield message
        if message is None:
            return
        seconds = 0.0


def _info(vocab_size: int) -> ModelInfo:
    return ModelInfo(
        model="stub",
        architecture="Stub",
        max_model_len=1 << 20,
        vocab_size=vocab_size,
        eos_token_ids=(),
        adapters={},
        dtype="float32",
        device="cpu",
        route="interface",
        num_blocks=1,
        block_size=16,
        fingerprint="stub",
    )


def main() -> None:
    """Serve on the inherited socket whose number is the only argument."""
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
    if others:  # the server's core is the server's
        os.sched_setaffinity(0, others)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
