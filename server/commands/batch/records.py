"""The output file of a batch: a record a request, in the order they end.

A record with an answer (status 200) is finished. Any other is dropped when the batch is taken up
again, and its request asked anew.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from adapters.tuning import files
from server.commands.batch.errors import BatchError

Record: TypeAlias = dict[str, Any]

_ID = "batch_req_"
_BEGINNING = f'{{"id": "{_ID}'.encode()


def answered(custom_id: str, status: int, request_id: str, body: Any) -> Record:
    """The record of a request the server answered, be it by refusing it."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _record(custom_id, response, None)


def failed(custom_id: str | None, code: str, message: str, line: int | None = None) -> Record:
    """The record of what got no answer; `line` where the input's line itself is at fault."""
    return _record(custom_id, None, {"code": code, "message": message, "line": line})


def _record(custom_id: str | None, response: Mapping[str, Any] | None, error: Any) -> Record:
    identity = f"{_ID}{uuid.uuid4().hex}"
    return {"id": identity, "custom_id": custom_id, "response": response, "error": error}


def is_finished(record: Record) -> bool:
    """Whether the record holds an answer."""
    return record["response"] is not None and record["response"]["status_code"] == 200


def append(file: Path, record: Record) -> None:
    """Add a record. Raises AdapterError, naming the file, where the disk refuses."""
    files.append(file, json.dumps(record) + "\n")


def resume(file: Path) -> set[str]:
    """The `custom_id` of every finished record; the file is left with these alone.

    A last line that an interruption cut in two is among what is dropped. Raises BatchError where
    something in the file was not written by `bita batch`, which is then left as it is, AdapterError
    where it cannot be written.
    """
    files.append(file, "")  # what cannot be written is known before anything is asked
    part = file.with_name(f".{file.name}.part")
    finished: set[str] = set()
    whole = True
    try:
        with part.open("wb") as kept:
            for line, record in _lines(file):
                if record is not None and is_finished(record):
                    finished.add(record["custom_id"])
                    kept.write(line)
                else:
                    whole = False
        if not whole:
            part.replace(file)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return finished


def _lines(file: Path) -> Iterator[tuple[bytes, Record | None]]:
    """Each line with its record; None for a last one without an end."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            ours = line.startswith(_BEGINNING)
            if not line.endswith(b"\n") and (ours or _BEGINNING.startswith(line)):
                yield line, None
                return
            record = _parse(line) if ours else None
            if record is None:
                raise BatchError(
                    f"{file}, line {number} was not written by bita batch: take another --output"
                )
            yield line, record


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"custom_id", "response"} <= set(record) else None
