"""An engine that says what it was told to say."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.config import EngineConfig, ModelInfo
from engine.errors import AdapterNameTaken, EngineOverloaded, UnknownAdapter
from engine.request import FinishReason, Request, RequestOutput, SpecReceipt, Timing, TokenLogprob
from engine.speculation.sources import BITA, NGRAM, PREDICTION
from engine.stats import EngineStats
from server.config import ServerConfig

MODEL, ADAPTER = "stub-model", "quick"
VOCAB_SIZE = 258

TEMPLATE = (
    "{#- calls are written <tool_call>{...}</tool_call> -#}"
    "{%- for message in messages -%}"
    "<{{ message.role }}>{{ message.content or '' }}"
    "{%- for call in message.tool_calls or [] -%}{{ call.function | tojson }}{%- endfor -%}"
    "{%- endfor -%}"
    "{%- if tools -%}<tools>{{ tools | tojson }}{%- endif -%}"
    "{%- if add_generation_prompt -%}<assistant>{%- endif -%}"
)


def byte_tokenizer() -> Tokenizer:
    """One token a byte, and two special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: n for n, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|begin|>"])
    return tokenizer


@dataclass
class StubClient:
    """Emits `pieces`, one an output, for every request.

    error: raised after `pieces`, or before if there are none. hang: wait forever after them.
    requests: those it was given; arrivals: the same, to wait for.
    refusal: raised when an adapter is to be loaded. room: choices it takes at once.
    timing: told with every first output.
    closed: ids of those whose generator was closed; ended: set when the first was.
    """

    pieces: Sequence[str] = ("Hello", " world")
    finish: FinishReason = FinishReason.STOP
    stop_reason: str | int | None = None
    error: Exception | None = None
    refusal: Exception | None = None
    room: int = 1024
    hang: bool = False
    is_ready: bool = True
    heartbeat_age: float = 0.0
    num_restarts: int = 0
    timing: Timing | None = None
    stats: EngineStats = field(default_factory=EngineStats)
    tokenizer: Tokenizer = field(default_factory=byte_tokenizer)
    requests: list[Request] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    arrivals: asyncio.Queue[Request] = field(default_factory=asyncio.Queue)
    ended: threading.Event = field(default_factory=threading.Event)
    started: bool = False
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    info: ModelInfo = field(
        default_factory=lambda: ModelInfo(
            model=MODEL,
            architecture="StubForCausalLM",
            max_model_len=256,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=(256,),
            adapters={ADAPTER: f"adapters/{ADAPTER}"},
            dtype="float32",
            device="cpu",
            route="interface",
            num_blocks=16,
            block_size=16,
            fingerprint="fp_stub",
        )
    )

    async def start(self) -> None:
        self.started = True

    async def stop(self) -> None:
        self.started = False

    def check_room(self, count: int) -> None:
        if count > self.room:
            raise EngineOverloaded("9 requests are waiting already")

    async def load_adapter(self, name: str, folder: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        if name in self.info.adapters:
            raise AdapterNameTaken(f"an adapter named {name!r} is loaded already", "name")
        self._adapters({**self.info.adapters, name: folder})

    async def unload_adapter(self, name: str) -> None:
        if name not in self.info.adapters:
            raise UnknownAdapter(f"no adapter named {name!r} is loaded", "name")
        self._adapters({n: f for n, f in self.info.adapters.items() if n != name})

    def _adapters(self, adapters: dict[str, str]) -> None:
        self.info = replace(self.info, adapters=adapters)

    async def generate(self, request: Request) -> AsyncIterator[RequestOutput]:
        self.requests.append(request)
        self.arrivals.put_nowait(request)
        try:
            async for output in self._outputs(request):
                yield output
        finally:
            self.closed.append(request.request_id)
            self.ended.set()

    async def _outputs(self, request: Request) -> AsyncIterator[RequestOutput]:
        receipt, generated = SpecReceipt(), 0
        for number, piece in enumerate(self.pieces, start=1):
            await asyncio.sleep(0)
            token_ids = self.tokenizer.encode(piece, add_special_tokens=False).ids
            generated += len(token_ids)
            receipt.add(drafted=8, accepted=max(len(token_ids) - 1, 0))
            last = number == len(self.pieces) and self.error is None and not self.hang
            yield RequestOutput(
                request_id=request.request_id,
                token_ids=token_ids,
                text=piece,
                logprobs=_logprobs(token_ids, request.sampling.logprobs),
                sources=_sources(token_ids) if request.trace else None,
                prompt_logprobs=_logprobs(
                    request.token_ids[1:], request.sampling.prompt_logprobs if number == 1 else None
                ),
                finish_reason=self.finish if last else None,
                stop_reason=self.stop_reason if last else None,
                num_prompt_tokens=len(request.token_ids),
                num_cached_tokens=16,
                num_generated_tokens=generated,
                speculation=receipt,
                timing=self.timing if number == 1 else None,
            )
        if self.error is not None:
            raise self.error
        if self.hang:
            await asyncio.Event().wait()


def _logprobs(token_ids: Sequence[int], wanted: int | None) -> list[TokenLogprob] | None:
    if wanted is None:
        return None
    top = [(65, -0.5), (66, -float("inf"))][:wanted]
    return [TokenLogprob(token_id, -0.25, top, 1) for token_id in token_ids]


def _sources(token_ids: Sequence[int]) -> list[int]:
    """A step's last token is the model's own; the sources before it take turns."""
    turns = (BITA, NGRAM, PREDICTION, BITA | NGRAM)
    return [*(turns[place % 4] for place in range(len(token_ids) - 1)), 0][: len(token_ids)]


def model_folder(folder: Path) -> Path:
    """A model's folder, as far as the server reads it."""
    model = folder / MODEL
    model.mkdir()
    (model / "chat_template.jinja").write_text(TEMPLATE)
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    return model


def server_config(model: Path, **changes: object) -> ServerConfig:
    """A configuration that serves the model in this folder."""
    return ServerConfig(EngineConfig(str(model)), **changes)  # type: ignore[arg-type]
