"""Every error as OpenAI words it: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import (
    AdapterNameTaken,
    AdapterRefused,
    ContextLengthExceeded,
    EngineDead,
    EngineOverloaded,
    EngineStopped,
    NoFreeSlot,
    RequestError,
    RequestFailed,
    UnknownAdapter,
)
from server.logging import record_in
from server.wire import json_response

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"

log = logging.getLogger("bita.server")

_CODES = {
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
    "extra_forbidden": "unknown_parameter",
    "unsupported_parameter": "unsupported_parameter",
}


MAX_MESSAGE, MAX_PARAM = 1000, 200
"""Characters: what a client sends does not come back at any length."""
# By https://docs.anthropic.com/en/api/errors, where 529 is what is 503 here.
_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_MESSAGES = re.compile(r"(/v1)?/messages(/.*)?")


@dataclass
class ApiError(Exception):
    """An error as it goes over the wire. request_id: of the request it ends (`noted`)."""

    status: int
    message: str
    type: str = INVALID_REQUEST
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    request_id: str | None = None

    def envelope(self) -> dict[str, Any]:
        """The body of the answer, or the data of an event in a stream."""
        return {
            "error": {
                "message": _bounded(self.message, MAX_MESSAGE),
                "type": self.type,
                "param": None if self.param is None else _bounded(self.param, MAX_PARAM),
                "code": self.code,
                "request_id": self.request_id,
            }
        }

    def anthropic(self) -> dict[str, Any]:
        """The same as Anthropic words it, whose errors name the field in the message."""
        message = _bounded(self.message, MAX_MESSAGE)
        named = f"{_bounded(self.param, MAX_PARAM)}: {message}" if self.param else message
        kind = _ANTHROPIC.get(self.status, "api_error" if self.status >= 500 else INVALID_REQUEST)
        error = {"type": kind, "message": named}
        return {"type": "error", "error": error, "request_id": self.request_id}

    def response(self) -> Response:
        """The answer itself, as the endpoint that was asked words its errors."""
        return _ErrorResponse(self)


class _ErrorResponse(Response):
    def __init__(self, error: ApiError) -> None:
        super().__init__(status_code=error.status)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = noted(self._error, scope)
        body = error.anthropic() if _MESSAGES.fullmatch(scope["path"]) else error.envelope()
        await json_response(body, error.status, error.headers)(scope, receive, send)


def invalid(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    """A 400 that names the field at fault."""
    return ApiError(400, message, param=param, code=code)


def model_not_found(message: str, param: str = "model") -> ApiError:
    """The 404 of a model, or an adapter, that is not served."""
    return ApiError(404, message, param=param, code="model_not_found")


def conflict(message: str, param: str | None, code: str) -> ApiError:
    """The 409 of what cannot be while something else is."""
    return ApiError(409, message, param=param, code=code)


def unavailable(message: str, retry_after: float = 1.0) -> ApiError:
    """The 503 of a server that is starting, stopping or waiting for its engine."""
    headers = {**_retry_after(retry_after), "x-should-retry": "true"}
    return ApiError(503, message, SERVER_ERROR, code="unavailable", headers=headers)


def overloaded(message: str, retry_after: float = 1.0) -> ApiError:
    """The 429 of a server with more requests than it takes on."""
    return ApiError(
        429, message, "rate_limit_error", code="queue_full", headers=_retry_after(retry_after)
    )


def as_api_error(error: Exception) -> ApiError:
    """Word any exception for the client; what it need not know goes to the log alone."""
    match error:
        case ApiError():
            return error
        case ContextLengthExceeded():
            return invalid(str(error), error.field, "context_length_exceeded")
        case UnknownAdapter():
            return model_not_found(str(error))
        case AdapterNameTaken():
            return conflict(str(error), error.field, "adapter_exists")
        case NoFreeSlot():
            return conflict(str(error), None, "no_free_slot")
        case AdapterRefused():
            return invalid(str(error), error.field, "invalid_adapter")
        case RequestError():
            return invalid(str(error), error.field)
        case EngineOverloaded():
            return overloaded(str(error), error.retry_after)
        case RequestFailed():
            return ApiError(500, str(error), SERVER_ERROR, code="request_failed")
        case EngineStopped():
            return unavailable("The server is shutting down.")
        case EngineDead():
            return unavailable("The engine is not available; it is being restarted.")
        case RequestValidationError():
            return _validation_error(error)
        case HTTPException():
            return _http_error(error)
    log.error("unexpected error", exc_info=error)
    return ApiError(500, "The server had an error.", SERVER_ERROR, code="internal_error")


def noted(error: Exception, scope: Scope) -> ApiError:
    """The error that ends a request, worded, with that request's id; its record learns of it."""
    worded, record = as_api_error(error), record_in(scope)
    worded.request_id = record.request_id
    record.error, record.error_status = worded.code or worded.type, worded.status
    return worded


def install(app: FastAPI) -> None:
    """Have the application answer every error it foresees with the envelope."""

    async def handle(_: Request, error: Exception) -> Response:
        return as_api_error(error).response()

    for kind in (ApiError, RequestError, NoFreeSlot, EngineOverloaded, RequestFailed, EngineDead):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(RequestValidationError, handle)
    app.add_exception_handler(HTTPException, handle)


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _retry_after(seconds: float) -> dict[str, str]:
    return {
        "retry-after": str(max(1, math.ceil(seconds))),
        "retry-after-ms": str(math.ceil(seconds * 1000)),
    }


def _http_error(error: HTTPException) -> ApiError:
    code = HTTPStatus(error.status_code).name.lower()
    return ApiError(error.status_code, error.detail, code=code, headers=dict(error.headers or {}))


def _validation_error(error: RequestValidationError) -> ApiError:
    """The most deeply placed complaint: a union's other members complain further up."""
    placed = [(_path(item, error.body), item) for item in error.errors()]
    path, item = max(placed, key=lambda pair: len(pair[0]))
    param = ".".join(str(part) for part in path) or None
    kind = item["type"]
    if kind == "json_invalid":
        return invalid("The body is not valid JSON.", None, _CODES[kind])
    if kind == "extra_forbidden":
        message = f"Unknown parameter: '{param}'."
    elif kind == "missing":
        message = f"Missing required parameter: '{param}'." if param else "The body is missing."
    elif kind == "unsupported_parameter":
        message = item["msg"]
    else:
        message = f"Invalid '{param}': {item['msg']}." if param else f"Invalid body: {item['msg']}."
    default = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return invalid(message, param, _CODES.get(kind, default))


def _path(item: Mapping[str, Any], body: Any) -> list[str | int]:
    """Where in the body a complaint lies, without the tags pydantic adds for unions."""
    location: Sequence[str | int] = item["loc"]
    path: list[str | int] = []
    here = body
    for number, part in enumerate(location[1:], start=2):
        if _holds(here, part):
            here = here[part]
        elif number < len(location) or item["type"] != "missing":
            continue
        path.append(part)
    named = item.get("ctx", {}).get("param")
    return [*path, named] if named else path


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)
