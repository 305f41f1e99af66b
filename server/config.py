"""How the server is set up: one frozen dataclass, a unit in every field's line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.config import EngineConfig

MIB = 1024**2
AUTO = "auto"
ADAPTER_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything the server is told.

    engine: what the engine is told; its `model` is also where the chat template is read from.
    host, port: where to listen; port 0 takes a free one.
    api_keys: keys that may use the API; none leaves it open.
    admin_key: the key that may load and unload adapters; None lets nobody.
    adapter_dir: folder that adapters may be loaded from; None loads none.
    prompt_log: file that prompts are appended to, for tuning; None keeps none.
    otlp_traces_endpoint: URL that spans are sent to; None leaves it to OpenTelemetry's variables.
    served_model_names: names the model answers to; none takes its folder's name.
    chat_template: file of a chat template to be used in place of the model's own.
    tool_call_parser, reasoning_parser: names of the forms the model writes calls and reasoning in;
        AUTO takes them from its template, any other name looks for none.
    max_body_bytes: bytes of a request's body.
    max_concurrent_requests: requests served at once; further ones get 429.
    shutdown_timeout: seconds that running requests get to end in when the server stops.
    keep_alive_seconds: seconds that a stream may be silent before a comment is sent in it.
    watchdog_timeout: seconds without a sign of life after which the engine counts as hung.
    """

    engine: EngineConfig
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    admin_key: str | None = None
    adapter_dir: Path | None = None
    prompt_log: Path | None = None
    otlp_traces_endpoint: str | None = None
    served_model_names: tuple[str, ...] = ()
    chat_template: Path | None = None
    tool_call_parser: str = AUTO
    reasoning_parser: str = AUTO
    max_body_bytes: int = 4 * MIB
    max_concurrent_requests: int = 256
    shutdown_timeout: float = 30.0
    keep_alive_seconds: float = 15.0
    watchdog_timeout: float = 120.0

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the base model, the one it is reported under first."""
        return self.served_model_names or (Path(self.engine.model).resolve().name,)
