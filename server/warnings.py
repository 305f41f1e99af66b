"""What an answer's header says of a request's fields that nothing is done about."""

from __future__ import annotations

import re
from itertools import islice

from starlette.requests import Request
from starlette.types import Scope

from server.schemas.base import Schema, ignored_fields

HEADER = "x-bita-warning"
MAX_NAMES, MAX_NAME = 16, 64

_WARNING = "bita.warning"
_STRANGE = re.compile(r"[^A-Za-z0-9_.-]")


def note_ignored(request: Request, body: Schema) -> None:
    """Have the answer name the fields of `body` that are ignored, as far as there is room."""
    names = list(islice(ignored_fields(body), MAX_NAMES + 1))
    if names:
        shown = ", ".join(_STRANGE.sub("?", name[:MAX_NAME]) for name in names[:MAX_NAMES])
        more = ", ..." if len(names) > MAX_NAMES else ""
        request.scope[_WARNING] = f"fields ignored: {shown}{more}"


def warning_of(scope: Scope) -> str | None:
    """What `note_ignored` noted."""
    noted = scope.get(_WARNING)
    return noted if isinstance(noted, str) else None
