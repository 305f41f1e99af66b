"""The cost of a step on this machine: measured once a model, device and dtype, then kept on disk.

A curve holds for a model's shape, not for its weights. A machine that was busy while it was
measured leaves a curve that misleads the planner: `bita tree --measure` takes it anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, fields
from pathlib import Path

import torch

from adapters.format import MIN_DRAFT_TOKENS
from engine.config import EngineConfig
from engine.kept import kept_folder
from engine.kernels.cpu.library import kernel_digest
from engine.model.loaded import LoadedModel
from engine.model.runner import ModelRunner
from engine.model.trial import trial_forward, trial_ranking
from engine.processor import processor_name
from engine.speculation.cost import StepCostModel, measure

CONTEXTS = 256, 1024
"""Committed tokens of the sequence that is timed, and more of them, where there is room."""
METHOD = 2
"""Raised where `measure` times otherwise: what is kept of before is measured anew."""

log = logging.getLogger("bita.engine")


def step_cost(
    runner: ModelRunner, loaded: LoadedModel, config: EngineConfig, max_positions: int
) -> StepCostModel:
    """The curve kept on disk, or a new one of all sizes a step may have, kept if that can be.

    max_positions: tokens a sequence may have, the rows that are timed included.
    """
    near, far = (min(context, max_positions // 2) for context in CONTEXTS)
    max_rows = min(config.max_num_batched_tokens, max_positions - far)
    facts = {
        "method": METHOD,
        "model": json.loads(loaded.model.config.to_json_string(use_diff=False)),
        # Packed or quantised ones take other times.
        "layers": sorted({type(module).__qualname__ for module in loaded.model.modules()}),
        "dtype": str(loaded.dtype),
        "device": device_name(loaded.device),
        "torch": torch.__version__,
        "route": loaded.route.value,
        "compile": config.compile,
        "kernels": kernel_digest() if loaded.native else "",
        "attention": config.attention,
        "runner": type(runner).__name__,
        "ranks": loaded.ranks,
        "deterministic": config.deterministic,
        "max_rows": max_rows,
        "max_sequences": config.max_num_seqs,
        "contexts": (near, far),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    file = curve_folder() / f"{key}.json"
    curve = _read(file)
    if curve is None:
        few = torch.arange(min(MIN_DRAFT_TOKENS, loaded.facts.vocab_size))
        levels = trial_ranking(runner), trial_ranking(runner, few)
        forward = trial_forward(runner)
        curve = measure(forward, *levels, max_rows, config.max_num_seqs, (near, far))
        _write(file, curve)
    return curve


def curve_folder() -> Path:
    """Where curves are kept."""
    return kept_folder("step-cost")


def forget() -> None:
    """Have every curve measured anew when it is next needed."""
    for file in curve_folder().glob("*.json"):
        file.unlink(missing_ok=True)


def device_name(device: torch.device) -> str:
    """The processor by name, and on a CPU how much of it torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def _read(file: Path) -> StepCostModel | None:
    try:
        curve = json.loads(file.read_text())
        facts = {field.name: curve[field.name] for field in fields(StepCostModel)}
        facts |= {name: tuple(facts[name]) for name in ("rows", "seconds")}
        return StepCostModel(**facts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the cost curve in %s cannot be read and is measured anew: %s", file, error)
        return None


def _write(file: Path, curve: StepCostModel) -> None:
    """Whole or not at all; a folder that cannot be written costs a measurement next time."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(asdict(curve)))
        fresh.replace(file)
    except OSError as error:
        log.info("the cost curve is not kept: %s", error)
