"""POST /v1/responses: what may be asked.

The types are here; of ranges, and of what the model can do, chat decides (`server.responses.chat`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from server.schemas.base import NeutralValues, Schema
from server.schemas.common import Drafting
from server.schemas.kinds import of_kinds
from server.schemas.response_items import Item

LOGPROBS = "message.output_text.logprobs"
NOT_STORED = (
    "This server stores no responses: send the earlier turns as items of 'input', and leave "
    "'{name}' out."
)


class FunctionTool(Schema):
    """A function the model may ask to have called. parameters: a JSON schema of its arguments."""

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "allowed_callers": (["direct"],),
        "async": (False,),
        "defer_loading": (False,),
        "output_schema": (),
    }

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(Schema):
    """The one function that must be called."""

    type: Literal["function"]
    name: str


class TextFormat(Schema):
    """json_schema has `name` and `schema`, perhaps `strict` and `description`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextConfig(Schema):
    """How the answer is written."""

    format: TextFormat | None = None
    verbosity: str | None = None


class Reasoning(Schema):
    """How much the model thinks before it answers."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"summary": (), "generate_summary": (), "context": ()}

    effort: str | None = None


class StreamOptions(Schema):
    """Nothing of it changes anything here: counts always come with the last event."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"include_obfuscation": (False,)}


class ResponsesRequest(Schema):
    """A conversation to answer, as items.

    metadata and what is said of users ask for no other answer and come back in the response.
    Fields from `seed` on are beyond OpenAI's, and chat's.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "bita-concierge", "input": "Book a table for two at eight."}
        }
    )

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "access_programs": (),
        "background": (False,),
        "context_management": ([],),
        "image": (),
        "logprobs": (False,),
        "max_completion_tokens": (),
        "max_tokens": (),
        "max_tool_calls": (),
        "messages": (),
        "moderation": (),
        "n": (1,),
        "prediction": (),
        "prompt": (),
        "prompt_cache_options": (),
        "prompt_cache_retention": ("in_memory",),
        "response_format": (),
        "service_tier": ("auto", "default"),
        "truncation": ("disabled",),
    }

    model: str
    input: str | list[Item]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = Field(None, description="Nothing is stored; true is refused.")
    previous_response_id: str | None = Field(None, description="Refused: nothing is stored.")
    conversation: Any = Field(None, description="Refused: nothing is stored.")
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    tools: list[Annotated[FunctionTool, of_kinds("function")]] | None = None
    tool_choice: (
        Literal["auto", "none", "required"] | Annotated[NamedFunction, of_kinds("function")] | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    speculation: Drafting | None = None

    @field_validator("store", "previous_response_id", "conversation")
    @classmethod
    def _nothing_is_stored(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and value is not False:
            raise PydanticCustomError(
                "unsupported_parameter", NOT_STORED, {"name": info.field_name}
            )
        return value

    @field_validator("include")
    @classmethod
    def _includes_what_there_is(cls, include: list[str] | None) -> list[str] | None:
        for name in include or []:
            if name != LOGPROBS:
                raise PydanticCustomError(
                    "unsupported_parameter",
                    "Unsupported 'include': {name}. There is {known}.",
                    {"name": name, "known": LOGPROBS},
                )
        return include

    @property
    def includes_logprobs(self) -> bool:
        """Whether the answer's text comes with its tokens' log-probabilities."""
        return LOGPROBS in (self.include or [])
