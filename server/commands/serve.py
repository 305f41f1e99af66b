"""bita serve: the server, from the command line to a drained exit."""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from server import reasoning
from server.commands.base import option, repeatable
from server.tool_calls import families

if TYPE_CHECKING:
    from engine.config import EngineConfig
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
_UNITS = {"": 1, "B": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3, "TIB": 1024**4}


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


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model, which adapters and under which names."""
    what = parser.add_argument_group("what to serve")
    option(
        what,
        "--model",
        default=None,
        metavar="DIR",
        help="Folder of a Hugging Face model (default: the small model that comes with BiTA).",
    )
    repeatable(
        what,
        "--adapter",
        metavar="NAME=DIR",
        help="A BiTA adapter, which makes the model faster and changes nothing it says; "
        "requests choose one by NAME, the first is the default.",
    )
    repeatable(
        what,
        "--served-model-name",
        metavar="NAME",
        help="A name clients may call the model by (default: its folder's name).",
    )


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how chats are written, and what is looked for in answers."""
    answers = parser.add_argument_group("how chats are written and answers read")
    option(
        answers,
        "--chat-template",
        default=None,
        metavar="FILE",
        help="Jinja template that turns messages into a prompt (default: the model's own).",
    )
    option(
        answers,
        "--tool-call-parser",
        default="auto",
        choices=("auto", *families.FAMILIES, "none"),
        help="Form in which the model writes tool calls (default: auto, by its chat template; none "
        "leaves them in the text).",
    )
    option(
        answers,
        "--reasoning-parser",
        default="auto",
        choices=("auto", *reasoning.FORMATS, "none"),
        help="Form in which the model thinks before it answers (default: auto, by its chat "
        "template; none leaves it in the text).",
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the engine computes."""
    engine = parser.add_argument_group("how the model runs")
    option(engine, "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto).")
    option(
        engine,
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="Number format of the model (default: auto, the fastest here).",
    )
    option(
        engine,
        "--tree",
        default="auto",
        metavar="SHAPE",
        help="Shape of the draft: auto, comb, chain or fitted:ROWS (default: auto).",
    )
    option(
        engine,
        "--drafters",
        default="bita,ngram,prediction,grammar",
        type=drafter_names,
        metavar="NAMES",
        help="Who drafts unless a request says otherwise, comma-separated: the adapter (bita), the "
        "request's own past (ngram), its 'prediction', what its schema or grammar leaves no choice "
        "about (grammar); default: %(default)s.",
    )
    option(
        engine,
        "--max-model-len",
        default=0,
        type=int,
        metavar="TOKENS",
        help="Longest prompt and answer together (default: 0, the model's own).",
    )
    option(
        engine,
        "--max-num-seqs",
        default=64,
        type=int,
        metavar="N",
        help="Most requests computed together (default: %(default)s).",
    )
    option(
        engine,
        "--max-num-batched-tokens",
        default=2048,
        type=int,
        metavar="N",
        help="Most tokens in one step (default: %(default)s).",
    )
    option(
        engine,
        "--kv-cache-memory",
        default="0",
        type=byte_count,
        metavar="SIZE",
        help="Memory of the KV cache, such as 512MiB or 4GiB (default: 0, what suits the device).",
    )
    engine.add_argument(
        "--no-prefix-caching",
        action="store_true",
        help="Compute equal beginnings of prompts anew for every request.",
    )
    option(
        engine,
        "--threads",
        default=0,
        type=int,
        metavar="N",
        help="CPU threads of the model (default: 0, PyTorch's choice).",
    )
    option(
        engine,
        "--tensor-parallel-size",
        default=1,
        type=int,
        metavar="N",
        help="Processes that share the model, each with a GPU of its own (default: %(default)s).",
    )
    option(
        engine,
        "--attention",
        default="sdpa",
        choices=("sdpa", "triton"),
        help="PyTorch's attention, or our kernels for GPUs, which have run in Triton's interpreter "
        "alone so far (default: sdpa).",
    )
    engine.add_argument(
        "--compile",
        action="store_true",
        help="Compile the model at the start: about a minute, then faster steps. On a CPU it takes "
        "a C++ compiler.",
    )
    engine.add_argument(
        "--deterministic",
        action="store_true",
        help="Give the same answer to the same request in 16 bit too, whatever is drafted and "
        "whoever else is served; steps are slower.",
    )


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


def engine_config_of(options: argparse.Namespace, max_adapters: int = 0) -> EngineConfig:
    """What the options of model and engine say; raises EngineError for what they may not."""
    from engine.config import EngineConfig

    model, adapters = _model_and_adapters(options)
    return EngineConfig(
        model=str(model),
        adapters=adapters,
        max_adapters=max_adapters,
        device=options.device,
        dtype=options.dtype,
        tree=options.tree,
        drafters=options.drafters,
        kv_cache_memory=options.kv_cache_memory,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        max_model_len=options.max_model_len,
        prefix_caching=not options.no_prefix_caching,
        num_threads=options.threads,
        compile=options.compile,
        attention=options.attention,
        tensor_parallel_size=options.tensor_parallel_size,
        deterministic=options.deterministic,
    )


def byte_count(text: str) -> int:
    """Bytes of a size such as 512MiB, 4GiB or 1048576."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 512MiB or 4GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def seconds(text: str) -> float:
    """A time that is no less than 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def drafter_names(text: str) -> tuple[str, ...]:
    """Sources of drafts, such as "bita,ngram"; none is plain decoding."""
    from engine.speculation.sources import NAMES

    names = tuple(name for name in text.split(",") if name)
    if unknown := set(names) - set(NAMES):
        raise argparse.ArgumentTypeError(
            f"there is no drafter {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}"
        )
    return names


def _model_and_adapters(options: argparse.Namespace) -> tuple[Path, dict[str, str]]:
    from engine.errors import EngineError
    from server.config import ADAPTER_NAME

    adapters: dict[str, str] = {}
    for given in options.adapter:
        name, separator, folder = given.partition("=")
        if not separator or not re.fullmatch(ADAPTER_NAME, name) or not folder:
            raise EngineError(f"--adapter takes NAME=DIR, not {given!r}")
        adapters[name] = folder
    if options.model is not None:
        model = Path(options.model)
        if not model.is_dir():
            raise EngineError(f"--model: there is no folder {model}")
        return model, adapters
    from models import DEFAULT_ADAPTER, DEFAULT_MODEL

    return DEFAULT_MODEL, adapters or {DEFAULT_ADAPTER.name: str(DEFAULT_ADAPTER)}


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
