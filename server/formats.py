"""How the served model writes reasoning and calls, and its answers read accordingly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from engine.request import Grammar, Request
from server import reasoning
from server.chat_template import ChatTemplate
from server.choice import Choice
from server.config import AUTO, ServerConfig
from server.logprobs import TokenTexts
from server.reader import AnswerReader
from server.schemas.chat import ChatCompletionRequest
from server.tool_calls import families
from server.tool_calls.grammar import FORMATS, tool_grammar
from server.tool_calls.parser import ToolCallParser

_END_OF_PROMPT = 16
"""Tokens in which an opening marker at the end of a prompt is looked for."""


@dataclass(frozen=True)
class Formats:
    """The model's forms. calls, thoughts: None are not looked for."""

    tokenizer: Tokenizer
    calls: families.Family | None
    thoughts: reasoning.ReasoningFormat | None

    @classmethod
    def of(
        cls, config: ServerConfig, template: ChatTemplate | None, tokenizer: Tokenizer
    ) -> Formats:
        """What the configuration says, or else the template, or else the vocabulary."""
        source = template.source if template is not None else ""

        def has_token(text: str) -> bool:
            return tokenizer.token_to_id(text) is not None

        return cls(
            tokenizer,
            families.recognised(source, has_token)
            if config.tool_call_parser == AUTO
            else families.FAMILIES.get(config.tool_call_parser),
            reasoning.recognised(source, has_token)
            if config.reasoning_parser == AUTO
            else reasoning.FORMATS.get(config.reasoning_parser),
        )

    def kept_tokens(self, uses_tools: bool) -> list[int]:
        """Markers that are special tokens, and so would have no text."""
        markers = self.calls.markers if self.calls is not None and uses_tools else ()
        if self.thoughts is not None:
            markers += (self.thoughts.open, self.thoughts.close)
        token_ids = [self.tokenizer.token_to_id(marker) for marker in markers]
        return [token_id for token_id in token_ids if token_id is not None]

    def grammar(self, body: ChatCompletionRequest) -> Grammar | None:
        """What the answer must match. Raises the 400 of calls that cannot be held to it."""
        form = FORMATS.get(self.calls.name) if self.calls is not None else None
        return tool_grammar(body, form, self._special_markers) or body.constraint

    def choices(self, body: ChatCompletionRequest, requests: Sequence[Request]) -> list[Choice]:
        """The answers to one prompt, before anything of them is known."""
        # Where no text is free, none of it is reasoning, whatever the prompt ends with.
        is_free = body.constraint is None and not body.forces_call
        inside = is_free and self._opens_reasoning(requests[0].token_ids)
        texts = TokenTexts(self.tokenizer) if body.num_logprobs is not None else None
        return [
            Choice(AnswerReader(self._splitter(inside), self._parser(body)), texts)
            for _ in requests
        ]

    def _splitter(self, inside: bool) -> reasoning.ReasoningSplitter | None:
        if self.thoughts is None:
            return None
        open_id = self.tokenizer.token_to_id(self.thoughts.open)
        close_id = self.tokenizer.token_to_id(self.thoughts.close)
        counter = reasoning.ReasoningTokens(open_id, close_id, inside)
        return reasoning.ReasoningSplitter(self.thoughts, inside, counter)

    def _parser(self, body: ChatCompletionRequest) -> ToolCallParser | None:
        if self.calls is None or not body.uses_tools:
            return None
        functions = {tool.function.name: tool.function.parameters for tool in body.tools or []}
        return self.calls.parser(functions, parallel=body.parallel_tool_calls is not False)

    @cached_property
    def _special_markers(self) -> dict[str, int]:
        known = self.tokenizer.get_added_tokens_decoder()
        markers = self.calls.markers if self.calls is not None else ()
        return {t.content: n for n, t in known.items() if t.special and t.content in markers}

    def _opens_reasoning(self, prompt_ids: list[int]) -> bool:
        if self.thoughts is None:
            return False
        end: str = self.tokenizer.decode(prompt_ids[-_END_OF_PROMPT:], skip_special_tokens=False)
        return end.rstrip().endswith(self.thoughts.open)
