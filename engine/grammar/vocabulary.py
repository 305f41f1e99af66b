"""A model's tokens as llguidance reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llguidance import LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer


def read_vocabulary(file: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> LLTokenizer:
    """The tokens of a tokenizer.json. Raises ValueError or OSError where it cannot be read.

    vocab_size: of the logits, which may be more. The library takes every added token that looks
    like a tag for a special one, which is no text; but a tokenizer says itself which ones are, and
    the others (<tool_call>, <think>) are read as the text that they are in the answer.
    """
    source = file.read_text("utf-8")
    library, tokenizer = LLTokenizer(source, vocab_size), Tokenizer.from_str(source)
    added = tokenizer.get_added_tokens_decoder()
    as_text = {
        number: token.content.encode() for number, token in added.items() if not token.special
    }
    if all(not library.is_special_token(number) for number in as_text):
        return LLTokenizer(source, vocab_size, list(eos_token_ids))
    return LLTokenizer(
        TokenizerWrapper(_Vocabulary(tokenizer, library, as_text, vocab_size, eos_token_ids)),
        vocab_size,
        list(eos_token_ids),
    )


class _Vocabulary:
    """What `TokenizerWrapper` asks for."""

    bos_token_id = None

    def __init__(
        self,
        tokenizer: Tokenizer,
        library: LLTokenizer,
        as_text: dict[int, bytes],
        vocab_size: int,
        eos_token_ids: Sequence[int],
    ) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = eos_token_ids[0]
        self.special_token_ids = [
            number
            for number in range(vocab_size)
            if library.is_special_token(number) and number not in as_text
        ]
        self.tokens = [
            as_text.get(number) or library.decode_bytes([number]) for number in range(vocab_size)
        ]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids
