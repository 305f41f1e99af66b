"""Prompt files: conversations whose assistant turns the model is to write itself.

A file is JSON Lines or a JSON array, plain or packed by gzip. Each record has one of the forms
that prompt collections come in; what is beside it, answers of other models above all, is ignored.

    {"messages": [{"role", "content"}, ...], "tools": [...]}    chat
    {"conversations": [{"from", "value"}, ...]}                 ShareGPT
    {"turns": ["...", "..."]}                                   MT-Bench: the user's turns
    {"prompt": "..."} or {"prompt": [messages]}                 HumanEval and many others
    {"instruction": "...", "input": "..."}                      Alpaca, GPTeacher
    {"question": "..."}                                         GSM8K
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError

SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
    "system": "system",
}
"""Roles of ShareGPT's speakers."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """messages: in chat form. tools: function definitions, or None."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None


def load(file: Path) -> list[Conversation]:
    """The conversations of a prompt file in its order, equal ones once.

    Raises AdapterError that names the file, and the line or item that has none of the forms.
    """
    if not file.is_file():
        raise AdapterError(f"{file} does not exist" if not file.exists() else f"{file} is no file")
    conversations: dict[str, Conversation] = {}
    for where, record in _records(_text(file), file):
        conversation = _conversation(record, where)
        key = json.dumps([conversation.messages, conversation.tools], sort_keys=True)
        conversations.setdefault(key, conversation)
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
    shuffled = sample(conversations, len(conversations), seed)
    count = min(max(1, round(len(shuffled) * held_out)), len(shuffled) - 1)
    return shuffled[count:], shuffled[:count]


def sample(conversations: list[Conversation], count: int, seed: int) -> list[Conversation]:
    """At most `count` of them, drawn at random: files are often sorted, by subject for instance."""
    return random.Random(seed).sample(conversations, min(count, len(conversations)))


def _text(file: Path) -> str:
    """The text of a file, unpacked if it is packed."""
    try:
        content = file.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise AdapterError(f"{file} cannot be read: {error}") from error


def _records(text: str, file: Path) -> Iterator[tuple[str, Any]]:
    """Where each record is, for people, and what it says."""
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", 1)
            raise AdapterError(f"{file}, line {line}: no JSON ({error})") from error
        yield from ((f"{file}, item {number}", item) for number, item in enumerate(items, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{file}, line {number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise AdapterError(f"{where}: no JSON ({error})") from error


def _conversation(record: Any, where: str) -> Conversation:
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
        form = next((form for form in FORMS if isinstance(record, dict) and form in record), None)
        if form is None:
            raise ValueError(f"expected an object with one of {', '.join(FORMS)}")
        return Conversation(FORMS[form](record), _tools(record.get("tools")))
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise AdapterError(f"{where}: not valid Unicode") from error
    except ValueError as error:
        raise AdapterError(f"{where}: {error}") from error


def _chat(record: dict[str, Any]) -> list[dict[str, Any]]:
    return _messages(record["messages"], "messages")


def _share_gpt(record: dict[str, Any]) -> list[dict[str, Any]]:
    turns = _messages(record["conversations"], "conversations", "from", "value")
    for turn in turns:
        if turn["from"] not in SPEAKERS:
            raise ValueError(f"nobody knows the speaker {turn['from']!r}")
    return [{"role": SPEAKERS[turn["from"]], "content": turn["value"]} for turn in turns]


def _turns(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What the user says; the model answers after each."""
    turns = record["turns"]
    if not isinstance(turns, list) or not turns:
        raise ValueError("turns must be a list of texts")
    answer = {"role": "assistant", "content": ""}
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages += [_user(_filled({"turns": turn}, "turns")), answer]
    return messages[:-1]


def _prompt(record: dict[str, Any]) -> list[dict[str, Any]]:
    if isinstance(record["prompt"], list):
        return _messages(record["prompt"], "prompt")
    return [_user(_filled(record, "prompt"))]


def _instruction(record: dict[str, Any]) -> list[dict[str, Any]]:
    instruction = _filled(record, "instruction")
    given = record.get("input")
    return [_user(f"{instruction}\n\n{_filled(record, 'input')}" if given else instruction)]


def _question(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [_user(_filled(record, "question"))]


FORMS: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "messages": _chat,
    "conversations": _share_gpt,
    "turns": _turns,
    "prompt": _prompt,
    "instruction": _instruction,
    "question": _question,
}
"""The key a form is known by; of several, the first of these."""


def _messages(
    messages: Any, field: str, speaker: str = "role", content: str = "content"
) -> list[dict[str, Any]]:
    """A list of who says what."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{field} must be a list of messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get(speaker), str):
            raise ValueError(f"each of {field} needs a {speaker}")
        if not isinstance(message.get(content), str | list | None):
            raise ValueError(f"{content} must be text")
    return messages


def _tools(tools: Any) -> list[dict[str, Any]] | None:
    if tools is not None and not isinstance(tools, list):
        raise ValueError("tools must be a list")
    return tools


def _user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _filled(record: dict[str, Any], field: str) -> str:
    text = record[field]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{field} must be a text that is not empty")
    return text
