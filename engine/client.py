"""The engine's asyncio face, in the server's process.

`engine.text` runs here, not beside the model: turning tokens into text and looking for stop
strings must not delay the next forward. When the engine dies or hangs (`supervisor`), requests that
were running get `EngineDead`; new ones wait for nothing: they get it too, until the fresh engine is
ready. It has the adapters the last one had.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from tokenizers import Tokenizer

from engine.config import EngineConfig
from engine.errors import EngineDead, EngineError, EngineOverloaded, RequestFailed
from engine.messages import (
    Abort,
    AdapterChange,
    AdaptersChanged,
    Add,
    LoadAdapter,
    Message,
    Outputs,
    Refused,
    UnloadAdapter,
    raised,
)
from engine.request import Request, RequestOutput
from engine.stats import EngineStats
from engine.supervisor import WATCHDOG_TIMEOUT, Supervisor
from engine.text.output import add_text
from engine.text.stream import TextStream


class EngineClient(Supervisor):
    """One engine, in a process of its own or (for tests and notebooks) in a thread.

    stats: its latest counters.
    """

    def __init__(
        self,
        config: EngineConfig,
        in_process: bool = False,
        watchdog_timeout: float = WATCHDOG_TIMEOUT,
    ) -> None:
        if in_process and config.tensor_parallel_size > 1:
            raise EngineError("an engine of several ranks takes a process of its own")
        super().__init__(config, in_process, watchdog_timeout)
        self.stats = EngineStats()
        self._queues: dict[str, asyncio.Queue[RequestOutput | EngineError]] = {}
        self._changes: dict[str, asyncio.Future[None]] = {}

    async def start(self) -> None:
        """Start the engine and wait until it is ready.

        Raises UnsupportedModel, EngineError or EngineDead where it does not become so.
        """
        file = Path(self.config.model) / "tokenizer.json"
        if not file.is_file():
            raise EngineError(f"{file} is missing: the server needs the model's fast tokenizer")
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        await super().start()

    def check_room(self, count: int) -> None:
        """Raises EngineOverloaded where so many requests more could not all run or wait."""
        waiting = len(self._queues) - self.config.max_num_seqs
        if waiting + count > self.config.max_waiting:
            raise EngineOverloaded(f"{max(waiting, 0)} requests are waiting already")

    async def generate(self, request: Request) -> AsyncIterator[RequestOutput]:
        """Outputs of a request as they come, with text; leaving early aborts it.

        Raises RequestError or EngineOverloaded where the engine refuses it, RequestFailed where it
        cannot be computed, EngineDead where the engine goes away.
        """
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
                if output.error is not None:
                    raise RequestFailed(output.error)
                add_text(output, stream, request.sampling.include_stop)
                yield output
                if output.finish_reason is not None:
                    return
        finally:
            del self._queues[request.request_id]
            if not ended:
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
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes[change.request_id] = done
        try:
            await self._send(change)
            await done
        finally:
            del self._changes[change.request_id]

    def _received(self, message: Message) -> None:
        if isinstance(message, Outputs):
            self.stats = message.stats or self.stats
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

    def _lost(self, error: type[EngineDead], why: str) -> None:
        self.stats = EngineStats()  # what it counted has gone with it
        for inbox in self._queues.values():
            inbox.put_nowait(error(why))
        for request_id in self._changes:
            self._settle(request_id, error(why))
