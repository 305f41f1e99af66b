"""What chat and text completions ask in common."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from engine.request import MAX_LOGPROBS, SamplingParams
from server.schemas.base import NeutralValues, Schema, disagrees

MAX_CHOICES = 128
INT64 = 2**63
TIERS = {"priority": -100, "default": 0, "auto": 0, "flex": 100}
"""service_tier -> priority."""

NO_EFFECT = "Taken without effect: it asks for no other answer."

StopString = Annotated[str, Field(min_length=1, max_length=1024)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
ShortText = Annotated[str, Field(max_length=512)]


class StreamOptions(Schema):
    """How a stream counts its tokens."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"include_obfuscation": (False,)}

    include_usage: bool | None = Field(
        None, description="Token counts in a chunk of their own before the end."
    )
    continuous_usage_stats: bool | None = Field(
        None, description="Token counts so far in every chunk."
    )


class Drafting(Schema):
    """Who drafts; the answer is the same, only its speed differs.

    Null leaves a source to the server.
    """

    UNSUPPORTED: ClassVar[NeutralValues] = {"trace": (False,)}

    enabled: bool = Field(
        default=True, description="`false` decodes plainly, whatever the others say."
    )
    bita: bool | None = Field(default=None, description="The adapter's masks.")
    ngram: bool | None = Field(default=None, description="The request's own past.")
    prediction: bool | None = Field(default=None, description="The `prediction`.")
    grammar: bool | None = Field(
        default=None, description="What a grammar or schema leaves no choice about."
    )

    @cached_property
    def drafters(self) -> dict[str, bool]:
        """The sources that the request decides about."""
        return self.model_dump(exclude={"enabled", "trace"}, exclude_none=True)


class Speculation(Drafting):
    """Who drafts, and whether the answer tells."""

    UNSUPPORTED: ClassVar[NeutralValues] = {}

    trace: bool = Field(
        default=False, description="Each choice's `trace`: how each of its tokens came."
    )


class GenerationRequest(Schema):
    """Fields of every request that generates."""

    # What changes the answer elsewhere (OpenAI, vLLM, SGLang, llama.cpp) and is not done here.
    UNSUPPORTED: ClassVar[NeutralValues] = {
        "allowed_token_ids": (),
        "bad_words": ([],),
        "length_penalty": (1, 1.0),
        "logits_processors": ([],),
        "no_stop_trim": (False,),
        "prompt_embeds": (),
        "return_hidden_states": (False,),
        "return_tokens_as_token_ids": (False,),
        "spaces_between_special_tokens": (True,),
        "structural_tag": (),
        "thinking_token_budget": (),
        "truncate_prompt_tokens": (),
        "use_beam_search": (False,),
    }

    model: str = Field(description="The base model's name or an adapter's.")
    stream: bool | None = Field(None, description="Answer as server-sent events.")
    stream_options: StreamOptions | None = Field(
        None, description="`include_usage`, `continuous_usage_stats`; only with `stream`."
    )
    n: int | None = Field(
        None, ge=1, le=MAX_CHOICES, description="Choices a prompt gets; its KV is computed once."
    )
    temperature: float | None = Field(None, ge=0, le=2, description="1 unless given; 0 is greedy.")
    top_p: float | None = Field(
        None, gt=0, le=1, description="Keep the likeliest tokens that reach this probability."
    )
    top_k: int | None = Field(
        None, ge=-1, lt=2**31, description="Keep so many tokens; 0 or -1 keeps all."
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="Drop tokens less likely than this share of the likeliest."
    )
    seed: int | None = Field(
        None, ge=-INT64, lt=INT64, description="Choice number i of a prompt uses `seed` + i."
    )
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = Field(
        None, description="Up to 16 texts that end the answer; OpenAI takes 4."
    )
    stop_token_ids: list[TokenId] | None = Field(
        None, max_length=64, description="Further tokens that end it."
    )
    include_stop_str_in_output: bool | None = Field(
        None, description="What ended the answer, stop string or stop token, is part of it."
    )
    skip_special_tokens: bool | None = Field(
        None, description="`false` shows special tokens in the text."
    )
    presence_penalty: Penalty | None = Field(None, description="OpenAI's, over generated tokens.")
    frequency_penalty: Penalty | None = Field(None, description="OpenAI's, over generated tokens.")
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=100, description="Over prompt and generated tokens; 1 is off."
    )
    logit_bias: dict[str, Bias] | None = Field(None, description="Token id to addend.")
    max_tokens: int | None = Field(None, ge=1, lt=2**31, description="Most tokens of an answer.")
    min_tokens: int | None = Field(
        None, ge=0, lt=2**31, description="Nothing but `max_tokens` ends the answer before."
    )
    ignore_eos: bool | None = Field(
        None, description="Go on past the model's end-of-sequence tokens."
    )
    prompt_logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_LOGPROBS,
        description="Log-probabilities of the prompt's tokens, in vLLM's form.",
        json_schema_extra={"x-streaming": False},
    )
    return_token_ids: bool | None = Field(
        None, description="`prompt_token_ids` and each choice's `token_ids` in the answer."
    )
    speculation: Speculation | None = Field(
        None, description="Who drafts, which changes the speed alone; `trace` shows who did."
    )
    service_tier: Literal["auto", "default", "flex", "priority"] | None = Field(
        None, description="`priority` goes before `default`, `flex` after; the answer has it too."
    )
    priority: int | None = Field(
        None, ge=-(2**31), lt=2**31, description="Smaller runs first; 0 unless given."
    )
    cache_salt: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="The prefix cache is shared with requests of the same salt alone.",
    )
    user: str | None = Field(None, description=NO_EFFECT)
    metadata: dict[Annotated[str, Field(max_length=64)], ShortText] | None = Field(
        None, max_length=16, description=NO_EFFECT
    )
    safety_identifier: str | None = Field(None, description=NO_EFFECT)
    prompt_cache_key: str | None = Field(None, description=NO_EFFECT)
    prompt_cache_retention: str | None = Field(None, description=NO_EFFECT)

    @field_validator("logit_bias")
    @classmethod
    def _keys_are_token_ids(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for token in bias or {}:
            if not (token.isascii() and token.isdigit() and len(token) < 11):
                raise ValueError(f"'{token}' is not a token id")
        return bias

    @model_validator(mode="after")
    def _fields_go_together(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise disagrees("stream_options", "only allowed when 'stream' is true")
        if self.stream and self.prompt_logprobs is not None:
            raise disagrees("prompt_logprobs", "not available when 'stream' is true")
        if self.priority is not None and self.service_tier in ("flex", "priority"):
            raise disagrees("priority", "not allowed beside this 'service_tier'")
        return self

    @property
    def num_choices(self) -> int:
        """How many answers are generated for a prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def usage_so_far(self) -> bool:
        """Whether every chunk of a stream has token counts."""
        options = self.stream_options
        return options is not None and bool(options.continuous_usage_stats)

    @property
    def tier(self) -> str | None:
        """The service tier the answer reports; None where none was asked for."""
        return "default" if self.service_tier == "auto" else self.service_tier

    @property
    def order(self) -> int:
        """The scheduler's priority."""
        return self.priority or TIERS[self.service_tier or "default"]

    def sampling(self, choice: int, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """How choice number `choice` samples: seeds of one request's choices are consecutive."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return SamplingParams(
            temperature=_given(self.temperature, 1.0),
            top_p=_given(self.top_p, 1.0),
            top_k=max(self.top_k or 0, 0),
            min_p=_given(self.min_p, 0.0),
            seed=None if self.seed is None else self.seed + choice,
            presence_penalty=_given(self.presence_penalty, 0.0),
            frequency_penalty=_given(self.frequency_penalty, 0.0),
            repetition_penalty=_given(self.repetition_penalty, 1.0),
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            logprobs=logprobs,
            prompt_logprobs=self.prompt_logprobs,
            max_tokens=max_tokens,
            min_tokens=self.min_tokens or 0,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            include_stop=bool(self.include_stop_str_in_output),
            skip_special_tokens=self.skip_special_tokens is not False,
            ignore_eos=bool(self.ignore_eos),
        )


def _given(value: float | None, default: float) -> float:
    return default if value is None else float(value)
