"""One run of the engine: a process of its own, or for tests and notebooks a thread, and a socket.

What the engine sends ends where it does: nothing of one run reaches the next.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading

from engine.errors import EngineDead
from engine.messages import HEADER_BYTES, Message, decode, encode, length

ENGINE_MODULE = "engine.process"
"""What the process runs. `benchmarks.overhead` puts a stub in its place."""
END_SECONDS = 5.0
"""Time that the process gets to end in before it is killed, and then to be gone in."""

log = logging.getLogger("bita.engine")


class Connection:
    """process: the engine's, None where it is a thread."""

    def __init__(
        self,
        runs: subprocess.Popen[bytes] | threading.Thread,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.process = runs if isinstance(runs, subprocess.Popen) else None
        self._thread = runs if isinstance(runs, threading.Thread) else None
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, in_process: bool) -> Connection:
        """A fresh engine, which waits for its Start."""
        ours, theirs = socket.socketpair()
        try:
            # First: who is cancelled here leaves no engine behind.
            streams = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        runs: subprocess.Popen[bytes] | threading.Thread
        if in_process:
            from engine.process import serve  # torch, only where the engine runs in-process

            runs = threading.Thread(target=serve, args=(theirs,), daemon=True)
            runs.start()
        else:
            command = [sys.executable, "-m", ENGINE_MODULE, str(theirs.fileno())]
            runs = subprocess.Popen(command, pass_fds=[theirs.fileno()])
            theirs.close()
        return cls(runs, *streams)

    async def send(self, message: Message) -> None:
        """Say something to the engine. Raises EngineDead where it is gone."""
        try:
            self._writer.write(encode(message))
            await self._writer.drain()
        except OSError as error:
            raise EngineDead("the engine process is gone") from error

    async def receive(self) -> Message | None:
        """The engine's next message; None when it is gone or cannot be understood any more."""
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            return decode(await self._reader.readexactly(length(header)))
        except (asyncio.IncompleteReadError, OSError):
            return None
        except EngineDead as error:
            log.error("giving the engine up: %s", error)
            return None

    def kill(self) -> None:
        """End the process at once; a thread cannot be."""
        if self.process is not None:
            self.process.kill()

    async def close(self) -> None:
        """Have the engine end, which it does after its step, and wait until it is gone.

        Raises EngineDead where its process cannot be ended.
        """
        self._writer.close()
        if self.process is not None:
            await asyncio.to_thread(_reap, self.process)
        elif self._thread is not None:
            await asyncio.to_thread(self._thread.join)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_SECONDS)
        return
    except subprocess.TimeoutExpired:
        process.kill()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise EngineDead(f"the engine process {process.pid} does not end") from error
