"""The successor bias: what usually follows the bonus token, added to draft logits.

A mask group is computed before anyone knows the bonus token, but the tree is built when it is
known. Two low-rank tables add, for mask m and bonus token t, the scores `inner[m, t] @ outer.T`
to the mask's logits. They only rank drafts: what is emitted is verified as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Successor:
    """inner: float32 `[masks, vocab, rank]`. outer: float32 `[vocab, rank]`."""

    inner: Tensor
    outer: Tensor

    def bias(self, bonus: Tensor) -> Tensor:
        """Scores `[..., masks, vocab]` behind bonus tokens, int64 `[...]`."""
        return self.inner[:, bonus].movedim(0, -2) @ self.outer.T
