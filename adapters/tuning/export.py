"""What a tuning run leaves behind: the adapter, and a card that says how good it is."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from adapters.card import NAME as CARD
from adapters.card import card
from adapters.format import CONFIG, WEIGHTS, AdapterConfig, BaseShape, BitaAdapter
from adapters.successor import Successor
from adapters.tuning.evaluate import Evaluation
from adapters.tuning.files import writing
from adapters.tuning.recipe import TuningRecipe


def export(
    folder: Path,
    base: BaseShape,
    recipe: TuningRecipe,
    evaluation: Evaluation,
    prompt_kv: Tensor,
    mask_embeddings: Tensor,
    successor: Successor | None = None,
    draft_tokens: Tensor | None = None,
) -> BitaAdapter:
    """Write the adapter and its card to `folder`, all of it or, where that fails, nothing.

    Raises AdapterError where the folder cannot be written.
    """
    config = AdapterConfig(
        **asdict(base),
        num_prompts=recipe.num_prompts,
        num_masks=recipe.num_masks,
        profile=evaluation.profile,
        successor_rank=0 if successor is None else successor.out.shape[0],
        num_draft_tokens=0 if draft_tokens is None else len(draft_tokens),
        tuning={
            "recipe": asdict(recipe),
            "acceptance_length_comb": evaluation.acceptance_length,
        },
    )
    if successor is not None:
        successor = Successor(**{n: t.detach().cpu() for n, t in successor.tensors().items()})
    adapter = BitaAdapter(
        config, prompt_kv.detach().cpu(), mask_embeddings.detach().cpu(), successor, draft_tokens
    )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as part:
            adapter.save(part)
            (Path(part) / CARD).write_text(card(config))
            for name in (WEIGHTS, CONFIG, CARD):
                os.replace(Path(part) / name, folder / name)
    return adapter
