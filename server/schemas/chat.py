"""POST /v1/chat/completions: what may be asked."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.request import MAX_LOGPROBS
from server.schemas.common import NeutralValues, Schema, unsupported
from server.schemas.structured import StructuredRequest


class TextPart(Schema):
    """A piece of a message; only text is read here."""

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, data: Any) -> Any:
        kind = data.get("type") if isinstance(data, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise unsupported("type", f"This model reads text, not {kind} parts")
        return data


class FunctionCall(Schema):
    """arguments: JSON text, as the model wrote it."""

    name: str
    arguments: str


class ToolCallMessage(Schema):
    """A call the assistant made earlier."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(Schema):
    """One turn of the conversation."""

    # What openai's own message objects carry when an answer is sent back as history.
    UNSUPPORTED: ClassVar[NeutralValues] = {
        "refusal": (),
        "annotations": ([],),
        "audio": (),
        "function_call": (),
    }

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(min_length=1)] | None = None
    name: str | None = None
    tool_calls: list[ToolCallMessage] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _has_what_its_role_needs(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise _needed("content")
        if self.role == "tool" and self.tool_call_id is None:
            raise _needed("tool_call_id")
        if self.role != "assistant" and self.tool_calls:
            raise PydanticCustomError(
                "value_error", "only an assistant's message has calls", {"param": "tool_calls"}
            )
        return self


class Function(Schema):
    """parameters: a JSON schema of the arguments. strict: keep it to the letter, or refuse it."""

    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    # Not for the model to read: no template was made for it.
    strict: bool | None = Field(None, exclude=True)


class Tool(Schema):
    """A function the model may ask to have called."""

    type: Literal["function"]
    function: Function


class FunctionName(Schema):
    """One of the functions."""

    name: str


class NamedTool(Schema):
    """The function that is to be called."""

    type: Literal["function"]
    function: FunctionName


class Prediction(Schema):
    """A text that the answer is expected to follow for the most part."""

    type: Literal["content"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """All of it."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatCompletionRequest(StructuredRequest):
    """A conversation to answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "bita-concierge",
                "messages": [{"role": "user", "content": "Book a table for two at eight."}],
            }
        }
    )

    UNSUPPORTED: ClassVar[NeutralValues] = {
        **StructuredRequest.UNSUPPORTED,
        "add_generation_prompt": (True,),
        "audio": (),
        "chat_template": (),
        "chat_template_kwargs": ({},),
        "continue_final_message": (False,),
        "echo": (False,),
        "function_call": (),
        "functions": (),
        "modalities": (["text"],),
        "reasoning_effort": (),
        "verbosity": (),
        "web_search_options": (),
    }

    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    prediction: Prediction | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> ChatCompletionRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError(
                "value_error", "only allowed when 'logprobs' is true", {"param": "top_logprobs"}
            )
        if self.tool_choice not in (None, "none") and not self.tools:
            raise PydanticCustomError(
                "value_error", "only allowed with 'tools'", {"param": "tool_choice"}
            )
        if self.named_tool not in (None, *(tool.function.name for tool in self.tools or [])):
            raise PydanticCustomError(
                "value_error", "none of the 'tools'", {"param": "tool_choice.function.name"}
            )
        self._one_of_tools_and_grammar()
        return self

    def _one_of_tools_and_grammar(self) -> None:
        """An answer may be calls or JSON, as the model likes; other grammars hold no calls."""
        if self.grammar is None or not self.uses_tools:
            return
        field = self.grammar.field.split(".")[0]
        if field != "response_format":
            raise PydanticCustomError(
                "value_error",
                "not allowed with 'tools', unless 'tool_choice' is 'none'",
                {"param": field},
            )
        if self.forces_call:
            raise PydanticCustomError(
                "value_error", "not allowed where 'tool_choice' forces a call", {"param": field}
            )

    @property
    def uses_tools(self) -> bool:
        """Whether the model is shown tools, and its calls are looked for."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def named_tool(self) -> str | None:
        """The function that must be called, where one is named."""
        return self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None

    @property
    def forces_call(self) -> bool:
        """Whether the model must call a function."""
        return self.tool_choice == "required" or self.named_tool is not None

    @property
    def token_limit(self) -> int | None:
        """Most tokens of an answer; None runs to the end of the context."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives reported with each token; None reports nothing."""
        return (self.top_logprobs or 0) if self.logprobs else None


def _needed(name: str) -> PydanticCustomError:
    return PydanticCustomError("missing", "Field required", {"param": name})
