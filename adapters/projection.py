"""From final hidden states to logits, as the model itself would: its head, its scale, its cap.

Drafts are ranked by probabilities and trained by cross-entropy, so that a model that divides or
caps its logits wants the same done to its mask rows. Tuning and inference both ask here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class LogitRule:
    """What a model does to the output of its head; None where it does not."""

    divisor: float | None
    factor: float | None
    cap: float | None

    @classmethod
    def of(cls, config: Any) -> LogitRule:
        """From the text configuration, where families say it.

        Granite divides by `logits_scaling`, Cohere multiplies by `logit_scale`, Gemma caps at
        `final_logit_softcapping`.
        """
        names = "logits_scaling", "logit_scale", "final_logit_softcapping"
        return cls(*(getattr(config, name, None) for name in names))

    def __call__(self, output: Tensor) -> Tensor:
        """Logits float32 `[..., vocab]` of what the head gave, of the same shape."""
        logits = output.float()
        if self.divisor:
            logits = logits / self.divisor
        if self.factor:
            logits = logits * self.factor
        if self.cap:
            logits = self.cap * (logits / self.cap).tanh()
        return logits
