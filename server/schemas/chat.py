"""POST /v1/chat/completions: what may be asked."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.request import MAX_LOGPROBS
from server.schemas.base import NeutralValues, Schema, disagrees, unsupported
from server.schemas.common import ShortText
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
    # What openai's stream helper adds; it says the same.
    parsed_arguments: Any = Field(None, exclude=True)


class ToolCallMessage(Schema):
    """A call the assistant made earlier. index: its number, which chunks of a stream have."""

    id: str
    type: Literal["function"]
    function: FunctionCall
    index: int | None = Field(None, exclude=True)


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
    reasoning_content: str | None = Field(
        None, description="Of an earlier answer, for templates that show it again."
    )
    parsed: Any = Field(None, exclude=True)
    reasoning: str | None = Field(None, description="Another name of 'reasoning_content'.")

    @model_validator(mode="after")
    def _has_what_its_role_needs(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise _needed("content")
        if self.role == "tool" and self.tool_call_id is None:
            raise _needed("tool_call_id")
        if self.role != "assistant" and self.tool_calls:
            raise disagrees("tool_calls", "only an assistant's message has calls")
        for name in ("reasoning_content", "reasoning"):
            if self.role != "assistant" and getattr(self, name):
                raise disagrees(name, "only an assistant's message has it")
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


class Conversation(Schema):
    """What a chat template makes a prompt of."""

    messages: list[Message] = Field(
        min_length=1,
        max_length=4096,
        description="Text only; roles `system`, `developer`, `user`, `assistant`, `tool`.",
    )
    tools: list[Tool] | None = Field(
        None, max_length=128, description="Functions the model may ask to have called."
    )
    add_generation_prompt: bool | None = Field(
        None, description="`false` leaves out what begins an assistant's answer."
    )
    continue_final_message: bool | None = Field(
        None, description="The answer goes on where the last message ends."
    )
    chat_template_kwargs: dict[ShortText, Any] | None = Field(
        None, max_length=32, description="Variables that the model's own template reads."
    )

    @model_validator(mode="after")
    def _one_way_to_end(self) -> Conversation:
        if self.continue_final_message and self.messages:
            if self.add_generation_prompt:
                raise disagrees(
                    "add_generation_prompt", "not allowed with 'continue_final_message'"
                )
            if not self.messages[-1].content:
                raise disagrees("continue_final_message", "the last message has no content")
        return self

    @property
    def message_dicts(self) -> list[dict[str, Any]]:
        """The messages as a template reads them."""
        return [message.model_dump(exclude_none=True) for message in self.messages]

    @property
    def tool_dicts(self) -> list[dict[str, Any]] | None:
        """The tools as a template reads them."""
        return [tool.model_dump(exclude_none=True) for tool in self.tools or []] or None

    @property
    def begins_answer(self) -> bool:
        """Whether the prompt ends with what begins an assistant's answer."""
        return self.add_generation_prompt is not False and not self.continue_final_message


class ChatCompletionRequest(StructuredRequest, Conversation):
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
        "add_special_tokens": (False,),
        "audio": (),
        "best_of": (1,),
        "chat_template": (),
        "documents": (),
        "echo": (False,),
        "function_call": (),
        "functions": (),
        "modalities": (["text"],),
        "web_search_options": (),
    }

    max_completion_tokens: int | None = Field(
        None, ge=1, lt=2**31, description="As `max_tokens`, and goes before it."
    )
    logprobs: bool | None = Field(None, description="Log-probabilities of the answer's tokens.")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Alternatives with each; needs `logprobs`."
    )
    prediction: Prediction | None = Field(
        None, description="A text the answer will mostly follow; changes the speed alone."
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = Field(
        None, description="Given to the model's template; refused where that does not read it."
    )
    verbosity: Literal["low", "medium", "high"] | None = Field(
        None, description="As `reasoning_effort`; `medium` is what happens anyway."
    )
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = Field(
        None, description="Whether the model may, must or must not call, or the function it must."
    )
    parallel_tool_calls: bool | None = Field(None, description="`false`: one call at most.")

    @model_validator(mode="after")
    def _fields_agree(self) -> ChatCompletionRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise disagrees("top_logprobs", "only allowed when 'logprobs' is true")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise disagrees("tool_choice", "only allowed with 'tools'")
        if self.named_tool not in (None, *(tool.function.name for tool in self.tools or [])):
            raise disagrees("tool_choice.function.name", "none of the 'tools'")
        self._one_of_tools_and_grammar()
        return self

    def _one_of_tools_and_grammar(self) -> None:
        """An answer may be calls or JSON, as the model likes; other grammars hold no calls."""
        if self.constraint is None or not self.uses_tools:
            return
        field = self.constraint.field.split(".")[0]
        if field != "response_format":
            raise disagrees(field, "not allowed with 'tools', unless 'tool_choice' is 'none'")
        if self.forces_call:
            raise disagrees(field, "not allowed where 'tool_choice' forces a call")

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
