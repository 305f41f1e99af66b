"""The model and the adapter of a benchmark that needs no server."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapters.format import BitaAdapter
from engine.load import base_shape
from engine.model.loaded import LoadedModel
from engine.model.loader import load_model
from models import DEFAULT_ADAPTER, DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name them, and say where and in which numbers the model runs."""
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="model folder")
    parser.add_argument("--adapter", type=Path, default=DEFAULT_ADAPTER, help="BiTA adapter")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--no-native", action="store_true", help="without our CPU kernels")


def load(options: argparse.Namespace, compiled: bool = False) -> tuple[LoadedModel, BitaAdapter]:
    """What the options name. compiled: as in `load_model`.

    Raises EngineError or AdapterError where they do not fit.
    """
    native = not options.no_native
    loaded = load_model(options.model, options.device, options.dtype, compiled, native=native)
    return loaded, BitaAdapter.load(options.adapter, base_shape(loaded))
