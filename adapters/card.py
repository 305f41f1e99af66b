"""The model card that lies beside every adapter, as README.md."""

from __future__ import annotations

from adapters.format import AdapterConfig

NAME = "README.md"
RANKS = 5


def card(config: AdapterConfig) -> str:
    """Base, sizes, where the adapter comes from, and how often its drafts are right."""
    lines = [
        "# BiTA adapter",
        "",
        f"For a frozen `{config.model_type}` of {config.num_layers} layers, hidden size "
        f"{config.hidden_size}, vocabulary {config.vocab_size}. {config.num_prompts} prompts, "
        f"{config.num_masks} masks (arXiv 2401.12522). It changes how soon the model answers, "
        "never what it answers.",
        "",
    ]
    if config.num_draft_tokens:
        lines += [f"Drafts are of the {config.num_draft_tokens} tokens the model uses most.", ""]
    if origin := config.tuning.get("origin"):
        lines += [f"Imported from an {origin}.", ""]
    for note in config.tuning.get("notes", []):
        lines += [f"{note}", ""]
    return "\n".join([*lines, *_rates(config), *_acceptance(config)])


def acceptance_length(config: AdapterConfig) -> float | None:
    """Tokens a forward of the paper's comb on held-out answers; None where nobody measured."""
    length = config.tuning.get("acceptance_length_comb")
    return float(length) if isinstance(length, (int, float)) else None


def _rates(config: AdapterConfig) -> list[str]:
    if config.profile.measured:
        title = "Hit rates on held-out greedy answers, each depth where the ones before were hit:"
    else:
        title = (
            "Its hit rates were never measured. Assumed are those published for Vicuna-7B by PPD "
            "(arXiv 2405.18628); `bita adapters verify ... --update` puts measured ones in their "
            "place:"
        )
    ranks = min(RANKS, max(len(rates) for rates in config.profile.rates))
    rows = []
    for depth, rates in enumerate(config.profile.rates, 1):
        shown = [f"{rate:.3f}" for rate in rates[:ranks]] + [""] * (ranks - len(rates))
        rows.append(f"| {depth} | " + " | ".join(shown) + f" | {sum(rates):.3f} |")
    header = "| depth | " + " | ".join(f"rank {rank}" for rank in range(1, ranks + 1)) + " | any |"
    table = [title, "", header, "|" + "---|" * (ranks + 2), *rows, ""]
    if config.profile.measured and not all(config.profile.counts):
        table += ["Depths that no draft reached keep rates that were assumed before.", ""]
    return table


def _acceptance(config: AdapterConfig) -> list[str]:
    length = acceptance_length(config)
    if length is None:
        return []
    return [f"Acceptance length of the paper's comb: {length:.2f} tokens a forward.", ""]
