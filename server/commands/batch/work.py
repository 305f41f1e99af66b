"""A batch from its first open request to its summary: many under way, each tried again."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Set
from contextlib import aclosing
from itertools import islice
from pathlib import Path

import httpx
from tqdm import tqdm

from server.commands.batch import lines, records
from server.commands.batch.lines import Broken, Item
from server.commands.batch.records import Record
from server.commands.batch.summary import Summary
from server.commands.batch.target import opened

ATTEMPTS = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts; they double
_BUSY = (429, 503)


async def work(options: argparse.Namespace) -> Summary:
    """Ask every request that has no answer yet; what came of them.

    Raises BatchError, EngineError or AdapterError for what ends the whole batch.
    """
    finished = records.resume(options.output)
    num_items = sum(1 for _ in lines.read(options.input))
    num_open = sum(1 for _ in _open(options.input, finished))
    kept = num_items - num_open
    if not num_open:
        return Summary(kept)
    async with opened(options) as http:
        summary = Summary(kept)
        answers = ask_all(http, _open(options.input, finished), options.concurrency)
        with tqdm(total=num_items, initial=kept, unit="request", disable=None) as bar:
            async with aclosing(answers):
                async for record in answers:
                    records.append(options.output, record)
                    summary.add(record)
                    bar.set_postfix(summary.speed(), refresh=False)
                    bar.update()
    return summary


def _open(file: Path, finished: Set[str]) -> Iterator[Item | Broken]:
    for item in lines.read(file):
        if isinstance(item, Broken) or item.custom_id not in finished:
            yield item


async def ask_all(
    http: httpx.AsyncClient, items: Iterable[Item | Broken], at_once: int
) -> AsyncGenerator[Record, None]:
    """The record of each item, in the order they end, `at_once` under way at most."""
    left = iter(items)
    running: set[asyncio.Task[Record]] = set()
    try:
        while True:
            fresh = islice(left, at_once - len(running))
            running |= {asyncio.create_task(_ask(http, item)) for item in fresh}
            if not running:
                return
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _ask(http: httpx.AsyncClient, item: Item | Broken) -> Record:
    """The record of one item; a server that is busy, or away for a while, is asked again."""
    if isinstance(item, Broken):
        message = f"line {item.number}: {item.message}"
        return records.failed(item.custom_id, "invalid_line", message, item.number)
    for attempt in range(1, ATTEMPTS + 1):
        pause = min(FIRST_PAUSE * 2**attempt / 2, LONGEST_PAUSE)
        try:
            response = await http.post(
                item.url, content=item.body, headers={"content-type": "application/json"}
            )
        except httpx.TransportError as error:
            record = records.failed(item.custom_id, "no_connection", str(error) or repr(error))
        else:
            record = _record(item, response)
            if response.status_code not in _BUSY:
                return record
            pause = max(pause, _told_to_wait(response))
        if attempt < ATTEMPTS:
            await asyncio.sleep(pause)
    return record


def _record(item: Item, response: httpx.Response) -> Record:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        message = f"the server's answer, of status {response.status_code}, is no JSON object"
        return records.failed(item.custom_id, "invalid_response", message)
    request_id = response.headers.get("x-request-id", "")
    return records.answered(item.custom_id, response.status_code, request_id, body)


def _told_to_wait(response: httpx.Response) -> float:
    """Seconds after which the server wants to be asked again; 0 where it does not say."""
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdecimal() else 0.0
