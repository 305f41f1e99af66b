"""POST /v1/completions: what may be asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, model_validator

from engine.request import MAX_LOGPROBS, SamplingParams
from server.schemas.base import NeutralValues, disagrees
from server.schemas.common import MAX_CHOICES, TokenId
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
        "prediction": (),
        "store": (False,),
        "suffix": (),
    }

    prompt: (
        str
        | TokenIds
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenIds], Field(min_length=1)]
    ) = Field(description="A text, token ids, or a list of either.")
    logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_LOGPROBS,
        description="Log-probabilities with so many alternatives; with `echo` the prompt's too.",
    )
    echo: bool | None = Field(None, description="The answer begins with the prompt.")
    best_of: int | None = Field(
        None,
        ge=1,
        le=MAX_CHOICES,
        description="Generate so many, answer the `n` of highest mean log-probability.",
        json_schema_extra={"x-streaming": False},
    )
    add_special_tokens: bool | None = Field(
        None, description="`false` leaves out tokens the tokenizer puts before a text."
    )
    max_tokens: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description=f"Most tokens of an answer, {DEFAULT_MAX_TOKENS} unless given; 0 only where "
        "the prompt is asked for (`echo`, `prompt_logprobs`).",
    )

    @model_validator(mode="after")
    def _choices_agree(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise disagrees("best_of", "must be at least 'n'")
        if self.best_of is not None and self.best_of > 1 and self.stream:
            raise disagrees("best_of", "not available when 'stream' is true")
        if len(self.prompts) * self.num_choices > MAX_CHOICES:
            raise disagrees("prompt", f"prompts times choices may be {MAX_CHOICES} at most")
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise disagrees("max_tokens", "0 asks for nothing without 'echo'")
        return self

    @property
    def num_choices(self) -> int:
        """How many answers are generated for a prompt; the best `n` are answered."""
        return self.best_of or self.n or 1

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
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    def sampling(self, choice: int, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """As every request's; an echo's log-probabilities are those of the prompt as well."""
        params = super().sampling(choice, max_tokens, self._own_logprobs(logprobs))
        if not self.echo or logprobs is None:
            return params
        return replace(params, prompt_logprobs=max(logprobs, params.prompt_logprobs or 0))

    def _own_logprobs(self, asked: int | None) -> int | None:
        # The best are found by them.
        ranked = self.num_choices > (self.n or 1)
        return 0 if asked is None and ranked else asked
