"""What crosses the engine's door: plain data, no behaviour beyond validation."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.errors import RequestError

MAX_LOGPROBS = 20

JSON_STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""llguidance's options for JSON as `json.dumps` writes it, and as chat templates show it to models.

Any white space would be valid; but where a model is asked for what it would not write, white space
is what it likes best, up to the last token it may generate.
"""


class FinishReason(StrEnum):
    """Why a request ended; `ABORT` never reaches an API client."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen.

    temperature: 0 is greedy; otherwise logits are divided by it.
    top_p: keep the most likely tokens that together reach this probability, in (0, 1].
    top_k: keep this many tokens; 0 keeps all.
    min_p: keep tokens at least this likely relative to the likeliest, in [0, 1].
    seed: key of the noise; None draws one when the request arrives.
    presence_penalty, frequency_penalty: OpenAI's, in [-2, 2], over generated tokens.
    repetition_penalty: CTRL's (Keskar 2019), over prompt and generated tokens; 1 is off.
    logit_bias: token id -> addend, in [-100, 100].
    logprobs: None, or how many alternatives a token is reported with (0 to 20), in nats of the
        model's own distribution (before temperature, penalties and bias).
    prompt_logprobs: the same for the prompt's tokens, from the second on; they come with the first
        output, and nothing is taken from the prefix cache.
    max_tokens: most tokens generated; None runs to the end of the context; 0 computes the prompt.
    min_tokens: end-of-sequence and stop tokens cannot be chosen before this many tokens, and no
        stop string ends among them.
    stop: strings that end the text (not part of it); matched on text, in the client.
    stop_token_ids: further tokens that end it.
    include_stop: what ended the text, stop string or stop token, is part of it.
    skip_special_tokens: special tokens have no text.
    ignore_eos: keep going past the model's end-of-sequence tokens.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    skip_special_tokens: bool = True
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _in_range("temperature", self.temperature, 0.0, 100.0)
        _in_range("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise RequestError("top_p must be above 0", "top_p")
        _in_range("top_k", self.top_k, 0, 2**31)
        _in_range("min_p", self.min_p, 0.0, 1.0)
        _in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _in_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        for bias in self.logit_bias.values():
            _in_range("logit_bias", bias, -100.0, 100.0)
        if self.logprobs is not None:
            _in_range("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.prompt_logprobs is not None:
            _in_range("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS)
        most = 2**31 if self.max_tokens is None else self.max_tokens
        _in_range("max_tokens", most, 0, 2**31)
        _in_range("min_tokens", self.min_tokens, 0, most)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always chosen."""
        return self.temperature == 0.0

    @property
    def plain(self) -> bool:
        """Whether the choice at a row needs nothing but that row's own logits' maximum."""
        return self.greedy and self._unpenalised and self.logprobs is None

    @property
    def tempered(self) -> bool:
        """Whether tokens are sampled of logits to which nothing is done but the temperature."""
        return (
            not self.greedy
            and self._unpenalised
            and self.min_p == 0.0
            and self.top_k == 0
            and self.top_p == 1.0
        )

    @property
    def _unpenalised(self) -> bool:
        return (
            not self.logit_bias
            and self.presence_penalty == 0.0
            and self.frequency_penalty == 0.0
            and self.repetition_penalty == 1.0
            and self.min_tokens == 0
        )


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise RequestError(f"{name} must be between {low} and {high}, not {value}", name)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must look like.

    kind: "json_schema", "regex", "choice" (`text` is a JSON array of strings), "ebnf" (GBNF or
        llguidance's Lark, told apart by their look) or "lark".
    field: the request's field it comes from, for errors; grammars of equal text are equal.
    """

    kind: str
    text: str
    field: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to continue.

    adapter: name of the BiTA adapter that drafts; None uses the engine's default adapter.
    speculation: False decodes plainly, one token a forward.
    drafters: source -> whether it drafts, where the request asks for other than the engine's own.
    prediction: tokens the output is expected to have, or empty.
    kept_tokens: special tokens that are part of the text, for who looks for them there.
    trace: whether outputs say how each token came (`RequestOutput.sources`).
    priority: smaller runs first; equal priorities in order of arrival.
    cache_salt: cached KV is shared between requests of the same salt alone.
    grammar: what the output must match, or None.
    arrived: when, in seconds of `time.monotonic`, a clock that all processes of a machine share.
    """

    request_id: str
    token_ids: list[int]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    adapter: str | None = None
    speculation: bool = True
    drafters: dict[str, bool] = field(default_factory=dict)
    prediction: list[int] = field(default_factory=list)
    kept_tokens: list[int] = field(default_factory=list)
    trace: bool = False
    priority: int = 0
    cache_salt: str = ""
    grammar: Grammar | None = None
    arrived: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability in nats and the likeliest in its place, best first.

    rank: 1 for the likeliest; tokens as likely as it count as less likely.
    """

    token_id: int
    logprob: float
    top: list[tuple[int, float]]
    rank: int


@dataclass(slots=True)
class SpecReceipt:
    """What speculation did for one request so far.

    num_forwards: decoding forwards; the one that ends the prompt is not among them.
    num_draft_tokens, num_accepted_tokens: drafted and accepted tree nodes.
    accepted_histogram: entry k counts the forwards that accepted k draft tokens.
    """

    num_forwards: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_histogram: list[int] = field(default_factory=list)

    def add(self, drafted: int, accepted: int) -> None:
        """Count one forward."""
        self.num_forwards += 1
        self.num_draft_tokens += drafted
        self.num_accepted_tokens += accepted
        missing = accepted + 1 - len(self.accepted_histogram)
        self.accepted_histogram.extend([0] * missing)
        self.accepted_histogram[accepted] += 1

    def retract(self, accepted: int, surplus: int) -> None:
        """Take `surplus` tokens back from a last forward that had accepted `accepted` drafts."""
        if surplus and self.num_forwards:
            self.num_accepted_tokens -= surplus
            self.accepted_histogram[accepted] -= 1
            self.accepted_histogram[accepted - surplus] += 1

    @property
    def mean_acceptance_length(self) -> float:
        """Tokens emitted per forward, the bonus token included (as vLLM counts it)."""
        return 1 + self.num_accepted_tokens / self.num_forwards if self.num_forwards else 0.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How a request began, in seconds.

    queue: from its arrival until a step first computed some of it. prefill: from there to the
    first token; a preemption on the way is part of it.
    """

    queue: float
    prefill: float


@dataclass(slots=True)
class RequestOutput:
    """New tokens of one request after one step.

    token_ids: the new tokens. text: their text, filled in by the client: what is certain so
    far, so it can lag behind the tokens by an incomplete character or a possible stop string.
    logprobs: one entry a token where asked for. sources: where traced, by token the bits of who
    drafted it (`speculation.sources`), entry i at depth i + 1; 0 is the model's own choice, which
    nobody had drafted. prompt_logprobs: with the first output, where asked for, an entry for every
    token of the prompt but its first.
    stop_reason: the stop string or stop token id that ended it, None for the end-of-sequence token.
    error: why it was aborted, where computing it went wrong; there is nothing else then.
    num_cached_tokens: prompt tokens whose KV came from the prefix cache.
    timing: with the first output alone.
    """

    request_id: str
    token_ids: list[int]
    text: str = ""
    logprobs: list[TokenLogprob] | None = None
    sources: list[int] | None = None
    prompt_logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    error: str | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    speculation: SpecReceipt = field(default_factory=SpecReceipt)
    timing: Timing | None = None
