"""From a configuration to a running engine."""

from __future__ import annotations

import logging
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from adapters.errors import AdapterError
from adapters.format import BaseShape, BitaAdapter
from engine.adapter_registry import PreparedAdapter
from engine.config import EngineConfig, ModelInfo
from engine.engine import Engine
from engine.errors import AdapterRefused, EngineError
from engine.kernels import usable
from engine.model.build import Build, build_runner
from engine.model.facts import model_facts
from engine.model.loaded import LoadedModel
from engine.model.loader import fingerprint, load_model

log = logging.getLogger("bita.engine")


def load_engine(config: EngineConfig, skip_bad_adapters: bool = False) -> Engine:
    """Load model and adapters.

    skip_bad_adapters: serve without the adapters that cannot be loaded; the log names them.
    Raises UnsupportedModel, or EngineError where an adapter does not fit the model.
    """
    transformers_logging.disable_progress_bar()
    loaded, build = _load_model(config)
    adapters: dict[str, BitaAdapter] = {}
    for name, folder in config.adapters.items():
        try:
            adapters[name] = _read(loaded, folder)
        except AdapterRefused as error:
            if not skip_bad_adapters:
                raise EngineError(str(error)) from error
            log.error("the adapter %s is left out: %s", name, error)
    try:
        return Engine(config, loaded, adapters, build)
    except ValueError as error:
        raise EngineError(str(error)) from error


def _load_model(config: EngineConfig) -> tuple[LoadedModel, Build]:
    """The model, and how a runner of it is made."""
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    if config.tensor_parallel_size > 1:
        # Only here, since most engines have one rank and need none of it.
        from engine.parallel.leader import load_sharded

        return load_sharded(config)
    loaded = load_model(
        config.model, config.device, config.dtype, compiled=config.compile, native=config.native
    )
    if config.attention == "triton" and usable(loaded.device):
        # Only here, since Triton is not installed everywhere.
        from engine.model.graphs import GraphedRunner

        return loaded, partial(build_runner, kind=GraphedRunner)
    return loaded, build_runner


def prepare_adapter(engine: Engine, folder: str) -> PreparedAdapter:
    """Read an adapter for a running engine; another thread may do it beside steps.

    Raises AdapterRefused where it is ill-formed, of another base, or larger than a slot.
    """
    return engine.prepare(_read(engine.loaded, folder))


def _read(loaded: LoadedModel, folder: str) -> BitaAdapter:
    try:
        return BitaAdapter.load(folder, base_shape(loaded))
    except (AdapterError, OSError) as error:
        raise AdapterRefused(str(error), "path") from error


def base_shape(loaded: LoadedModel) -> BaseShape:
    """What an adapter must agree with."""
    return shape_of(loaded.model.config)


def shape_of(config: Any) -> BaseShape:
    """The same, of a model that is not loaded, by its transformers configuration."""
    facts = model_facts(config.get_text_config())
    return BaseShape(
        model_type=config.model_type,
        hidden_size=facts.hidden_size,
        num_layers=facts.num_layers,
        num_kv_heads=facts.num_kv_heads,
        head_dim=facts.head_dim,
        vocab_size=facts.vocab_size,
    )


def model_info(engine: Engine) -> ModelInfo:
    """What the engine says of itself when it is ready."""
    loaded, config = engine.loaded, engine.config
    dtype = str(loaded.dtype).removeprefix("torch.")
    # Sums of several ranks are rounded otherwise, those of our kernels too.
    ranks = [f"{loaded.ranks} ranks"] if loaded.ranks > 1 else []
    kernels = ["native"] if loaded.native else []
    steps = "deterministic" if config.deterministic else ""
    return ModelInfo(
        model=config.model,
        architecture=loaded.architecture,
        max_model_len=engine.max_model_len,
        vocab_size=loaded.facts.vocab_size,
        eos_token_ids=loaded.eos_token_ids,
        adapters=engine.adapters.folders,
        dtype=dtype,
        device=str(loaded.device),
        route=loaded.route.value,
        num_blocks=engine.runner.storage.num_blocks,
        block_size=config.block_size,
        fingerprint=fingerprint(config.model, dtype, steps, package_version(), *ranks, *kernels),
    )


def package_version() -> str:
    """The installed version of this engine."""
    try:
        return version("bita-serve")
    except PackageNotFoundError:
        return "source"
