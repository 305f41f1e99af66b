"""A model of a given shape with random weights: for times, what it says does not matter.

    python -m benchmarks.random_model --out build/random-288m
    python -m benchmarks.serving --model build/random-288m --workload code --sides plain llama.cpp

It is saved with the default model's tokenizer, so that servers can serve it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from models import DEFAULT_MODEL


def random_model(folder: Path, layers: int, hidden: int, vocabulary: int) -> int:
    """Save a Llama of this shape, in bf16; how many parameters it has."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        vocab_size=vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Options for the shape of 300 M parameters, or another."""
    parser.add_argument("--layers", type=int, default=24, help="(default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=1024, help="(default: %(default)s)")
    parser.add_argument("--vocabulary", type=int, default=32000, help="(default: %(default)s)")


def main() -> None:
    """Save one, and say how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    add_shape(parser)
    # Of other tokens its tokenizer would know no text.
    parser.set_defaults(vocabulary=4096)
    args = parser.parse_args()
    size = random_model(args.out, args.layers, args.hidden, args.vocabulary)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEFAULT_MODEL / name, args.out)
    print(f"{args.out}: {size / 1e6:.0f} M parameters")


if __name__ == "__main__":
    main()
