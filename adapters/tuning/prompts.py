"""Prompt files: conversations whose assistant turns the model is to write itself."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError


@dataclass(frozen=True, slots=True)
class Conversation:
    """messages: in chat form. tools: function definitions, or None."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None


def load(file: Path) -> list[Conversation]:
    """Read JSON Lines (plain or .gz), one conversation a line, equal ones once.

    A line is `{"messages": [...], "tools": [...]?}` or `{"prompt": "..."}`.
    Raises AdapterError naming the line that is neither.
    """
    if not file.is_file():
        raise AdapterError(f"{file} does not exist")
    opener = gzip.open if file.suffix == ".gz" else open
    conversations: dict[str, Conversation] = {}
    with opener(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if line and line not in conversations:
                conversations[line] = _parse(line, f"{file.name}, line {number}")
    if not conversations:
        raise AdapterError(f"{file} holds no prompts")
    return list(conversations.values())


def split(
    conversations: list[Conversation], held_out: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Shuffle and cut: (to train on, to evaluate on); both have at least one.

    Raises AdapterError where there is only one conversation.
    """
    if len(conversations) < 2:
        raise AdapterError("to train and to evaluate takes at least two conversations")
    shuffled = random.Random(seed).sample(conversations, len(conversations))
    count = min(max(1, round(len(shuffled) * held_out)), len(shuffled) - 1)
    return shuffled[count:], shuffled[:count]


def _parse(line: str, where: str) -> Conversation:
    try:
        record = json.loads(line)
        if "prompt" in record:
            return Conversation([{"role": "user", "content": str(record["prompt"])}])
        messages = record["messages"]
        if not messages or not all(isinstance(m, dict) and "role" in m for m in messages):
            raise AdapterError(f"{where}: messages need roles")
        return Conversation(messages, record.get("tools"))
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f'{where}: expected {{"messages": [...]}} or {{"prompt": "..."}} ({error})'
        ) from error
