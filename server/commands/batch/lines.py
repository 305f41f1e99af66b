"""The input file of a batch: JSON Lines, as OpenAI's batch API has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


@dataclass(frozen=True, slots=True)
class Item:
    """One request. body: JSON, as it is sent."""

    custom_id: str
    url: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is no request: its number from 1, and what is wrong with it."""

    number: int
    message: str
    custom_id: str | None = None


def read(file: Path) -> Iterator[Item | Broken]:
    """Every line that is not blank, in order; one at a time, however long the file is."""
    seen: dict[str, int] = {}
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.isspace():
                yield _parse(line, number, seen)


def _parse(line: bytes, number: int, seen: dict[str, int]) -> Item | Broken:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Broken(number, f"it is not JSON: {error}")
    custom_id = given.get("custom_id") if isinstance(given, dict) else None
    if not isinstance(custom_id, str) or not custom_id:
        return Broken(number, "it is not a JSON object with a text as its 'custom_id'")
    if problem := _problem(given):
        return Broken(number, problem, custom_id)
    first = seen.setdefault(custom_id, number)
    if first != number:
        return Broken(number, f"line {first} has the same 'custom_id'", custom_id)
    return Item(custom_id, given["url"], json.dumps(given["body"]).encode())


def _problem(given: dict[str, Any]) -> str | None:
    """What is wrong with a request, apart from what its endpoint will say of the body."""
    if given.get("method") != "POST":
        return "its 'method' must be \"POST\""
    if given.get("url") not in ENDPOINTS:
        return f"its 'url' must be one of {', '.join(ENDPOINTS)}"
    if not isinstance(given.get("body"), dict):
        return "its 'body' must be a JSON object"
    if given["body"].get("stream"):
        return "a batch cannot stream: leave 'stream' out of its 'body'"
    if unknown := given.keys() - {"custom_id", "method", "url", "body"}:
        return f"it has the unknown key '{min(unknown)}'"
    return None
