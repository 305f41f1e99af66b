"""Options that say which model runs and how: of every command that answers requests itself."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from server import reasoning
from server.commands.base import option, repeatable
from server.commands.quantities import byte_count
from server.tool_calls import families

if TYPE_CHECKING:
    from engine.config import EngineConfig


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
    _add_drafting(engine)
    _add_room(engine)
    _add_machine(engine)


def _add_drafting(engine: argparse._ArgumentGroup) -> None:
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


def _add_room(engine: argparse._ArgumentGroup) -> None:
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


def _add_machine(engine: argparse._ArgumentGroup) -> None:
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
        "--no-native",
        action="store_true",
        help="Compute on a CPU by PyTorch's operations alone. Otherwise our kernels are compiled "
        "at the first start, in seconds, where there is a C++ compiler.",
    )
    engine.add_argument(
        "--deterministic",
        action="store_true",
        help="Give the same answer to the same request in 16 bit too, whatever is drafted and "
        "whoever else is served. On a CPU our kernels do so anyway; elsewhere steps are slower.",
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
        native=not options.no_native,
        attention=options.attention,
        tensor_parallel_size=options.tensor_parallel_size,
        deterministic=options.deterministic,
    )


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
