"""Small tokenizers of the kinds that models use, built in memory."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import normalizers as norms

EOS = "</s>"
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "naïve café — 你好, 世界! 🙂👩‍👩‍👧 don't",
] * 4


@cache
def byte_level() -> Tokenizer:
    """GPT-2's kind: every byte is a token, characters may be spread over several."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@cache
def byte_fallback() -> Tokenizer:
    """Llama 2's kind: words begin with a space mark, unknown characters are byte tokens."""
    words = ["▁", "▁the", "▁cat", "▁sat", "s", "t", "a", "c", ".", "ca"]
    tokens = [EOS, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [("c", "a")]
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = norms.Sequence([norms.Prepend("▁"), norms.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([EOS])
    return tokenizer


@cache
def metaspace() -> Tokenizer:
    """T5's kind: Metaspace, with words for tokens."""
    words = ["<unk>", "▁", "▁the", "▁cat", "▁sat", "s", "▁on", "."]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def ids(tokenizer: Tokenizer, *tokens: str) -> list[int]:
    """The ids of tokens given by name."""
    found = [tokenizer.token_to_id(token) for token in tokens]
    assert None not in found, tokens
    return found
