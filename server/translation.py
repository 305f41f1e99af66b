"""Other APIs' requests as chat requests, and what chat says of them in the words of their own.

Chat decides what is supported: an adapter has the types of its fields, chat their ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from server.errors import ApiError, as_api_error
from server.schemas.chat import ChatCompletionRequest


def chat_request(fields: Mapping[str, Any]) -> ChatCompletionRequest:
    """A chat request of these fields; null ones are left out.

    Raises the 400 of what chat refuses, which names chat's field.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return ChatCompletionRequest.model_validate(given)
    except ValidationError as error:
        complaints = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        raise as_api_error(RequestValidationError(complaints, body=given)) from error


@contextmanager
def worded(names: Mapping[str, str]) -> Iterator[None]:
    """Errors raised within name a field of the adapter's in place of chat's.

    names: chat's -> the adapter's. A message's place is not the same in both, so that of an error
    in `messages` the field alone is named.
    """
    try:
        yield
    except Exception as error:
        raise _renamed(as_api_error(error), names) from error


def _renamed(error: ApiError, names: Mapping[str, str]) -> ApiError:
    if error.param is None:
        return error
    field, _, rest = error.param.partition(".")
    # Other APIs' tools have no "function" within, nor their formats "json_schema".
    inner = [part for part in rest.split(".") if part not in ("", "function", "json_schema")]
    if field == "messages":
        inner = []
    param = ".".join([names.get(field, field), *(names.get(part, part) for part in inner)])
    error.message = error.message.replace(f"'{error.param}'", f"'{param}'")
    error.param = param
    return error
