"""Files of a run: written whole or not at all, and what the disk refuses is said by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from adapters.errors import AdapterError

ORIGIN = "origin.json"


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns an OSError, a full disk for instance, into AdapterError that names `target`."""
    try:
        yield
    except OSError as error:
        raise AdapterError(f"{target} cannot be written: {error.strerror or error}") from error


def append(file: Path, text: str) -> None:
    """Add `text` to a file; where that fails it ends as before. Raises AdapterError."""
    rest = memoryview(text.encode())
    with writing(file), file.open("ab", buffering=0) as stream:
        size = stream.seek(0, 2)
        try:
            while rest:
                rest = rest[stream.write(rest) or 0 :]
        except OSError:
            with suppress(OSError):
                stream.truncate(size)
            raise


def replace(file: Path, content: bytes) -> None:
    """Put `content` in the place of a file; where that fails the old one stays.

    Raises AdapterError.
    """
    part = file.with_name(f".{file.name}.part")
    with writing(file):
        try:
            part.write_bytes(content)
            part.replace(file)
        finally:
            with suppress(OSError):
                part.unlink()


def begin(folder: Path, origin: Mapping[str, object]) -> bool:
    """Begin a run in `folder`, or go on with one of the same origin.

    origin: by name, everything that decides which answers are learnt from; JSON values.
    Returns whether the run is a new one. Raises AdapterError, naming what differs, where a run of
    another origin began there.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / ORIGIN
    if not file.is_file():
        if left := sorted(f.name for f in folder.glob("*.jsonl")):
            raise AdapterError(
                f"{folder / left[0]} is of a run that does not say what it was made from: remove "
                f"{folder} to start anew"
            )
        replace(file, (json.dumps(dict(origin), indent=2) + "\n").encode())
        return True
    try:
        known = dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise AdapterError(f"{file} cannot be read ({error}): remove {folder}") from error
    check_same(folder, known, origin)
    return False


def check_same(place: Path, known: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Raises AdapterError that names what differs; of numbers, both."""
    differing = []
    for name in {**wanted, **known}:
        then, now = known.get(name), wanted.get(name)
        if then != now:
            numbers = isinstance(then, int | float) and isinstance(now, int | float)
            differing.append(f"{name} ({then} then, {now} now)" if numbers else name)
    if differing:
        raise AdapterError(
            f"{place} is of a run that differs in {', '.join(differing)}: remove it to start anew, "
            "or take another --out"
        )
