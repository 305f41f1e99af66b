"""Grammars to matchers, by llguidance: what an answer must look like, as masks over tokens.

A grammar comes from anywhere. It is bounded in size and depth before it is read, the library
bounds what it may grow to (regular expressions are matched by derivatives, which nothing makes
exponential in the text), and what only shows at the first tokens is looked for here: none of it
may happen in a step.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import any_to_lark

from engine.errors import RequestError
from engine.grammar.constraint import Constraint
from engine.grammar.vocabulary import read_vocabulary
from engine.request import JSON_STYLE, Grammar

MAX_BYTES = 1 << 16
MAX_DEPTH = 64
MAX_CACHED = 64
MESSAGE_LENGTH = 300

# A step's share is a quarter of the library's own: at most some 50 ms, once, before it gives up.
_LIMITS = LLParserLimits(
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    verbose_errors=False,
)
# Tokens tried before a grammar is taken: enough to meet what its first ones would have built.
_TRIED = 3


class GrammarCompiler:
    """Compiles for one model, and keeps what was used last. Any thread may call it."""

    def __init__(self, folder: str | Path, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        self._file, self._vocab_size = Path(folder) / "tokenizer.json", vocab_size
        self._eos = list(eos_token_ids)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    def knows(self, grammar: Grammar) -> bool:
        """Whether `compile` has the answer at hand."""
        return grammar in self._compiled

    def compile(self, grammar: Grammar, stop_token_ids: Sequence[int] = ()) -> Constraint:
        """A sequence's own constraint, at the grammar's beginning.

        stop_token_ids: what ends an answer besides the model's end-of-sequence tokens.
        Raises RequestError, naming the grammar's field, where it cannot be compiled.
        """
        with self._lock:
            matcher = self._compiled.get(grammar)
            if matcher is not None:
                self._compiled.move_to_end(grammar)
        if matcher is None:
            matcher = self._new(grammar)
            with self._lock:
                self._compiled[grammar] = matcher
                if len(self._compiled) > MAX_CACHED:
                    self._compiled.popitem(last=False)
        return Constraint(matcher.deep_copy(), (*self._eos, *stop_token_ids), self._vocab_size)

    def _new(self, grammar: Grammar) -> LLMatcher:
        if len(grammar.text.encode("utf-8", "replace")) > MAX_BYTES:
            raise _refused(f"it is larger than {MAX_BYTES} bytes", grammar)
        if not self._eos:
            raise _refused("this model has no end-of-sequence token to end it with", grammar)
        try:
            source = _source(grammar)
        except (ValueError, RecursionError) as error:
            raise _refused(str(error) or "it is nested too deeply", grammar) from error
        except Exception as error:  # the converter's own errors have no common base
            raise _refused(str(error), grammar) from error
        matcher = LLMatcher(self._of_tokens(grammar), source, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise _refused(matcher.get_error(), grammar)
        self._try(matcher, grammar)
        return matcher

    def _try(self, matcher: LLMatcher, grammar: Grammar) -> None:
        """Raises where a grammar grows beyond all bounds, or holds nothing the model can write."""
        trial = matcher.deep_copy()
        for number in range(_TRIED):
            # The matcher fails where nothing is allowed; the mask is the end-of-sequence token's.
            mask = int.from_bytes(trial.compute_bitmask(), "little")
            for eos in self._eos:
                mask &= ~(1 << eos)
            if not mask and number == 0 and not trial.is_accepting():
                raise _refused("there is no text it allows that this model can write", grammar)
            if trial.is_error():
                raise _refused(trial.get_error(), grammar)
            if not mask:
                return
            trial.consume_token((mask & -mask).bit_length() - 1)

    def _of_tokens(self, grammar: Grammar) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                try:
                    self._tokenizer = read_vocabulary(self._file, self._vocab_size, self._eos)
                except (ValueError, OSError) as error:
                    raise _refused(
                        f"this model's tokenizer has no grammars: {error}", grammar
                    ) from error
            return self._tokenizer


def _source(grammar: Grammar) -> str:
    """The grammar as the library takes it. Raises ValueError, or whatever its converter raises."""
    match grammar.kind:
        case "json_schema":
            schema = json.loads(grammar.text)
            if depth(schema) > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
            return LLMatcher.grammar_from_json_schema(grammar.text, overrides=JSON_STYLE)
        case "regex":
            return LLMatcher.grammar_from_regex(_unanchored(grammar.text))
        case "choice":
            choices = json.loads(grammar.text)
            return LLMatcher.grammar_from_regex("|".join(map(_escaped, choices)))
        case "ebnf":
            return LLMatcher.grammar_from_lark(any_to_lark(grammar.text))
        case "lark":
            return LLMatcher.grammar_from_lark(grammar.text)
    raise ValueError(f"{grammar.kind!r} is no kind of grammar")


def depth(value: Any) -> int:
    """How many objects and arrays lie in each other at most."""
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deepest += 1
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
    return deepest


def _escaped(text: str) -> str:
    """A regular expression that matches this text alone."""
    return re.sub(r"[^A-Za-z0-9]", lambda found: rf"\x{{{ord(found[0]):x}}}", text)


def _unanchored(regex: str) -> str:
    """Without the anchors of a whole match, which it is anyway."""
    body = regex.removesuffix("$")
    if body != regex and (len(body) - len(body.rstrip("\\"))) % 2:
        body = regex  # that one was a dollar sign
    return body.removeprefix("^")


def _refused(why: str, grammar: Grammar) -> RequestError:
    # Of a regular expression's error, which shows all of it, the one line that says what it is.
    lines = [line for line in why.splitlines() if line.startswith("error: ")] or [why]
    why = " ".join(lines[-1].replace("<non-verbose/>", "").removeprefix("error: ").split())
    if len(why) > MESSAGE_LENGTH:
        why = f"{why[:MESSAGE_LENGTH]}..."
    return RequestError(f"Invalid '{grammar.field}': {why}", grammar.field)
