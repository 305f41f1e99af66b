"""The successor head: what follows a token, given what a mask row saw.

A mask group is computed before anyone knows the bonus token, but the tree is drafted when it is
known, and a child when its parent is. A small recurrent cell walks down the path with the tokens
on it and corrects each mask's final hidden state before the frozen output projection (a drafter
of this kind is ReDrafter's, arXiv 2403.09919, there with the last token's state alone). It only
ranks drafts: what is emitted is verified as ever.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Successor:
    """A cell of rank r, float32.

    hidden, token: `[hidden, r]`, what it reads. state: `[r, r]`. bias: `[masks, r]`.
    out: `[r, hidden]`, what it adds.
    """

    hidden: Tensor
    token: Tensor
    state: Tensor
    bias: Tensor
    out: Tensor

    @staticmethod
    def shapes(hidden: int, masks: int, rank: int) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, by field."""
        return {
            "hidden": (hidden, rank),
            "token": (hidden, rank),
            "state": (rank, rank),
            "bias": (masks, rank),
            "out": (rank, hidden),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, by field."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def to(self, device: torch.device) -> Successor:
        """The same head on `device`."""
        return Successor(**{name: t.to(device) for name, t in self.tensors().items()})

    def read_mask(self, masks: Tensor, hidden: Tensor) -> Tensor:
        """What the cell takes from mask rows, whatever tokens they are led along.

        masks: int64 `[...]`, which of its group's masks each row is. hidden: `[..., hidden]`, their
        final hidden states, any dtype. -> float32 `[..., r]`.
        """
        return _unit(hidden) @ self.hidden + self.bias[masks]

    def read_token(self, embeddings: Tensor) -> Tensor:
        """What the cell takes from tokens, wherever they stand.

        embeddings: theirs, `[..., hidden]`, any dtype. -> float32 `[..., r]`.
        """
        return _unit(embeddings) @ self.token

    def advance(
        self, hidden: Tensor, mask: Tensor, token: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One token further down the path.

        hidden: `[..., hidden]`, final hidden state of the mask that drafts there. mask, token: what
        `read_mask` gave for it, and `read_token` for the token before the drafted one.
        state: float32 `[..., r]` that the parent's call returned, None at the root.
        Returns the corrected hidden state and the new state.
        """
        inner = mask + token
        if state is not None:
            inner = inner + state @ self.state
        state = functional.silu(inner)
        return hidden + (state @ self.out).to(hidden.dtype), state


def _unit(x: Tensor) -> Tensor:
    """Root mean square one, float32: families scale embeddings and norms very differently."""
    return functional.rms_norm(x.float(), x.shape[-1:], eps=1e-6)
