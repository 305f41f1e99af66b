"""Our own server: with the adapter, with the client's prediction too, and without either."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sessions import Call
from benchmarks.sides.server import Side


def bita(model: Path, adapter: Path, *options: str) -> Side:
    """The planner with all that drafts, but no prediction. options: of `bita serve`."""
    return Side("bita", _command(model, "--adapter", f"bita={adapter}", *options), _body)


def prediction(model: Path, adapter: Path, *options: str) -> Side:
    """The same, told what the answer will be where the workload knows."""
    command = _command(model, "--adapter", f"bita={adapter}", *options)
    return Side("prediction", command, _predicted)


def plain(model: Path, *options: str) -> Side:
    """No adapter, no drafts."""
    return Side("plain", _command(model, *options), _undrafted)


def _command(model: Path, *options: str) -> Callable[[int], list[str]]:
    run = "import sys; from server.cli import main; sys.exit(main())"
    serve = [sys.executable, "-c", run, "serve", "--model", str(model), "--served-model-name", "m"]
    return lambda port: [*serve, *options, "--port", str(port)]


def _body(call: Call, temperature: float) -> dict[str, Any]:
    return {
        "model": "m",
        "prompt": call.prompt,
        "max_tokens": call.max_tokens,
        "ignore_eos": call.ignore_eos,
        "temperature": temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _undrafted(call: Call, temperature: float) -> dict[str, Any]:
    return {**_body(call, temperature), "speculation": {"enabled": False}}


def _predicted(call: Call, temperature: float) -> dict[str, Any]:
    body = _body(call, temperature)
    if call.prediction is not None and call.messages is not None:
        # As in OpenAI's API, only chat completions have it; the prompt is the same.
        del body["prompt"]
        body["messages"] = call.messages
        body["prediction"] = {"type": "content", "content": call.prediction}
    return body
