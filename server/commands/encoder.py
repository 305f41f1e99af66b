"""Conversations to token ids, for commands that run a model without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from server.chat_template import ChatTemplate

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""What decides how a conversation becomes token ids, and where an answer ends."""


class Encoder:
    """A model's tokenizer, and its chat template where it has one; a base model has none."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self.tokenizer, self.template = tokenizer, template

    @classmethod
    def load(cls, model: Path) -> Encoder:
        """Of the model in a folder. Raises AdapterError or UnsupportedModel that names the file."""
        from tokenizers import Tokenizer

        from adapters.errors import AdapterError
        from server.chat_template import ChatTemplate

        template = ChatTemplate.load(model)
        file = model / "tokenizer.json"
        if not file.is_file():
            raise AdapterError(f"{file} is missing")
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises no narrower one
            raise AdapterError(f"{file} cannot be read: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, template)

    def encode(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
    ) -> list[int]:
        """Token ids up to where the answer begins.

        Without a template the messages are a text to continue, a blank line between them.
        Raises AdapterError where the template refuses them.
        """
        from adapters.errors import AdapterError
        from server.errors import ApiError

        if self.template is None:
            text = "\n\n".join(_text(message) for message in messages)
            return list(self.tokenizer.encode(text).ids)
        try:
            text = self.template.render(messages, tools)
        except ApiError as error:
            raise AdapterError(error.message) from error
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def count(self, message: dict[str, Any]) -> int:
        """Tokens of a message's text alone."""
        return len(self.tokenizer.encode(_text(message), add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """An answer's text."""
        return str(self.tokenizer.decode(list(token_ids)))


def before_the_assistant(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages before the first one of the assistant's; all, where it speaks first."""
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return messages[: turns[0]] if turns and turns[0] else messages


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return str(content)
