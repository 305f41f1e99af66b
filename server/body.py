"""A request's body: JSON as its standard has it, so that no two readers can read it differently."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.errors import ApiError, invalid

MAX_DEPTH = 100
"""Objects and lists within each other; everything behind this may recurse."""


class JsonRoute(APIRoute):
    """A route whose body, where it has one, is strict JSON (`parse`)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, given a body that is parsed already."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_parsed(request: Request) -> Response:
            request = _Parsed(request.scope, request.receive)
            await request.json()
            return await handle(request)

        return handle_parsed


class _Parsed(Request):
    async def json(self) -> Any:
        """The body's value; raises the 400 of one that is no JSON."""
        if not hasattr(self, "_value"):
            try:
                body = await self.body()
            except ClientDisconnect as error:
                raise invalid("The body did not arrive whole.", None, "invalid_json") from error
            if body:
                _check_content_type(self.headers.get("content-type"))
            self._value = parse(body) if body else None
        return self._value


def parse(body: bytes) -> Any:
    """The value of a JSON text in UTF-8 (RFC 8259).

    Raises the 400 of anything else, and of what readers disagree about or cannot hold: a key twice
    in one object, numbers that are not finite, more than `MAX_DEPTH` levels.
    """
    try:
        value = _DECODER.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _no_json("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _no_json(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _no_json(f"more than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise _no_json("a number has too many digits") from error
    _check_values(value)
    return value


def _check_values(value: Any) -> None:
    level: list[tuple[str, Any]] = [("", value)]
    for _ in range(MAX_DEPTH):
        deeper: list[tuple[str, Any]] = []
        for path, item in level:
            for key, inner in _parts(item):
                if isinstance(inner, (dict, list)):
                    deeper.append((f"{path}{key}.", inner))
                elif isinstance(inner, float) and not math.isfinite(inner):
                    raise invalid(f"Invalid '{path}{key}': not a finite number.", f"{path}{key}")
        if not deeper:
            return
        level = deeper
    raise _no_json(f"more than {MAX_DEPTH} levels")


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise invalid(f"'{twice[:64]}' is there twice.", twice[:64], "duplicate_key")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _check_content_type(given: str | None) -> None:
    kind = (given or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise ApiError(
            415,
            "The body must be JSON: send 'Content-Type: application/json'.",
            code="unsupported_media_type",
        )


def _no_json(why: str) -> ApiError:
    return invalid(f"The body is not valid JSON: {why}.", None, "invalid_json")
