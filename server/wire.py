"""JSON as it goes over the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

# `json.dumps` would make one for every chunk of a stream.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def dump(value: Any) -> bytes:
    """Compact JSON in ASCII.

    Some clients split streams at U+2028 and U+0085 as well as at line ends, and half a surrogate
    pair, which JSON may hold, cannot be written as UTF-8.
    """
    return _ENCODER.encode(value).encode()


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`value` as an answer."""
    return Response(dump(value), status, headers, "application/json")
