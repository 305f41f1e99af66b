"""The forms in which models write calls, and which one a model has."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from server.tool_calls import bare, hermes, llama3, mistral, pythonic, qwen3_coder
from server.tool_calls.parser import Functions, Read, ToolCallParser


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True, slots=True)
class Family:
    """One form.

    signs: a template that names one of them, or else a vocabulary that has one, is of this family.
    markers: texts that `read` looks for, which may be special tokens.
    new_id: makes the ids of calls.
    """

    name: str
    read: Read
    signs: tuple[str, ...]
    markers: tuple[str, ...]
    new_id: Callable[[], str] = _new_id

    def parser(self, functions: Functions, parallel: bool = True) -> ToolCallParser:
        """A parser of one answer; see ToolCallParser."""
        return ToolCallParser(self.read, self.new_id, functions, parallel)


FAMILIES = {
    family.name: family
    for family in (
        # Before Hermes' form, whose marker its templates name too.
        Family(
            "qwen3_coder",
            qwen3_coder.read,
            (qwen3_coder.PARAMETER,),
            (qwen3_coder.OPEN, qwen3_coder.CLOSE),
        ),
        Family("hermes", hermes.read, (hermes.OPEN,), (hermes.OPEN, hermes.CLOSE)),
        Family(
            "mistral",
            mistral.read,
            (mistral.CALLS,),
            (mistral.CALLS, mistral.CALL_ID, mistral.ARGS),
            mistral.new_id,
        ),
        Family("llama3", llama3.read, (llama3.MARKER,), (llama3.MARKER,)),
        Family("pythonic", pythonic.read, (pythonic.OPEN,), (pythonic.OPEN, pythonic.CLOSE)),
        Family("json", bare.read, (), ()),
    )
}


def recognised(template: str, has_token: Callable[[str], bool]) -> Family:
    """The family of a chat template's source and of a vocabulary.

    "json" where nothing says more. The template counts first: models tuned from others keep their
    vocabulary.
    """
    for has in (template.__contains__, has_token):
        for family in FAMILIES.values():
            if any(has(sign) for sign in family.signs):
                return family
    return FAMILIES["json"]
