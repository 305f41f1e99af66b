"""Training that has gone wrong is stopped before it is written down."""

from __future__ import annotations

import math

from adapters.errors import AdapterError


def check_finite(step: int, loss: float, norm: float) -> None:
    """Raises AdapterError where the loss or the gradient's norm is NaN or infinite.

    step: the one that was about to be taken, from 0. Nothing has been updated yet.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise AdapterError(
            f"step {step + 1}: the loss is {loss:.4g} and the gradient {norm:.4g}, so training "
            "stops with the last checkpoint; a smaller learning rate may help, or a float32 model"
        )
