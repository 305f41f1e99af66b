"""How each token of an answer came, for who asked by `speculation.trace`."""

from __future__ import annotations

from typing import Any

from engine.request import RequestOutput
from engine.speculation.sources import names
from server.logprobs import TokenTexts


def entries(output: RequestOutput, texts: TokenTexts) -> list[dict[str, Any]]:
    """One entry a token of `output`, empty where nothing was traced.

    text: what the token reads as alone. bytes: its UTF-8 bytes, where it is part of a character.
    sources: who had drafted it; nobody, if the model chose it itself. depth: its place in the
    draft, from 1; 0 where nobody had.
    """
    if output.sources is None:
        return []
    drafted = zip(output.token_ids, output.sources, strict=True)
    return [_entry(texts, *token, depth) for depth, token in enumerate(drafted, start=1)]


def _entry(texts: TokenTexts, token_id: int, bits: int, depth: int) -> dict[str, Any]:
    text, utf8 = texts.text(token_id)
    entry = {"text": text, "sources": names(bits), "depth": depth if bits else 0}
    return {**entry, "bytes": utf8} if utf8 is not None and "\ufffd" in text else entry
