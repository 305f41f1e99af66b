"""POST /v1/chat/completions: what may be asked."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from engine.request import MAX_LOGPROBS
from server.schemas.base import NeutralValues, Schema, disagrees
from server.schemas.conversation import Conversation, TextPart
from server.schemas.structured import StructuredRequest


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
        "separate_reasoning": (True,),
        "stream_reasoning": (True,),
        "web_search_options": (),
    }
    IGNORED: ClassVar[NeutralValues] = {"store": (False,)}

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
    store: bool | None = Field(
        None, description="Nothing is stored: `true` is taken, and named in `x-bita-warning`."
    )

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
    def shown_tools(self) -> list[dict[str, Any]] | None:
        """The tools as the model's template reads them; None where it is not shown any."""
        return self.tool_dicts if self.uses_tools else None

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
