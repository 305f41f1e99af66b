"""Log-probabilities of tokens, as chat and text completions word them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from engine.request import TokenLogprob

LOWEST = -9999.0
"""Stands for minus infinity, which JSON has no word for."""


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's byte-level alphabet: the character that stands for each byte, and back."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    alphabet = {chr(byte): byte for byte in shown}
    return alphabet | {chr(256 + number): byte for number, byte in enumerate(hidden)}


_BYTES = _byte_alphabet()


class TokenTexts:
    """What single tokens read as. A token may be part of a character: then its bytes tell."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, list[int] | None]] = {}

    def text(self, token_id: int) -> tuple[str, list[int] | None]:
        """Text and UTF-8 bytes of a token; no bytes where its vocabulary does not tell them."""
        if token_id not in self._known:
            self._known[token_id] = self._read(token_id)
        return self._known[token_id]

    def _read(self, token_id: int) -> tuple[str, list[int] | None]:
        symbol: str = self._tokenizer.id_to_token(token_id) or ""
        text: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
        if symbol.startswith("\u2581") and not text.startswith(" "):
            # Decoders of this family drop the space a text begins with.
            text = " " + text
        if "\ufffd" not in text:
            return text, list(text.encode())
        if symbol.startswith("<0x") and symbol.endswith(">"):
            return text, [int(symbol[3:-1], 16)]
        if symbol and all(char in _BYTES for char in symbol):
            return text, [_BYTES[char] for char in symbol]
        return text, None

    def chat(self, entries: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
        """The `content` list of a chat choice's logprobs."""
        return [
            {
                **self._entry(entry.token_id, entry.logprob),
                "top_logprobs": [self._entry(*alternative) for alternative in entry.top],
            }
            for entry in entries
        ]

    def completion(
        self, entries: Sequence[TokenLogprob], offset: int, top: int, first: int | None = None
    ) -> dict[str, Any]:
        """The parallel lists of a text choice's logprobs; its text so far has `offset` chars.

        top: alternatives of each token, which is listed beside them if it is not among them.
        first: the token before them, the first of an echoed prompt, which nothing foretells.
        """
        ids = [*([] if first is None else [first]), *(entry.token_id for entry in entries)]
        tokens = [self.text(token_id)[0] for token_id in ids]
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token)
        untold: list[None] = [None] * (len(ids) - len(entries))
        return {
            "tokens": tokens,
            "token_logprobs": [*untold, *(_finite(entry.logprob) for entry in entries)],
            "top_logprobs": [*untold, *(self._by_text(entry, top) for entry in entries)],
            "text_offset": offsets,
        }

    def prompt(
        self, entries: Sequence[TokenLogprob], token_ids: Sequence[int], top: int
    ) -> list[dict[str, Any] | None]:
        """vLLM's `prompt_logprobs`: token id -> entry, for each of `token_ids` but the first."""
        report: list[dict[str, Any] | None] = [None]
        for entry in entries:
            ranked = [(*pair, rank) for rank, pair in enumerate(entry.top[:top], start=1)]
            ranked.append((entry.token_id, entry.logprob, entry.rank))
            report.append(
                {
                    str(token_id): {
                        "logprob": _finite(logprob),
                        "rank": rank,
                        "decoded_token": self.text(token_id)[0],
                    }
                    for token_id, logprob, rank in ranked
                }
            )
        return report[: len(token_ids)]

    def _entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        text, utf8 = self.text(token_id)
        return {"token": text, "logprob": _finite(logprob), "bytes": utf8}

    def _by_text(self, entry: TokenLogprob, top: int) -> dict[str, float]:
        """Best first, then the token itself; of tokens that read the same, the likelier stays."""
        by_text: dict[str, float] = {}
        for token_id, logprob in (*entry.top[:top], (entry.token_id, entry.logprob)):
            by_text.setdefault(self.text(token_id)[0], _finite(logprob))
        return by_text


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
