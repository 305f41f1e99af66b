"""From a configuration to a running engine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch
from transformers.utils import logging

from adapters.errors import AdapterError
from adapters.format import BaseShape, BitaAdapter
from engine.config import EngineConfig, ModelInfo
from engine.engine import Engine
from engine.errors import EngineError
from engine.model.loader import LoadedModel, fingerprint, load_model


def load_engine(config: EngineConfig) -> Engine:
    """Load model and adapters.

    Raises UnsupportedModel, or EngineError where an adapter does not fit the model.
    """
    logging.disable_progress_bar()
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    loaded = load_model(config.model, config.device, config.dtype)
    shape = base_shape(loaded)
    try:
        adapters = {n: BitaAdapter.load(folder, shape) for n, folder in config.adapters.items()}
        return Engine(config, loaded, adapters)
    except (AdapterError, ValueError) as error:
        raise EngineError(str(error)) from error


def base_shape(loaded: LoadedModel) -> BaseShape:
    """What an adapter must agree with."""
    facts = loaded.facts
    return BaseShape(
        model_type=loaded.model.config.model_type,
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
    return ModelInfo(
        model=config.model,
        architecture=loaded.architecture,
        max_model_len=engine.max_model_len,
        vocab_size=loaded.facts.vocab_size,
        eos_token_ids=loaded.eos_token_ids,
        adapters=tuple(config.adapters),
        dtype=dtype,
        device=str(loaded.device),
        route=loaded.route.value,
        num_blocks=engine.runner.storage.num_blocks,
        block_size=config.block_size,
        fingerprint=fingerprint(config.model, dtype, package_version()),
    )


def package_version() -> str:
    """The installed version of this engine."""
    try:
        return version("bita-serve")
    except PackageNotFoundError:
        return "source"
