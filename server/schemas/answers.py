"""What is answered, for the OpenAPI document; a test holds the answers themselves to it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Error(BaseModel):
    """param: the field at fault, as a dotted path. request_id: the `x-request-id`."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None
    request_id: str


class ErrorAnswer(BaseModel):
    """Every answer but those of 200, of the health probes and of /v1/messages."""

    error: Error


class AnthropicError(BaseModel):
    """message: begins with the field at fault."""

    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "rate_limit_error",
        "api_error",
        "overloaded_error",
    ]
    message: str


class AnthropicErrorAnswer(BaseModel):
    """As `ErrorAnswer`, of /v1/messages and what is below it."""

    type: Literal["error"]
    error: AnthropicError
    request_id: str


class PromptDetails(BaseModel):
    """cached_tokens: of the prompt, found in the prefix cache."""

    cached_tokens: int


class CompletionDetails(BaseModel):
    """Of all tokens, those the prediction has, and those of the prediction they have not."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(BaseModel):
    """Token counts; a prompt counts once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails | None = None


class SpeculativeDecoding(BaseModel):
    """What speculation did for this answer."""

    mean_acceptance_length: float
    draft_acceptance_rate: float
    acceptance_histogram: list[int]
    num_spec_steps: int
    num_accepted_draft_tokens: int
    num_draft_tokens: int
    num_spec_tokens: int


class Metrics(BaseModel):
    """The receipt."""

    speculative_decoding: SpeculativeDecoding


class Alternative(BaseModel):
    """bytes: of the token in UTF-8, null where its vocabulary does not tell."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(Alternative):
    """A token of the answer; top_logprobs: the likeliest in its place."""

    top_logprobs: list[Alternative]


class ChatLogprobs(BaseModel):
    """Of each token of an answer."""

    content: list[ChatLogprob]
    refusal: None


class CalledFunction(BaseModel):
    """arguments: JSON text, as the model wrote it."""

    name: str
    arguments: str


class Call(BaseModel):
    """A call the model asks for."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[Call] | None = None


class TracedToken(BaseModel):
    """How a token came.

    text: what it reads as alone. bytes: its UTF-8 bytes, where it is part of a character.
    sources: who had drafted it; nobody, if the model chose it itself. depth: its place in the
    draft, from 1; 0 where nobody had.
    """

    text: str
    sources: list[Literal["bita", "ngram", "prediction", "grammar"]]
    depth: int
    bytes: list[int] | None = None


PromptLogprobs = list[dict[str, dict[str, Any]] | None]


class ChatChoice(BaseModel):
    """stop_reason: the stop string or token id that ended it."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]
    stop_reason: str | int | None
    token_ids: list[int] | None = None
    trace: list[TracedToken] | None = None


class Answer(BaseModel):
    """What every generated answer begins and ends with."""

    id: str
    created: int = Field(description="Seconds since the epoch.")
    model: str
    system_fingerprint: str = Field(description="Equal fingerprints give equal greedy output.")
    service_tier: Literal["default", "flex", "priority"] | None = None
    usage: Usage
    metrics: Metrics


class ChatCompletion(Answer):
    """The answer to a conversation."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class TextLogprobs(BaseModel):
    """Parallel lists; null for the first token of an echoed prompt, which nothing foretells."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(BaseModel):
    """stop_reason: the stop string or token id that ended it."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None
    token_ids: list[int] | None = None
    trace: list[TracedToken] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class Completion(Answer):
    """Continuations of one prompt or several."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class Health(BaseModel):
    """heartbeat_age: seconds since the engine's last sign of life."""

    status: Literal["ok", "unavailable"]
    live: bool
    ready: bool
    heartbeat_age: float


class Version(BaseModel):
    """Of BiTA Serve."""

    version: str
