"""bita adapters import, bita adapters export: checkpoints of the paper's official code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from server.commands.adapters.common import Commands, add_command, load, parameters

if TYPE_CHECKING:
    from adapters.format import BaseShape


def add_import(commands: Commands) -> None:
    """Add `bita adapters import`."""
    parser = add_command(
        commands,
        "import",
        run_import,
        "Make an adapter of a checkpoint of the paper's official code (linfeng93/BiTA).",
        """example:
  bita adapters import ./checkpoint-5000 --model ./Llama-2-7b-chat-hf --out ./my-adapter

SRC is the folder the official training saved (safetensors, or .bin; whole or in shards), or a
single file of it. Pickled code in it is never run. Models whose query heads share K/V heads
(Llama 2 70B, Falcon 40B) can only be imported where the prompts agree within each group, which
trained ones do not; `bita tune` makes an adapter for such a Llama anew.

An imported adapter has no measured hit rates; measure them next:
  bita adapters verify ./my-adapter --model ./Llama-2-7b-chat-hf --update
""",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="the checkpoint, file or folder")
    parser.add_argument(
        "--model", required=True, type=Path, metavar="DIR", help="folder of the frozen base model"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder to make for the adapter"
    )


def add_export(commands: Commands) -> None:
    """Add `bita adapters export`."""
    parser = add_command(
        commands,
        "export",
        run_export,
        "Write an adapter as the official code's tensors, in one safetensors file.",
        """example:
  bita adapters export ./my-adapter --out official.safetensors

The file holds the prefix and the masks by their names in the official model, for
  model.load_state_dict(safetensors.torch.load_file("official.safetensors"), strict=False)
of a model whose configuration has the prompt_num and mask_num that this command prints,
mask_diff true and prefix_projection false. Our successor head has no place in the official code.
""",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the adapter's folder")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE.safetensors", help="file to make"
    )
    parser.add_argument(
        "--drop-successor",
        action="store_true",
        help="leave the successor head out: drafts get worse, answers stay the same",
    )


def run_import(options: argparse.Namespace) -> int:
    """Write the adapter and its card."""
    from adapters.card import NAME, card
    from adapters.official import import_checkpoint
    from adapters.whole import whole

    base, heads = base_of(options.model)
    with whole(options.out) as part:
        adapter = import_checkpoint(options.source, base, heads)
        adapter.save(part)
        (part / NAME).write_text(card(adapter.config))
    config = adapter.config
    print(
        f"{options.out}: {config.num_prompts} prompts, {config.num_masks} masks, "
        f"{parameters(config):,} parameters"
    )
    for note in config.tuning["notes"]:
        print(f"note: {note}")
    print("Its hit rates are assumed, not measured. Next, check and measure it:")
    print(f"  bita adapters verify {options.out} --model {options.model} --update")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Write the tensors."""
    from safetensors.torch import save_file

    from adapters.errors import AdapterError
    from adapters.official import export_tensors
    from adapters.whole import whole

    if options.out.suffix != ".safetensors":
        raise AdapterError(f"--out {options.out}: the file's name must end in .safetensors")
    adapter = load(options.folder)
    if adapter.successor is not None and not options.drop_successor:
        raise AdapterError(
            f"{options.folder} has a successor head, which the official code has no place for; "
            "--drop-successor exports the rest"
        )
    config = adapter.config
    facts = {"prompt_num": str(config.num_prompts), "mask_num": str(config.num_masks)}
    with whole(options.out) as part:
        save_file(export_tensors(adapter), part, {"format": "pt", **facts})
    said = ", ".join(f"{name} {value}" for name, value in facts.items())
    print(f"{options.out}: {said}, mask_diff true, prefix_projection false")
    return 0


def base_of(model: Path) -> tuple[BaseShape, int]:
    """What an adapter must agree with, and the number of query heads, without the weights.

    Raises UnsupportedModel where the folder holds no model of a known kind.
    """
    from dataclasses import asdict

    from transformers import AutoConfig

    from adapters.format import BaseShape
    from engine.errors import UnsupportedModel
    from engine.model.facts import model_facts

    if not (model / "config.json").is_file():
        raise UnsupportedModel(f"{model} has no config.json: not a Hugging Face model folder")
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True).get_text_config()
        facts = asdict(model_facts(config))
        heads: int = config.num_attention_heads
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error}".strip().splitlines()[0]
        raise UnsupportedModel(f"{model / 'config.json'} cannot be used: {reason}") from error
    del facts["max_positions"]
    return BaseShape(model_type=config.model_type, **facts), heads
