"""Closed loop: so many users, each waits for an answer. Open loop: users come when they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from benchmarks.load.measures import Record
from benchmarks.sessions import Call, Session

Send: TypeAlias = Callable[[Call, float], Awaitable[Record]]
"""Makes a call that was intended for a time by time.perf_counter()."""

Exchange: TypeAlias = tuple[Call, Record]


async def closed(send: Send, sessions: Sequence[Session], streams: int) -> list[Exchange]:
    """Play all sessions, `streams` at once; a user asks on as soon as the answer is there."""
    waiting = list(reversed(sessions))
    done: list[Exchange] = []

    async def user() -> None:
        while waiting:
            await _play(send, waiting.pop(), time.perf_counter(), done)

    await asyncio.gather(*(user() for _ in range(streams)))
    return done


async def opened(
    send: Send, sessions: Sequence[Session], arrivals: Sequence[float]
) -> list[Exchange]:
    """Begin each session at its arrival, in seconds from now, however many still run.

    The first call's latency counts from the arrival, later ones' from the answer before.
    """
    started = time.perf_counter()
    done: list[Exchange] = []

    async def user(session: Session, arrival: float) -> None:
        await asyncio.sleep(max(0.0, started + arrival - time.perf_counter()))
        await _play(send, session, started + arrival, done)

    await asyncio.gather(*(user(s, a) for s, a in zip(sessions, arrivals, strict=True)))
    return done


async def _play(send: Send, session: Session, intended: float, done: list[Exchange]) -> None:
    while (call := session.advance()) is not None:
        record = await send(call, intended)
        done.append((call, record))
        if record.error is not None:
            return
        session.answer(record.text)
        intended = time.perf_counter()
