"""Tokens to text as they come; runs in the server's process, where only the client imports it.

What a token adds to the text depends on its neighbours: a character can be spread over tokens,
and SentencePiece drops the space before the first word. So the latest tokens are decoded
together with a few before them, and what is beyond those few is new. The window moves on
whenever the text is whole, which keeps the work a token constant.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"
# A UTF-8 sequence that lacks its end has at most 3 bytes.
_MAX_UNFINISHED = 3
# Tokens that may wait for text to become whole. A character needs no more than 4; what waits
# longer is bytes that will never be one, or tokens without text.
_MAX_PENDING = 12
_MIN_CONTEXT = 4


class Detokenizer:
    """Text of one request's output, without its prompt.

    tokenizer: decodes; shared, not changed.
    prompt_ids: the prompt, whose last tokens decide about a space at the start.
    skip_special_tokens: whether special tokens have no text.
    kept: special tokens that have it nevertheless.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        skip_special_tokens: bool = True,
        kept: Collection[int] = (),
    ) -> None:
        # The tokenizer can skip all of them or none; to keep some, the others are left out here.
        some = bool(kept) and skip_special_tokens
        self._tokenizer, self._skip = tokenizer, skip_special_tokens and not some
        self._hidden = _special_tokens(tokenizer) - set(kept) if some else frozenset()
        self._window = self._context(prompt_ids)
        # Tokens of the window before the last point at which the text was whole.
        self._num_whole = len(self._window)
        self._text = self._decode(self._window)
        self._num_emitted = len(self._text)

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that is certain with these tokens and was not before; may be empty.

        U+FFFD at the end of the text, which may become a character, is kept back, though not
        for more than a few tokens. The pieces together do not depend on how the tokens are
        divided among calls.
        """
        return "".join([self._push(token_id) for token_id in token_ids])

    def finish(self) -> str:
        """What is still kept back, invalid or not; nothing may be pushed after it."""
        return self._emit(len(self._text))

    def _push(self, token_id: int) -> str:
        if token_id in self._hidden:
            return ""
        before = self._text
        self._window.append(token_id)
        self._text = self._decode(self._window)
        full = len(self._window) - self._num_whole >= _MAX_PENDING
        if full and self._text == before:
            self._window.pop()
            return ""
        unfinished = len(self._text) - len(self._text.rstrip(_REPLACEMENT))
        held = min(unfinished, _MAX_UNFINISHED) if full else unfinished
        piece = self._emit(len(self._text) - held)
        if full or (piece and not held):
            self._advance(held)
        return piece

    def _emit(self, end: int) -> str:
        piece = self._text[self._num_emitted : end]
        self._num_emitted += len(piece)
        return piece

    def _advance(self, held: int) -> None:
        """Keep as context only the tokens since the text was last whole.

        held: characters at the end that may still change, and with them the last few tokens.
        """
        self._window = self._window[self._num_whole :]
        self._num_whole = len(self._window) - (_MAX_UNFINISHED if held else 0)
        self._text = self._decode(self._window)
        self._num_emitted = len(self._text) - held

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=self._skip)

    def _context(self, prompt_ids: Sequence[int]) -> list[int]:
        """The prompt's end, as far back as it takes to have text that begins with a character."""
        size = _MIN_CONTEXT
        while size < len(prompt_ids):
            text = self._decode(self._shown(prompt_ids[-size:]))
            if text and not text.startswith(_REPLACEMENT):
                break
            size *= 2
        return self._shown(prompt_ids[-size:])

    def _shown(self, token_ids: Sequence[int]) -> list[int]:
        return [token_id for token_id in token_ids if token_id not in self._hidden]


@lru_cache(maxsize=4)  # a millisecond for a vocabulary that reserves a thousand
def _special_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(token_id for token_id, token in added.items() if token.special)
