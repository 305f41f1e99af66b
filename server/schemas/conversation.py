"""Messages and tools: what a chat template makes a prompt of."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from server.schemas.base import NeutralValues, Schema, disagrees, unsupported
from server.schemas.common import ShortText


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


def _needed(name: str) -> PydanticCustomError:
    return PydanticCustomError("missing", "Field required", {"param": name})
