"""llama.cpp's own server, with continuous batching and a prompt cache, as it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.sessions import Call
from benchmarks.sides.server import Side

KV_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def llama_cpp(
    binary: Path, gguf: Path, dtype: str, threads: int, streams: int, context: int
) -> Side:
    """gguf: the model as `benchmarks.gguf_export` writes it, in `dtype`. context: of a stream."""

    def command(port: int) -> list[str]:
        kv = KV_TYPES[dtype]
        return [
            *(str(binary), "--model", str(gguf), "--port", str(port), "--host", "127.0.0.1"),
            *("--threads", str(threads), "--threads-batch", str(threads)),
            *("--parallel", str(streams), "--ctx-size", str(streams * context)),
            *("--cache-type-k", kv, "--cache-type-v", kv, "--no-webui"),
        ]

    def body(call: Call, temperature: float) -> dict[str, Any]:
        # Tokens, not text: llama.cpp has no pre-tokenizer of bita-concierge's (numbers by twos).
        return {
            "prompt": call.token_ids,
            "max_tokens": call.max_tokens,
            "ignore_eos": call.ignore_eos,
            "temperature": temperature,
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    return Side("llama.cpp", command, body)
