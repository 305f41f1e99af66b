"""bita serve: the server, from the command line to a drained exit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from server.commands.base import option, repeatable
from server.commands.model_options import (
    add_answer_arguments,
    add_engine_arguments,
    add_model_arguments,
    engine_config_of,
)
from server.commands.quantities import byte_count, seconds

if TYPE_CHECKING:
    from server.config import ServerConfig

NAME = "serve"
HELP = "Serve a model over OpenAI's HTTP API."
EXAMPLE = """examples:
  bita serve
      the embedded model, at http://127.0.0.1:8000/v1
  bita serve --model ./Qwen2.5-0.5B-Instruct --adapter fast=./my-adapter --api-key secret
      a model of your own, with a BiTA adapter tuned for it, for holders of the key

then, in another terminal:
  bita chat
"""

HOT_SLOTS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bita serve`."""
    add_model_arguments(parser)
    where = parser.add_argument_group("where, and for whom")
    option(where, "--host", default="127.0.0.1", help="Address to listen on (%(default)s).")
    option(where, "--port", default=8000, type=int, help="Port (default: %(default)s).")
    repeatable(
        where, "--api-key", metavar="KEY", help="A key clients must send (default: none needed)."
    )
    option(
        where,
        "--admin-key",
        default=None,
        metavar="KEY",
        help="The key that may load and unload adapters while the server runs (default: nobody).",
    )
    option(
        where,
        "--adapter-dir",
        default=None,
        metavar="DIR",
        help="Folder that its holder may load adapters from (default: none).",
    )
    option(
        where,
        "--max-adapters",
        default=0,
        type=int,
        metavar="N",
        help="Adapters loaded at once (default: 0, those given, and with --admin-key at least "
        f"{HOT_SLOTS}).",
    )
    option(
        where,
        "--log-prompts",
        default=None,
        metavar="FILE",
        help="Append every prompt to a file that `bita tune --prompts` reads (default: none is "
        "kept).",
    )
    option(
        where,
        "--otlp-traces-endpoint",
        default=None,
        metavar="URL",
        help="Where OpenTelemetry spans go, such as http://collector:4318/v1/traces (default: what "
        "OTEL_EXPORTER_OTLP_ENDPOINT says, else nowhere).",
    )
    add_answer_arguments(parser)
    add_engine_arguments(parser)
    _add_limits(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits")
    option(
        limits,
        "--max-concurrent-requests",
        default=256,
        type=int,
        metavar="N",
        help="Requests served at once; further ones are told to retry (default: %(default)s).",
    )
    option(
        limits,
        "--max-body-size",
        default="4MiB",
        type=byte_count,
        metavar="SIZE",
        help="Largest request body (default: %(default)s).",
    )
    option(
        limits,
        "--shutdown-timeout",
        default="30",
        type=seconds,
        metavar="S",
        help="Time running requests get to end in when the server is stopped "
        "(default: %(default)s).",
    )
    option(
        limits,
        "--watchdog-timeout",
        default="120",
        type=seconds,
        metavar="S",
        help="Time without a sign of life after which the engine is replaced; every step of the "
        "model must be over within it (default: %(default)s).",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C, then let running requests end."""
    from engine.errors import EngineError
    from server import logging, process
    from server.loopback import is_loopback

    try:
        config = config_of(options)
        logging.configure()
        if not config.api_keys and not is_loopback(config.host):
            print(f"bita: {config.host} is open to all: consider --api-key", file=sys.stderr)
        process.run(config)
    except EngineError as error:
        print(f"bita: {error}", file=sys.stderr)
        return 1
    return 0


def config_of(options: argparse.Namespace) -> ServerConfig:
    """What the options say; raises EngineError for what they may not."""
    from server.config import ServerConfig

    admin_key, adapter_dir = _admin(options)
    slots = max(HOT_SLOTS, len(options.adapter)) if admin_key is not None else 0
    engine = engine_config_of(options, max_adapters=options.max_adapters or slots)
    return ServerConfig(
        engine=engine,
        host=options.host,
        port=options.port,
        api_keys=tuple(options.api_key),
        admin_key=admin_key,
        adapter_dir=adapter_dir,
        prompt_log=Path(options.log_prompts) if options.log_prompts else None,
        otlp_traces_endpoint=options.otlp_traces_endpoint or None,
        served_model_names=tuple(options.served_model_name),
        chat_template=Path(options.chat_template) if options.chat_template else None,
        tool_call_parser=options.tool_call_parser,
        reasoning_parser=options.reasoning_parser,
        max_body_bytes=options.max_body_size,
        max_concurrent_requests=options.max_concurrent_requests,
        shutdown_timeout=options.shutdown_timeout,
        watchdog_timeout=options.watchdog_timeout,
    )


def _admin(options: argparse.Namespace) -> tuple[str | None, Path | None]:
    """The admin key and the folder its holder may load adapters from."""
    from engine.errors import EngineError

    # A variable that is set but empty is not set.
    admin_key, folder = options.admin_key or None, options.adapter_dir or None
    if admin_key in options.api_key:
        raise EngineError("--admin-key must differ from every --api-key")
    if folder is None:
        return admin_key, None
    if admin_key is None:
        raise EngineError("--adapter-dir has no effect without --admin-key")
    if not Path(folder).is_dir():
        raise EngineError(f"--adapter-dir: there is no folder {folder}")
    return admin_key, Path(folder)
