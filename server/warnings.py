"""What an answer's header says of a request's fields that nobody here knows."""

from __future__ import annotations

import re
from itertools import islice

from starlette.requests import Request
from starlette.types import Scope

from server.schemas.base import Schema, unknown_fields

HEADER = "x-bita-warning"
MAX_NAMES, MAX_NAME = 16, 64

_WARNING = "bita.warning"
_STRANGE = re.compile(r"[^A-Za-z0-9_.-]")


def note_unknown(request: Request, body: Schema) -> None:
    """Have the answer name the fields of `body` that are ignored, as far as there is room."""
    names = list(islice(unknown_fields(body), MAX_NAMES + 1))
    if names:
        shown = ", ".join(_STRANGE.sub("?", name[:MAX_NAME]) for name in names[:MAX_NAMES])
        more = ", ..." if len(names) > MAX_NAMES else ""
        request.scope[_WARNING] = f"unknown fields ignored: {shown}{more}"


def warning_of(scope: Scope) -> str | None:
    """What `note_unknown` noted."""
    noted = scope.get(_WARNING)
    return noted if isinstance(noted, str) else None
