"""The model's trunk through torch.compile: fewer, larger kernels, for a slower start.

Attention stays ours, an operator the compiler does not look into (`attention.interface`). One
graph serves every number of rows; a single row, which the compiler treats as a case of its own,
gets a second one.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import EngineError
from engine.model.runner import ModelRunner, Route, trunk_of
from engine.model.trial import trial_forward

ROWS = (1, 2)
"""The sizes that make the two graphs."""


def compile_trunk(model: Any, route: Route) -> None:
    """Have the trunk's forward compiled when it is first called.

    Raises EngineError on the mask route, whose cache object the compiler cannot follow.
    """
    if route is Route.MASK:
        raise EngineError(
            f"a {model.config.model_type} model cannot be compiled: its attention is its own"
        )
    trunk = trunk_of(model)
    trunk.forward = torch.compile(trunk.forward, dynamic=True)


def warm_up(runner: ModelRunner) -> None:
    """Compile now, so that no request waits for it. Raises EngineError where that fails."""
    forward = trial_forward(runner)
    try:
        for rows in ROWS:
            forward([rows], 1)
    except Exception as error:  # a compiler fails in many ways; all mean the same to the user
        reason = str(error).strip().partition("\n")[0]
        raise EngineError(f"the model cannot be compiled here: {reason}") from error
