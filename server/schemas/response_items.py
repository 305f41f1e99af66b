"""The items of a responses request: turns as the API gives them out and takes them back."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from server.schemas.base import NeutralValues, Schema
from server.schemas.kinds import kind_of, of_kinds


class TextPart(Schema):
    """A piece of a message. annotations, logprobs: of an earlier answer; not read."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"prompt_cache_breakpoint": ()}

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Text = (
    str
    | Annotated[
        list[Annotated[TextPart, of_kinds("input_text", "output_text")]], Field(min_length=1)
    ]
)


class MessageItem(Schema):
    """One turn: what somebody says, or the model said."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"phase": ()}

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Text
    id: str | None = None
    status: str | None = None


class FunctionCallItem(Schema):
    """A call the model made. arguments: JSON text."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"async": (False,), "caller": (), "namespace": ()}

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class FunctionCallOutputItem(Schema):
    """What came of a call."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"caller": (), "name": (), "namespace": ()}

    type: Literal["function_call_output"]
    call_id: str
    output: Text
    id: str | None = None
    status: str | None = None


class ReasoningText(Schema):
    """A piece of what the model wrote to itself."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Schema):
    """What the model wrote to itself before it answered, as this server gave it out."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"encrypted_content": (), "summary": ([],)}

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None
    id: str | None = None
    status: str | None = None


def _kind(item: Any) -> Any:
    return kind_of(item) or "message"


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind),
    of_kinds("message", "function_call", "function_call_output", "reasoning"),
]
