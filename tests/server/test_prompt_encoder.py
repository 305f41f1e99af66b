"""Prompts in parts: the same token ids as at once, whatever was encoded before."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from models import DEFAULT_MODEL
from server.prompt_encoder import MAX_CHARS, PromptEncoder


def embedded() -> Tokenizer:
    return Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json"))


def tokenizer(
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None = None,
    **special: bool,
) -> Tokenizer:
    """Of bytes, with two special tokens, one of which begins the other."""
    vocab = {char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab["▁"] = len(vocab)
    made = Tokenizer(models.BPE(vocab, []))
    made.pre_tokenizer, made.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    made.add_special_tokens([AddedToken(t, normalized=False, **special) for t in ("<|a", "<|a|>")])
    return made


TOKENIZERS = {
    "embedded": embedded(),
    "byte level": tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()),
}
# What is encoded so depends on where it stands.
WHOLE = {
    "a space first": tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "a mark first": tokenizer(pre_tokenizers.Metaspace()),
    "a text first": tokenizer(
        pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Prepend("x")
    ),
    "space taken": tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False), rstrip=True),
}
PARTS = [
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|a", "<|a|>", "<tool_call>", "<|", "|>"),
    *("user\n", "Hello", " ", "\n", "é", "e\u0301", "東", "12", "'s", "<"),
]


@pytest.mark.parametrize("name", [*TOKENIZERS, *WHOLE])
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(PARTS), max_size=9).map("".join), max_size=4))
def test_token_ids_are_those_of_the_whole_text(name: str, texts: list[str]) -> None:
    whole = {**TOKENIZERS, **WHOLE}[name]
    encoder = PromptEncoder(whole)
    for text in [*texts, *texts]:
        assert encoder.encode(text) == whole.encode(text, add_special_tokens=False).ids


def test_what_was_seen_under_the_same_salt_is_not_encoded_again() -> None:
    encoder = PromptEncoder(embedded())
    turns = "".join(f"<|im_start|>user\nNumber {n}<|im_end|>\n" for n in range(3))
    ids = encoder.encode(turns)
    with mock.patch.object(encoder, "_encode", wraps=encoder._encode) as encode:
        assert encoder.encode(turns) == ids
        encode.assert_not_called()
        encoder.encode(turns + "<|im_start|>user\nAnd you?<|im_end|>")
        encode.assert_called_once_with(["user\nAnd you?"])
        assert encoder.encode(turns, "another's") == ids
        assert encode.call_count == 2


def test_it_forgets_what_was_not_asked_for_longest() -> None:
    encoder = PromptEncoder(TOKENIZERS["byte level"])
    size = MAX_CHARS // 16
    for n in range(20):
        encoder.encode(f"{n:03d}" + "x" * (size - 3))
    assert [part[:3] for _, part in encoder._known] == [f"{n:03d}" for n in range(4, 20)]
    assert encoder._chars == MAX_CHARS
    encoder.encode("y" * (size + 1))
    assert encoder._chars == MAX_CHARS
