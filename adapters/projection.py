"""From final hidden states to logits, as the model itself would: its head, its scale, its cap.

Drafts are ranked by probabilities and trained by cross-entropy, so that a model that divides or
caps its logits wants the same done to its mask rows. Tuning and inference both call `project`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def project(head: nn.Module, config: Any, hidden: Tensor) -> Tensor:
    """Logits float32 `[..., vocab]` of final hidden states `[..., hidden]`.

    config: the text configuration, where families say what they do to logits: Granite divides by
    `logits_scaling`, Cohere multiplies by `logit_scale`, Gemma caps at `final_logit_softcapping`.
    """
    logits: Tensor = head(hidden).float()
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * (logits / cap).tanh()
    return logits
