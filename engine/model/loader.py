"""Load a frozen transformers model in the form the engine runs it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.attention.interface import NAME
from engine.errors import EngineError, UnsupportedModel
from engine.model.allocator import keep_freed_memory
from engine.model.facts import model_facts
from engine.model.linears import lay_out, pack
from engine.model.loaded import LoadedModel
from engine.model.native import is_native
from engine.model.runner import Route
from engine.model.selftest import pick_route, serves_natively

log = logging.getLogger("bita.engine")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    folder: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    compiled: bool = False,
    trained: bool = False,
    native: bool = True,
) -> LoadedModel:
    """Load the model of a folder; nothing is ever fetched and no remote code runs.

    compiled, trained: whether it will be compiled, whether gradients will go through it, which not
    every packed linear layer stands. native: whether our own CPU kernels may be used.
    Raises UnsupportedModel where it cannot be loaded whole or served exactly, EngineError where the
    device does not exist.
    """
    folder = Path(folder)
    where = pick_device(device)
    if where.index is not None:
        torch.cuda.set_device(where)  # our kernels run on the current one
    precision = pick_dtype(dtype, where)
    config = read_config(folder)
    text_config = config.get_text_config()
    facts = model_facts(text_config)
    route = pick_route(text_config)
    model = read_weights(folder, precision, NAME if route is Route.INTERFACE else "eager")
    if getattr(model, "hf_quantizer", None) is None:  # a quantiser puts weights where they belong
        model.to(where)
    if where.type == "cpu":
        lay_out(model) if trained else pack(model, native=native, compiled=compiled)
        keep_freed_memory()
    loaded = LoadedModel(
        model=model,
        facts=facts,
        route=route,
        architecture=(config.architectures or [type(model).__name__])[0],
        eos_token_ids=end_tokens(folder, text_config),
        dtype=precision,
        device=where,
    )
    if not is_native(loaded):
        return loaded
    if not serves_natively(text_config):
        log.warning("%s: our CPU kernels give other tokens and are not used", folder)
        return loaded
    return replace(loaded, native=True)


def read_weights(folder: Path, dtype: torch.dtype, attention: str, **more: Any) -> Any:
    """transformers' model of a folder, frozen. more: what `from_pretrained` is told besides.

    Raises UnsupportedModel where a file cannot be read or a weight is missing.
    """
    with _loading(folder):
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation=attention,
            output_loading_info=True,
            **more,
        )
    if missing := sorted(info["missing_keys"]):  # transformers would go on with random numbers
        raise UnsupportedModel(f"{folder} lacks {len(missing)} weights, the first {missing[0]}")
    return model.requires_grad_(False).eval()


def read_config(folder: str | Path) -> Any:
    """The transformers configuration in a folder; raises UnsupportedModel where it has none."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UnsupportedModel(f"{folder} has no config.json: not a Hugging Face model folder")
    with _loading(folder):
        return AutoConfig.from_pretrained(folder, local_files_only=True)


def pick_device(name: str) -> torch.device:
    """The named device, or a GPU where there is one. Raises EngineError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise EngineError(f"device must be auto, cpu, cuda or cuda:N, not {name}")
    device = torch.device(name)
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise EngineError(f"device {name} is not there: torch sees {gpus} GPUs")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The named dtype, or the one the device multiplies fastest.

    A CPU without bf16 instructions emulates them: float32 is 1.5 to 3 times faster there.
    """
    if name != "auto":
        if name not in DTYPES:
            raise UnsupportedModel(f"dtype must be auto or one of {', '.join(DTYPES)}, not {name}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16
    cpu = torch.cpu
    native = cpu._is_amx_tile_supported() or cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


@contextlib.contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Turns whatever is raised over the folder's files into UnsupportedModel, in one line."""
    try:
        yield
    except Exception as error:  # four libraries, each with errors of its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UnsupportedModel(f"{folder} cannot be loaded: {reason}") from error


def fingerprint(folder: str | Path, *facts: str) -> str:
    """Hash of the weight files and whatever else decides the output."""
    digest = hashlib.sha256("\0".join(facts).encode())
    for file in sorted(Path(folder).glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return "fp_" + digest.hexdigest()[:16]


def end_tokens(folder: Path, config: Any) -> tuple[int, ...]:
    """End-of-sequence ids: of the generation configuration, else of the model's."""
    eos = getattr(config, "eos_token_id", None)
    generation = folder / "generation_config.json"
    if generation.is_file():
        eos = json.loads(generation.read_text()).get("eos_token_id", eos)
    if eos is None:
        return ()
    return tuple(eos) if isinstance(eos, list) else (eos,)
