"""How an engine is set up: one frozen dataclass, a unit in every field's line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.errors import EngineError
from engine.speculation.sources import NAMES

FIXED_ROWS = 64
"""Of a deterministic step: what a GPU computes in about the time of one."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything the engine process is told.

    model: folder of a Hugging Face model.
    adapters: name -> folder of a BiTA adapter; the first is the default of requests.
    max_adapters: slots for adapters that are loaded and unloaded while the engine runs, those in
        `adapters` included; 0 makes room for just those.
    device: "auto", "cpu", "cuda" or "cuda:N".
    dtype: "auto" (the fastest the device multiplies well), "float32", "bfloat16", "float16".
    tree: draft tree: "auto" (fitted to the adapter's measured hit rates and the device),
        "comb" (the paper's), "chain", or "fitted:ROWS" (best tree of at most ROWS rows).
    drafters: sources of drafts that requests use unless they say otherwise, of "bita", "ngram",
        "prediction" and "grammar"; a fixed tree is the adapter's alone.
    block_size: tokens a KV block. kv_cache_memory: bytes of KV cache; 0 picks by the device.
    max_num_seqs: sequences in one forward. max_num_batched_tokens: rows in one forward.
    max_model_len: tokens of prompt and completion; 0 takes the model's own.
    max_waiting: requests that may wait before new ones are refused.
    prefix_caching: share KV blocks of equal prompt beginnings between requests.
    num_threads: CPU threads of the forward; 0 leaves torch's choice.
    compile: have torch compile the model at the start.
    native: let our own kernels compute on a CPU with a C++ compiler, where they know the model.
    attention: "sdpa" (torch's own) or "triton" (our kernels, which no GPU has run yet).
    tensor_parallel_size: ranks that share the model, each a process with a device of its own;
        memory is per rank, and threads are divided among them.
    deterministic: compute each row by itself, so that a request's tokens do not depend, even in 16
        bit, on drafts and on what else is served;
        `FIXED_ROWS` rows a step where our CPU kernels do not compute it.
    """

    model: str
    adapters: dict[str, str] = field(default_factory=dict)
    max_adapters: int = 0
    device: str = "auto"
    dtype: str = "auto"
    tree: str = "auto"
    drafters: tuple[str, ...] = NAMES
    block_size: int = 16
    kv_cache_memory: int = 0
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    max_model_len: int = 0
    max_waiting: int = 1024
    prefix_caching: bool = True
    num_threads: int = 0
    compile: bool = False
    native: bool = True
    attention: str = "sdpa"
    tensor_parallel_size: int = 1
    deterministic: bool = False

    def __post_init__(self) -> None:
        counts = ("block_size", "max_num_seqs", "max_num_batched_tokens", "max_waiting")
        for name in (*counts, "tensor_parallel_size"):
            if getattr(self, name) < 1:
                raise EngineError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.tensor_parallel_size > 1:
            if self.compile:
                raise EngineError("a model that several ranks share cannot be compiled")
            if self.deterministic:  # a sum over ranks may depend on its place in the batch
                raise EngineError("several ranks cannot be deterministic")
        for name in self.drafters:
            if name not in NAMES:
                raise EngineError(f"drafters are {', '.join(NAMES)}, not {name!r}")
        if self.max_adapters < 0:
            raise EngineError(f"max_adapters must be at least 0, not {self.max_adapters}")
        if 0 < self.max_adapters < len(self.adapters):
            raise EngineError(
                f"max_adapters is {self.max_adapters}, but {len(self.adapters)} adapters are given"
            )
        if self.deterministic and self.attention != "sdpa":
            raise EngineError("deterministic steps have an attention of their own: leave it sdpa")

    def with_fixed_rows(self) -> EngineConfig:
        """The same, with no more rows and sequences in a step than deterministic ones have."""
        return replace(
            self,
            max_num_batched_tokens=FIXED_ROWS,
            max_num_seqs=min(self.max_num_seqs, FIXED_ROWS),
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded engine says of itself.

    adapters: name -> folder of each adapter loaded, the default first.
    fingerprint: hash of weights, dtype and engine version; equal fingerprints give equal greedy
        output. route: how attention reaches the model, "interface" or "mask".
    """

    model: str
    architecture: str
    max_model_len: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    adapters: dict[str, str]
    dtype: str
    device: str
    route: str
    num_blocks: int
    block_size: int
    fingerprint: str
