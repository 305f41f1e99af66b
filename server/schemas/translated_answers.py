"""What /v1/responses and /v1/messages answer, for the OpenAPI document.

As in `schemas.answers`: answers are not made from these, a test holds them to it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.schemas.answers import ChatLogprob, Metrics

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(BaseModel):
    """A text. logprobs: of its tokens, where they were asked for."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ChatLogprob]


class OutputMessage(BaseModel):
    """What the model says."""

    id: str
    type: Literal["message"]
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


class OutputCall(BaseModel):
    """A call the model asks for. arguments: JSON text, as the model wrote it."""

    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


class OutputReasoningText(BaseModel):
    """A piece of what the model wrote to itself."""

    type: Literal["reasoning_text"]
    text: str


class OutputReasoning(BaseModel):
    """What the model wrote to itself; there are no summaries."""

    id: str
    type: Literal["reasoning"]
    status: Status
    summary: list[Any]
    content: list[OutputReasoningText]


OutputItem = Annotated[OutputMessage | OutputCall | OutputReasoning, Field(discriminator="type")]


class InputDetails(BaseModel):
    """cached_tokens: of the input, found in the prefix cache."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(BaseModel):
    """Of the output."""

    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseError(BaseModel):
    """Of a response that failed after its stream had begun."""

    code: str
    message: str


class IncompleteDetails(BaseModel):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"]


class AskedTool(BaseModel):
    """A function of the request."""

    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class AskedReasoning(BaseModel):
    """As the request has it."""

    effort: str | None
    summary: None


class AskedFormat(BaseModel):
    """As the request has it: with type "json_schema" also `name`, `schema` and perhaps more."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema"]


class AskedText(BaseModel):
    """As the request has it."""

    format: AskedFormat
    verbosity: str | None = None


class AskedFunction(BaseModel):
    """The function that must be called."""

    type: Literal["function"]
    name: str


class ResponseAnswer(BaseModel):
    """The answer to items. usage, metrics: of one that has ended."""

    id: str
    object: Literal["response"]
    created_at: int = Field(description="Seconds since the epoch.")
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: Literal[False]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: None
    prompt_cache_key: str | None
    reasoning: AskedReasoning
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: Literal[False]
    temperature: float
    text: AskedText
    tool_choice: Literal["auto", "none", "required"] | AskedFunction
    tools: list[AskedTool]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    user: str | None
    metrics: Metrics | None = None


class SaidBlock(BaseModel):
    """What the model says."""

    type: Literal["text"]
    text: str


class ThoughtBlock(BaseModel):
    """What the model wrote to itself. signature: empty."""

    type: Literal["thinking"]
    thinking: str
    signature: Literal[""]


class CallBlock(BaseModel):
    """A call the model asks for. input: its arguments, as far as they came."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


AnswerBlock = Annotated[SaidBlock | ThoughtBlock | CallBlock, Field(discriminator="type")]


class MessageUsage(BaseModel):
    """Token counts. input_tokens: without those found in the prefix cache."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageAnswer(BaseModel):
    """The answer to a conversation in Anthropic's form."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnswerBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessageUsage
    metrics: Metrics


class TokenCount(BaseModel):
    """Of a conversation's prompt, cached ones included."""

    input_tokens: int
