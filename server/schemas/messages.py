"""POST /v1/messages and its count_tokens: what may be asked.

The types are here; of ranges, and of what the model can do, chat decides (`server.anthropic.chat`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from server.schemas.base import NeutralValues, Schema
from server.schemas.common import Drafting
from server.schemas.kinds import kind_of, of_kinds


class CacheControl(Schema):
    """Asks for what happens anyway: equal beginnings of prompts are computed once."""

    type: Literal["ephemeral"]
    ttl: str | None = None


class TextBlock(Schema):
    """A text."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"citations": ([],)}

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


Texts = str | list[Annotated[TextBlock, of_kinds("text")]]


class ToolUseBlock(Schema):
    """A call the model made. input: its arguments."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"caller": ({"type": "direct"},), "toolset_name": ()}

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class ToolResultBlock(Schema):
    """What came of a call. is_error: the model is told by the word "Error" before it."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"toolset_name": ()}

    type: Literal["tool_result"]
    tool_use_id: str
    content: Texts | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


class ThinkingBlock(Schema):
    """What the model wrote to itself. signature: not checked; this server's are empty."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[ThinkingBlock, Tag("thinking")],
    Discriminator(kind_of),
    of_kinds("text", "tool_use", "tool_result", "thinking"),
]


class Turn(Schema):
    """One turn of the conversation."""

    role: Literal["user", "assistant"]
    content: str | Annotated[list[Block], Field(min_length=1)]


class Tool(Schema):
    """A function the model may ask to have called."""

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "allowed_callers": (["direct"],),
        "defer_loading": (False,),
        "eager_input_streaming": (),
        "input_examples": ([],),
    }

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: CacheControl | None = None


class ToolChoice(Schema):
    """name: of the one tool, where `type` is "tool"."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Schema):
    """Whether the model thinks before it answers is its template's matter."""

    type: Literal["disabled"]


class OutputFormat(Schema):
    """A JSON schema that the answer follows, kept to the letter."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(Schema):
    """How the answer is written."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"effort": ("high",), "task_budget": ()}

    format: Annotated[OutputFormat, of_kinds("json_schema")] | None = None


class Metadata(Schema):
    """Taken without effect."""

    user_id: str | None = None


class CountTokensRequest(Schema):
    """A conversation, as the model is shown it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "bita-concierge",
                "messages": [{"role": "user", "content": "Book a table for two at eight."}],
            }
        }
    )

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "context_management": (),
        "mcp_servers": ([],),
        "output_format": (),
        "speed": ("standard",),
        "user_profile_id": (),
        "workspace_id": (),
    }

    model: str
    messages: list[Turn] = Field(min_length=1)
    system: Texts | None = None
    tools: list[Annotated[Tool, of_kinds("custom")]] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Annotated[Thinking, of_kinds("disabled")] | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None


class MessagesRequest(CountTokensRequest):
    """A conversation to answer.

    `min_p`, `seed` and `speculation` are beyond Anthropic's, and chat's.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "bita-concierge",
                "max_tokens": 100,
                "messages": [{"role": "user", "content": "Book a table for two at eight."}],
            }
        }
    )

    UNSUPPORTED: ClassVar[NeutralValues] = {
        **CountTokensRequest.UNSUPPORTED,
        "container": (),
        "diagnostics": (),
        "frequency_penalty": (),
        "inference_geo": (),
        "logit_bias": ({},),
        "max_completion_tokens": (),
        "n": (1,),
        "prediction": (),
        "presence_penalty": (),
        "repetition_penalty": (),
        "response_format": (),
        "service_tier": ("auto", "standard_only"),
        "stop": (),
    }

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: Metadata | None = None
    min_p: float | None = None
    seed: int | None = None
    speculation: Drafting | None = None
