"""POST /tokenize and /detokenize: what may be asked, and what is answered; vLLM's shapes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.schemas.base import NeutralValues, Schema, disagrees
from server.schemas.common import TokenId
from server.schemas.conversation import Conversation, Message

ModelName = Annotated[str | None, Field(description="The base model's name or an adapter's.")]


class TokenizeRequest(Conversation):
    """A text, or a conversation as the chat template words it."""

    model_config = ConfigDict(json_schema_extra={"example": {"prompt": "Once upon a time"}})

    UNSUPPORTED: ClassVar[NeutralValues] = {"chat_template": (), "mm_processor_kwargs": ()}

    model: ModelName = None
    prompt: str | None = Field(None, description="A text.")
    messages: list[Message] | None = Field(  # type: ignore[assignment]
        None, min_length=1, max_length=4096, description="A conversation, instead of `prompt`."
    )
    add_special_tokens: bool | None = Field(
        None,
        description="Whether the tokenizer adds its own tokens: `true` for a text, `false` for a "
        "conversation unless given.",
    )
    return_token_strs: bool | None = Field(None, description="`token_strs` in the answer.")

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise disagrees("prompt", "give either 'prompt' or 'messages'")
        for name in ("tools", "add_generation_prompt", "continue_final_message"):
            if self.messages is None and getattr(self, name) is not None:
                raise disagrees(name, "only allowed with 'messages'")
        if self.messages is None and self.chat_template_kwargs is not None:
            raise disagrees("chat_template_kwargs", "only allowed with 'messages'")
        return self


class Tokenized(BaseModel):
    """max_model_len: tokens of prompt and answer together. token_strs: the vocabulary's own."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Schema):
    """Token ids to a text."""

    model_config = ConfigDict(json_schema_extra={"example": {"tokens": [5, 6, 7]}})

    model: ModelName = None
    tokens: list[TokenId] = Field(description="Token ids; special ones are part of the text.")


class Detokenized(BaseModel):
    """The text."""

    prompt: str
