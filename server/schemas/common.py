"""What chat and text completions ask in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from engine.request import SamplingParams

NeutralValues: TypeAlias = Mapping[str, tuple[Any, ...]]
"""Field name -> the values that ask for nothing."""

MAX_CHOICES = 128
INT64 = 2**63

StopString = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Schema(BaseModel):
    """No field is unknown, none is turned into another type, none is accepted and ignored.

    UNSUPPORTED: fields of OpenAI's or vLLM's that would change the answer, which this server does
    not do yet, each with the values that ask for nothing (null is always one).
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    UNSUPPORTED: ClassVar[NeutralValues] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, neutral in cls.UNSUPPORTED.items():
            if data.get(name) is not None and data[name] not in neutral:
                raise unsupported(name)
        return {name: value for name, value in data.items() if name not in cls.UNSUPPORTED}


def unsupported(name: str, what: str = "Unsupported parameter") -> PydanticCustomError:
    """The complaint about a field this server knows of and does not serve."""
    return PydanticCustomError(
        "unsupported_parameter", "{what}: '{param}'.", {"what": what, "param": name}
    )


class StreamOptions(Schema):
    """include_usage: send token counts in a chunk of their own before the end."""

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "include_obfuscation": (False,),
        "continuous_usage_stats": (False,),
    }

    include_usage: bool | None = None


class Speculation(Schema):
    """Who drafts; the answer is the same, only its speed differs.

    enabled: false decodes plainly, whatever the others say. bita, ngram, prediction: one source
    each; null leaves it to the server. trace: have the answer say how each of its tokens came.
    """

    enabled: bool = True
    bita: bool | None = None
    ngram: bool | None = None
    prediction: bool | None = None
    trace: bool = False

    @property
    def drafters(self) -> dict[str, bool]:
        """The sources that the request decides about."""
        return self.model_dump(exclude={"enabled", "trace"}, exclude_none=True)


class GenerationRequest(Schema):
    """Fields of every request that generates.

    user, metadata, store (false only), safety_identifier and prompt_cache_key ask for no other
    answer; they are taken and have no effect.
    """

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "best_of": (1,),
        "include_stop_str_in_output": (False,),
        "service_tier": ("auto", "default"),
        "skip_special_tokens": (True,),
        "store": (False,),
    }

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=16)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31, description="0 or -1 keeps all tokens.")
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    stop_token_ids: list[TokenId] | None = Field(None, max_length=64)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    logit_bias: dict[str, Bias] | None = Field(None, description="Token id to addend.")
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    min_tokens: int | None = Field(None, ge=0, lt=2**31)
    ignore_eos: bool | None = None
    speculation: Speculation | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @field_validator("logit_bias")
    @classmethod
    def _keys_are_token_ids(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for token in bias or {}:
            if not (token.isascii() and token.isdigit() and int(token) < 2**31):
                raise ValueError(f"'{token}' is not a token id")
        return bias

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "value_error",
                "only allowed when 'stream' is true",
                {"param": "stream_options"},
            )
        return self

    @property
    def num_choices(self) -> int:
        """How many answers a prompt gets."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

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
            max_tokens=max_tokens,
            min_tokens=self.min_tokens or 0,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
        )


def _given(value: float | None, default: float) -> float:
    return default if value is None else float(value)
