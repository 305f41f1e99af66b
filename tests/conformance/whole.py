"""Answers as they can be compared: streams put together, and nothing left that differs anyway."""

from __future__ import annotations

import json
from typing import Any

import httpx

ITS_OWN = {
    *("id", "item_id", "call_id", "created", "created_at", "completed_at"),
    *("metrics", "sequence_number", "speculation"),
    # What earlier requests left in the prefix cache.
    *("prompt_tokens_details", "input_tokens_details"),
    *("cache_read_input_tokens", "input_tokens"),
}
"""Keys whose values are an answer's own: ids, times, what speculation did."""

NAMES = {"type", "role", "name", "index", "finish_reason", "object"}
"""Keys whose values come whole, however often."""

PLACES = ("type", "index", "output_index", "content_index")


def whole(response: httpx.Response) -> Any:
    """The answer; a stream of chunks as one answer, one of events with deltas put together."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        return comparable(response.json())
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    parts = [line.removeprefix("data: ") for line in lines]
    if parts[-1] == "[DONE]":
        return _of_chunks([comparable(json.loads(part)) for part in parts[:-1]])
    return _of_events([comparable(json.loads(part)) for part in parts])


def comparable(value: Any) -> Any:
    """Without what is an answer's own."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if key not in ITS_OWN}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def _of_chunks(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk.pop("choices"):
            _absorb(choices.setdefault(choice["index"], {}), choice)
        answer.update({key: value for key, value in chunk.items() if value is not None})
    return {**answer, "choices": [choices[index] for index in sorted(choices)]}


def _of_events(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for event in events:
        place = [event.get(name) for name in PLACES]
        if joined and "delta" in event and [joined[-1].get(name) for name in PLACES] == place:
            _absorb(joined[-1], event)
        else:
            joined.append(event)
    return joined


def _absorb(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        before = whole.get(key)
        if before is None:
            whole[key] = value
        elif isinstance(value, dict):
            _absorb(before, value)
        elif key == "tool_calls":
            for call in value:
                known = next((c for c in before if c["index"] == call["index"]), None)
                if known is None:
                    before.append(call)
                else:
                    _absorb(known, call)
        elif isinstance(value, (list, str)) and key not in NAMES:
            whole[key] = before + value
        elif value is not None:
            whole[key] = value


def differences(one: Any, two: Any, path: str = "") -> list[str]:
    """Where two answers differ; numbers with a point may by 1e-4."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return [line for key in one for line in differences(one[key], two[key], f"{path}.{key}")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return [line for n, (a, b) in pairs for line in differences(a, b, f"{path}.{n}")]
    if isinstance(one, float) and isinstance(two, float) and abs(one - two) <= 1e-4:
        return []
    return [] if one == two else [f"{path}: {one!r} with speculation, {two!r} without"]
