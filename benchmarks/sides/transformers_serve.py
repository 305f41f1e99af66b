"""`transformers serve`: one `generate` after the other, or its continuous batching."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.in_process import NO_TOKEN
from benchmarks.sessions import Call
from benchmarks.sides.server import Side


def transformers_serve(model: Path, dtype: str, batching: bool = False) -> Side:
    """batching: with `--continuous-batching`."""
    folder = str(model.resolve())

    def command(port: int) -> list[str]:
        start = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder]
        options = ["--port", str(port), "--host", "127.0.0.1", "--dtype", dtype, "--device", "cpu"]
        return [*start, *options, *(["--continuous-batching"] if batching else [])]

    def body(call: Call, temperature: float) -> dict[str, Any]:
        # Its fields know neither greedy sampling nor ignore_eos; its own field says both.
        config = {
            **json.loads((model / "generation_config.json").read_text()),
            "max_new_tokens": call.max_tokens,
            "do_sample": temperature > 0,
        }
        if temperature > 0:
            config |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
        if call.ignore_eos:
            config["eos_token_id"] = NO_TOKEN
        return {
            "model": folder,
            "prompt": call.prompt,
            "max_tokens": call.max_tokens,
            "generation_config": json.dumps(config),
            "stream": True,
        }

    name = "transformers-cb" if batching else "transformers"
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return Side(name, command, body, offline)
