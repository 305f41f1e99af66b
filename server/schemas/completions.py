"""POST /v1/completions: what may be asked."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.request import MAX_LOGPROBS
from server.schemas.common import MAX_CHOICES, NeutralValues, TokenId
from server.schemas.structured import StructuredRequest

DEFAULT_MAX_TOKENS = 16

TokenIds = Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(StructuredRequest):
    """One prompt or several, as text or as token ids."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "bita-concierge", "prompt": "Once upon a time"}}
    )

    UNSUPPORTED: ClassVar[NeutralValues] = {
        **StructuredRequest.UNSUPPORTED,
        "echo": (False,),
        "prediction": (),
        "suffix": (),
    }

    prompt: (
        str
        | TokenIds
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenIds], Field(min_length=1)]
    )
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @model_validator(mode="after")
    def _not_too_many_choices(self) -> CompletionRequest:
        if len(self.prompts) * self.num_choices > MAX_CHOICES:
            raise PydanticCustomError(
                "value_error",
                "prompts times 'n' may be {most} at most",
                {"param": "prompt", "most": MAX_CHOICES},
            )
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        alone: list[int] = []
        prompts: list[str | list[int]] = []
        for item in self.prompt:
            if isinstance(item, int):
                alone.append(item)
            else:
                prompts.append(item)
        return prompts or [alone]

    @property
    def token_limit(self) -> int:
        """Most tokens of a completion."""
        return self.max_tokens or DEFAULT_MAX_TOKENS
