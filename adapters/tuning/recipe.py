"""How an adapter is tuned: one dataclass, the paper's values where it gives them."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.errors import AdapterError


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """Every knob of a run (BiTA sec. 3; design note sec. 1 and 2).

    num_prompts: prompt K/V pairs a layer. num_masks: mask embeddings, the depth of the drafts.
    steps: optimiser steps. conversations: of one step. groups: mask groups a conversation.
    learning_rate: peak of AdamW; cosine down to zero. clip: largest gradient norm.
    prompt_std: standard deviation of the prompts' initial values; masks start at the mean token
        embedding plus noise of the embeddings' own spread times `mask_noise` (ESP, arXiv
        2603.17942, shows that untrained mean embeddings draft already).
    successor_rank: of the head that follows a path's tokens; 0 trains none, as in the paper.
    successor_rate: peak learning rate of that head.
    dropout: share of prompt values dropped in training.
    ranks: candidates a depth that the hit profile counts.
    seed: of initial values, batches and anchors.
    """

    num_prompts: int = 16
    num_masks: int = 6
    steps: int = 600
    conversations: int = 12
    groups: int = 24
    learning_rate: float = 3e-2
    clip: float = 1.0
    prompt_std: float = 0.02
    mask_noise: float = 0.1
    successor_rank: int = 128
    successor_rate: float = 4e-3
    dropout: float = 0.1
    ranks: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_prompts", "num_masks", "steps", "conversations", "groups", "ranks"):
            if getattr(self, name) < 1:
                raise AdapterError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.successor_rank < 0:
            raise AdapterError(f"successor_rank must be at least 0, not {self.successor_rank}")
        if not 0 < self.learning_rate <= 1:
            raise AdapterError(
                f"learning_rate must be above 0 and at most 1, not {self.learning_rate}"
            )
