"""Token ids of chat prompts, in which most of the text has been seen before.

A conversation comes again with every turn. Its template puts special tokens between the turns, at
which tokenizers cut a text before they look at anything else: what stands between two of them is
encoded by itself, and so can be remembered by itself.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from itertools import chain
from threading import Lock
from typing import Any

from tokenizers import Tokenizer

MAX_CHARS = 1 << 22
"""Of all texts that are remembered."""

_PLACELESS_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Replace"}
_PLACELESS_PRE_TOKENIZERS = {"ByteLevel", "Split", "Digits", "Punctuation", "Whitespace"}


class PromptEncoder:
    """Encodes without the tokens that a tokenizer would add itself. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        special = _cuts(json.loads(tokenizer.to_str()))
        # Of tokens that begin alike tokenizers take the longest, too.
        longest = sorted(special, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest))})") if special else None
        self._special = {text: [token_id] for text, token_id in special.items()}
        self._known: OrderedDict[tuple[str, str], list[int]] = OrderedDict()
        self._chars, self._lock = 0, Lock()

    def encode(self, text: str, salt: str = "") -> list[int]:
        """Token ids of `text`. salt: what is remembered under another one is not looked at."""
        if self._cut is None:
            return self._encode([text])[0]
        parts = [part for part in self._cut.split(text) if part]
        with self._lock:
            found = [self._special.get(part) or self._recall(salt, part) for part in parts]
        fresh = list(dict.fromkeys(p for p, ids in zip(parts, found, strict=True) if ids is None))
        ids = dict(zip(fresh, self._encode(fresh), strict=True)) if fresh else {}
        with self._lock:
            for part in fresh:
                self._remember(salt, part, ids[part])
        return list(
            chain.from_iterable(
                ids[part] if known is None else known
                for part, known in zip(parts, found, strict=True)
            )
        )

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # `encode` would also compute where in the text each token is.
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _recall(self, salt: str, part: str) -> list[int] | None:
        ids = self._known.get((salt, part))
        if ids is not None:
            self._known.move_to_end((salt, part))
        return ids

    def _remember(self, salt: str, part: str, ids: list[int]) -> None:
        if (salt, part) in self._known or len(salt) + len(part) > MAX_CHARS // 16:
            return
        self._known[salt, part] = ids
        self._chars += len(salt) + len(part)
        while self._chars > MAX_CHARS:
            (old_salt, old), _ = self._known.popitem(last=False)
            self._chars -= len(old_salt) + len(old)


def _cuts(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Special tokens at which a text may be cut; none where a part's place in it would matter.

    tokenizer: as its file has it.
    """
    verbatim = [token for token in tokenizer["added_tokens"] if not token["normalized"]]
    placeless = (
        tokenizer["truncation"] is None
        and tokenizer["padding"] is None
        and not any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in verbatim)
        and _all_of(tokenizer["normalizer"], "normalizers", _PLACELESS_NORMALIZERS)
        and _all_of(tokenizer["pre_tokenizer"], "pretokenizers", _PLACELESS_PRE_TOKENIZERS)
    )
    return {token["content"]: token["id"] for token in verbatim} if placeless else {}


def _all_of(step: dict[str, Any] | None, inner: str, kinds: set[str]) -> bool:
    if step is None:
        return True
    if step["type"] == "Sequence":
        return all(_all_of(one, inner, kinds) for one in step[inner])
    return step["type"] in kinds and not step.get("add_prefix_space")
