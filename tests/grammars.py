"""A tokenizer for tiny models, whose tokens are also whole pieces of JSON."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.model.selftest import VOCAB

END = 0
PIECES = ['{"', '":', '",', '"}', "true", "false", "null", "name", '{"name":', "12", "[]", "ab"]


def ascii_tokenizer() -> Tokenizer:
    """`VOCAB` tokens: the end, all printable characters, the pieces, and unused ones."""
    texts = ["<|end|>", *map(chr, range(32, 127)), "\n", *PIECES]
    texts += [f"<|unused{n}|>" for n in range(VOCAB - len(texts))]
    coded = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocab = {}
    for number, text in enumerate(texts):
        special = text.startswith("<|")
        vocab[text if special else coded.pre_tokenize_str(text)[0][0]] = number
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = coded, decoders.ByteLevel()
    tokenizer.add_special_tokens([text for text in texts if text.startswith("<|")])
    return tokenizer


def model_folder(folder: Path) -> Path:
    """A folder with that tokenizer in it."""
    ascii_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
