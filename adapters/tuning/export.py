"""What a tuning run leaves behind: the adapter, and a card that says how good it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from adapters.format import AdapterConfig, BaseShape, BitaAdapter
from adapters.successor import Successor
from adapters.tuning.evaluate import Evaluation
from adapters.tuning.recipe import TuningRecipe


def export(
    folder: Path,
    base: BaseShape,
    recipe: TuningRecipe,
    evaluation: Evaluation,
    prompt_kv: Tensor,
    mask_embeddings: Tensor,
    successor: Successor | None = None,
) -> BitaAdapter:
    """Write the adapter and its card to `folder`."""
    config = AdapterConfig(
        **asdict(base),
        num_prompts=recipe.num_prompts,
        num_masks=recipe.num_masks,
        profile=evaluation.profile,
        successor_rank=0 if successor is None else successor.out.shape[0],
        tuning={
            "recipe": asdict(recipe),
            "acceptance_length_comb": evaluation.acceptance_length,
        },
    )
    if successor is not None:
        successor = Successor(**{n: t.detach().cpu() for n, t in successor.tensors().items()})
    adapter = BitaAdapter(
        config, prompt_kv.detach().cpu(), mask_embeddings.detach().cpu(), successor
    )
    adapter.save(folder)
    (folder / "README.md").write_text(card(config, evaluation))
    return adapter


def card(config: AdapterConfig, evaluation: Evaluation) -> str:
    """The model card: base, sizes, and hit rates on held-out answers."""
    ranks = range(1, 6)
    rows = [
        f"| {depth} | " + " | ".join(f"{rate:.3f}" for rate in rates[:5]) + f" | {sum(rates):.3f} |"
        for depth, rates in enumerate(evaluation.profile.rates, 1)
    ]
    header = "| depth | " + " | ".join(f"rank {rank}" for rank in ranks) + " | any |"
    return "\n".join(
        [
            "# BiTA adapter",
            "",
            f"For a frozen `{config.model_type}` of {config.num_layers} layers, hidden size "
            f"{config.hidden_size}, vocabulary {config.vocab_size}. {config.num_prompts} prompts, "
            f"{config.num_masks} masks (arXiv 2401.12522). It changes how soon the model answers, "
            "never what it answers.",
            "",
            "Hit rates on held-out greedy answers, each depth where the ones before were hit:",
            "",
            header,
            "|" + "---|" * (len(ranks) + 2),
            *rows,
            "",
            f"Acceptance length of the paper's comb: {evaluation.acceptance_length:.2f} tokens a "
            "forward.",
            "",
        ]
    )
