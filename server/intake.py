"""What the server has taken on: requests that are being served, and whether it takes more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import overloaded, unavailable


class Intake:
    """max_requests: served at once. is_closed: the server stops, and takes no request any more."""

    def __init__(self, max_requests: int) -> None:
        self.is_closed = False
        self._max_requests, self._num_running = max_requests, 0
        self._empty = asyncio.Event()
        self._empty.set()

    def check_open(self) -> None:
        """Raises the 503 of a server that stops."""
        if self.is_closed:
            error = unavailable("The server is shutting down.")
            error.headers["connection"] = "close"  # the next try should not come to us
            raise error

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests being served.

        Raises the 503 of a server that stops, the 429 of one that is full.
        """
        self.check_open()
        if self._num_running >= self._max_requests:
            raise overloaded(f"The server is busy with {self._num_running} requests.")
        self._num_running += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._num_running -= 1
            if not self._num_running:
                self._empty.set()

    def close(self) -> None:
        """Take no request any more."""
        self.is_closed = True

    async def emptied(self, seconds: float) -> bool:
        """Wait at most so long for the last request to end; whether it has."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True
