"""The engine's asyncio face, in the server's process.

`engine.text` runs here, not beside the model: turning tokens into text and looking for stop
strings must not delay the next forward. The engine process is restarted when it dies or hangs;
requests that were running get `EngineDead`, new ones wait for nothing: they get it too, until
the fresh engine is ready. It has the adapters the last one had.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from tokenizers import Tokenizer

from engine.config import EngineConfig, ModelInfo
from engine.errors import EngineDead, EngineError
from engine.messages import (
    HEADER_BYTES,
    Abort,
    AdapterChange,
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
    raised,
)
from engine.request import FinishReason, Request, RequestOutput
from engine.stats import EngineStats
from engine.text.stream import TextStream

ENGINE_MODULE = "engine.process"
"""What the process runs. `benchmarks.overhead` puts a stub in its place."""
HANG_SECONDS = 120.0
WATCH_SECONDS = 1.0
RESTART_SECONDS = 1.0

log = logging.getLogger("bita.engine")


class EngineClient:
    """One engine, in a process of its own or (for tests and notebooks) in a thread.

    info: what the engine said when it became ready, and since of its adapters. stats: its latest
    counters.
    """

    def __init__(self, config: EngineConfig, in_process: bool = False) -> None:
        if in_process and config.tensor_parallel_size > 1:
            raise EngineError("an engine of several ranks takes a process of its own")
        self.config, self.in_process = config, in_process
        self.stats = EngineStats()
        self.is_ready = False
        self.num_restarts = 0
        self._queues: dict[str, asyncio.Queue[RequestOutput | EngineError]] = {}
        self._changes: dict[str, asyncio.Future[None]] = {}
        self._last_beat = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the engine and wait until it is ready.

        Raises UnsupportedModel, EngineError or EngineDead where it does not become so.
        """
        file = Path(self.config.model) / "tokenizer.json"
        if not file.is_file():
            raise EngineError(f"{file} is missing: the server needs the model's fast tokenizer")
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        await self._launch(Start(self.config))
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """End the engine; running requests get EngineDead."""
        self.is_ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_all("the engine was stopped")
        self._writer.close()
        if self._process is not None:
            await asyncio.to_thread(self._reap, self._process)
        elif self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the engine's last sign of life."""
        return time.monotonic() - self._last_beat

    async def generate(self, request: Request) -> AsyncIterator[RequestOutput]:
        """Outputs of a request as they come, with text; leaving early aborts it.

        Raises RequestError or EngineOverloaded where the engine refuses it, EngineDead where the
        engine goes away.
        """
        if not self.is_ready:
            raise EngineDead("the engine is not ready")
        inbox: asyncio.Queue[RequestOutput | EngineError] = asyncio.Queue()
        self._queues[request.request_id] = inbox
        stream = TextStream(
            self.tokenizer, request.token_ids, request.sampling, request.kept_tokens
        )
        ended = False
        try:
            await self._send(Add(request))
            while not ended:
                output = await inbox.get()
                if isinstance(output, EngineError):
                    ended = True
                    raise output
                ended = output.finish_reason is not None
                _add_text(output, stream, request.sampling.include_stop)
                yield output
                if output.finish_reason is not None:
                    return
        finally:
            del self._queues[request.request_id]
            if not ended and self.is_ready:
                with contextlib.suppress(EngineDead):  # who leaves need not know
                    await self._send(Abort(request.request_id))

    async def load_adapter(self, name: str, folder: str) -> None:
        """Load the adapter in a folder beside running requests; new ones find it from then on.

        Raises AdapterNameTaken, NoFreeSlot, AdapterRefused, or EngineDead.
        """
        await self._change(LoadAdapter(f"load-{uuid4().hex}", name, folder))

    async def unload_adapter(self, name: str) -> None:
        """Let no new request use an adapter; running ones end with it.

        Raises UnknownAdapter or EngineDead.
        """
        await self._change(UnloadAdapter(f"unload-{uuid4().hex}", name))

    async def _change(self, change: AdapterChange) -> None:
        if not self.is_ready:
            raise EngineDead("the engine is not ready")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes[change.request_id] = done
        try:
            await self._send(change)
            await done
        finally:
            del self._changes[change.request_id]

    async def _send(self, message: Message) -> None:
        try:
            self._writer.write(encode(message))
            await self._writer.drain()
        except OSError as error:
            raise EngineDead("the engine process is gone") from error

    async def _launch(self, start: Start) -> None:
        """A fresh engine: process or thread, a socket pair between, and its Ready."""
        ours, theirs = socket.socketpair()
        self._thread: threading.Thread | None = None
        if self.in_process:
            from engine.process import serve  # torch, only where the engine runs in-process

            self._thread = threading.Thread(target=serve, args=(theirs,), daemon=True)
            self._thread.start()
        else:
            command = [sys.executable, "-m", ENGINE_MODULE, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
            theirs.close()
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        await self._send(start)
        answer = await self._receive()
        if not isinstance(answer, Ready):
            self._writer.close()
            if self._process is not None:
                await asyncio.to_thread(self._reap, self._process)
            if isinstance(answer, Failed):
                raise raised(answer.kind, answer.message)
            raise EngineDead("the engine process ended while it was loading")
        self.info: ModelInfo = answer.info
        self._last_beat = time.monotonic()
        self.is_ready = True

    async def _receive(self) -> Message | None:
        """The engine's next message; None when it is gone or cannot be understood any more."""
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            return decode(await self._reader.readexactly(length(header)))
        except (asyncio.IncompleteReadError, OSError):
            return None
        except EngineDead as error:
            log.error("giving the engine up: %s", error)
            return None

    async def _run(self) -> None:
        """Hand the engine's messages to their requests; start a fresh engine when it goes."""
        while True:
            while (message := await self._receive()) is not None:
                self._dispatch(message)
            self.is_ready = False
            log.error("the engine process is gone; starting a fresh one")
            self._fail_all("the engine process ended; the request may be sent again")
            self._writer.close()
            await self._restart()

    async def _restart(self) -> None:
        start = Start(replace(self.config, adapters=self.info.adapters), skip_bad_adapters=True)
        while not self.is_ready:
            if self._process is not None:
                await asyncio.to_thread(self._reap, self._process)
            self.num_restarts += 1
            try:
                await self._launch(start)
            except (EngineError, OSError):
                log.exception("the engine did not start; trying again")
                await asyncio.sleep(RESTART_SECONDS)

    async def _watch(self) -> None:
        """Kill an engine that is alive but silent; `_run` then starts a fresh one."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self.is_ready and self.heartbeat_age > HANG_SECONDS and self._process is not None:
                log.error("no sign of life for %.0f s: killing the engine", self.heartbeat_age)
                self._process.kill()

    def _dispatch(self, message: Message) -> None:
        self._last_beat = time.monotonic()
        if isinstance(message, Outputs):
            self.stats = message.stats
            for output in message.outputs:
                if output.request_id in self._queues:
                    self._queues[output.request_id].put_nowait(output)
        elif isinstance(message, AdaptersChanged):
            # Noted even where whoever asked is gone: it is what the engine has now.
            self.info = replace(self.info, adapters=message.adapters)
            self._settle(message.request_id)
        elif isinstance(message, Refused):
            error = raised(message.kind, message.message, message.field)
            if message.request_id in self._queues:
                self._queues[message.request_id].put_nowait(error)
            self._settle(message.request_id, error)

    def _settle(self, request_id: str, error: EngineError | None = None) -> None:
        """Tell whoever waits for a change of the adapters that it was done, or why it was not."""
        done = self._changes.get(request_id)
        if done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def _fail_all(self, why: str) -> None:
        for inbox in self._queues.values():
            inbox.put_nowait(EngineDead(why))
        for request_id in self._changes:
            self._settle(request_id, EngineDead(why))

    @staticmethod
    def _reap(process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _add_text(output: RequestOutput, stream: TextStream, include_stop: bool) -> None:
    """Fill in the text; where a stop string ends it, cut the output to the same token."""
    tokens = output.token_ids
    if output.finish_reason is FinishReason.STOP and not include_stop:
        tokens = tokens[:-1]  # the token that ended it has no text
    delta = stream.push(tokens, finished=output.finish_reason is not None)
    output.text = delta.text
    if delta.stop is None:
        return
    surplus = len(output.token_ids) - delta.num_tokens
    output.speculation.retract(len(output.token_ids) - 1, surplus)
    output.num_generated_tokens -= surplus
    output.token_ids = output.token_ids[: delta.num_tokens]
    if output.logprobs is not None:
        output.logprobs = output.logprobs[: delta.num_tokens]
    if output.sources is not None:
        output.sources = output.sources[: delta.num_tokens]
    output.finish_reason = FinishReason.STOP
    output.stop_reason = delta.stop
