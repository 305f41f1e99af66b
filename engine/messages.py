"""What crosses between the server's process and the engine's: length-prefixed msgpack.

Every message is a dataclass of plain data; never pickle, so that a peer can only say what is
listed here. The first message of either side carries `VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import msgpack

from engine import errors
from engine.config import EngineConfig, ModelInfo
from engine.request import (
    FinishReason,
    Grammar,
    Request,
    RequestOutput,
    SamplingParams,
    SpecReceipt,
    Timing,
    TokenLogprob,
)
from engine.stats import AdapterStats, EngineStats, SpecDecodingStats

VERSION = 7
HEADER_BYTES = 4
MAX_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Start:
    """Load this and serve. Raises nothing here: the answer is Ready or Failed.

    skip_bad_adapters: serve without adapters that cannot be loaded, as after a restart.
    """

    config: EngineConfig
    skip_bad_adapters: bool = False
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Add:
    """Serve a request."""

    request: Request


@dataclass(frozen=True, slots=True)
class Abort:
    """Drop a request."""

    request_id: str


@dataclass(frozen=True, slots=True)
class LoadAdapter:
    """Load the adapter in a folder under a name; answered by AdaptersChanged or Refused.

    request_id: of the answer.
    """

    request_id: str
    name: str
    folder: str


@dataclass(frozen=True, slots=True)
class UnloadAdapter:
    """Let no further request use an adapter; answered as LoadAdapter."""

    request_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is loaded."""

    info: ModelInfo
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not load; `kind` is the error's class name."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A request, or a change of the adapters, was not taken."""

    request_id: str
    kind: str
    message: str
    field: str | None


@dataclass(frozen=True, slots=True)
class AdaptersChanged:
    """What was asked is done. adapters: name -> folder of all that are loaded now."""

    request_id: str
    adapters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Outputs:
    """New tokens of a step, and the heartbeat: sent without outputs while idle.

    stats: now and then, not with every step.
    """

    outputs: list[RequestOutput]
    stats: EngineStats | None


AdapterChange = LoadAdapter | UnloadAdapter
Message = Start | Add | Abort | AdapterChange | Ready | Failed | Refused | AdaptersChanged | Outputs
KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """A message as bytes, its length in front."""
    body = msgpack.packb([type(message).__name__, _fields(message)], default=_fields)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def decode(body: bytes) -> Message:
    """A message from its bytes, the length taken off. Raises EngineDead on anything else."""
    try:
        kind, data = msgpack.unpackb(body, strict_map_key=False)
        if kind in KINDS:
            return KINDS[kind](**_BUILDERS.get(kind, dict)(data))
    except Exception as error:  # whatever it trips over, the other process is broken
        raise errors.EngineDead(f"malformed message from the other process: {error!r}") from error
    raise errors.EngineDead(f"unknown message {kind!r} from the other process")


def length(header: bytes) -> int:
    """Bytes that follow a header. Raises EngineDead where no message is that long."""
    size = int.from_bytes(header, "big")
    if size > MAX_BYTES:
        raise errors.EngineDead(f"a message of {size} bytes: the other process is broken")
    return size


def raised(kind: str, message: str, field: str | None = None) -> errors.EngineError:
    """The error another process told of."""
    error = getattr(errors, kind, errors.EngineError)
    if issubclass(error, errors.RequestError):
        return error(message, field)
    return error(message)


def _fields(value: Any) -> Any:
    # `dataclasses.fields` would look through them again for every output of a step.
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _request(data: dict[str, Any]) -> Request:
    sampling = data["sampling"]
    for name in ("stop", "stop_token_ids"):
        sampling[name] = tuple(sampling[name])
    grammar = data["grammar"] and Grammar(**data["grammar"])
    return Request(**{**data, "sampling": SamplingParams(**sampling), "grammar": grammar})


def _output(data: dict[str, Any]) -> RequestOutput:
    for name in ("logprobs", "prompt_logprobs"):
        if data[name] is not None:
            data[name] = [
                TokenLogprob(**{**p, "top": [(t, lp) for t, lp in p["top"]]}) for p in data[name]
            ]
    if data["finish_reason"] is not None:
        data["finish_reason"] = FinishReason(data["finish_reason"])
    if data["timing"] is not None:
        data["timing"] = Timing(**data["timing"])
    return RequestOutput(**{**data, "speculation": SpecReceipt(**data["speculation"])})


def _stats(data: dict[str, Any]) -> EngineStats:
    data["speculation"] = SpecDecodingStats(**data["speculation"])
    data["adapters"] = {n: AdapterStats(**stats) for n, stats in data["adapters"].items()}
    return EngineStats(**data)


def _config(data: dict[str, Any]) -> EngineConfig:
    return EngineConfig(**{**data, "drafters": tuple(data["drafters"])})


def _info(data: dict[str, Any]) -> ModelInfo:
    return ModelInfo(**{**data, "eos_token_ids": tuple(data["eos_token_ids"])})


_BUILDERS = {
    "Start": lambda d: {**d, "config": _config(d["config"])},
    "Add": lambda d: {"request": _request(d["request"])},
    "Ready": lambda d: {**d, "info": _info(d["info"])},
    "Outputs": lambda d: {
        "outputs": [_output(o) for o in d["outputs"]],
        "stats": d["stats"] and _stats(d["stats"]),
    },
}
