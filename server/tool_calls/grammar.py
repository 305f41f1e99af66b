"""Tool calls as a grammar: which ones an answer may, or must, have.

A format says how a family of models writes a call around its arguments; the arguments follow the
function's own schema. The grammar is llguidance's Lark, which holds JSON schemas side by side, each
with references of its own. Free text ends where it comes to what every call begins with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.request import JSON_STYLE, Grammar
from server.errors import invalid
from server.schemas.chat import ChatCompletionRequest
from server.schemas.conversation import Function
from server.schemas.structured import as_strict

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How calls are written: a block of one or several, or several blocks.

    before_name: from a call's beginning to the function's name, a JSON string. before_arguments:
        from there to the arguments, a JSON object. end: of a call.
    trigger: begins every block, and nothing else; empty where nothing says that a call begins.
    opening: from there to the first call. closing: of a block.
    between: two calls of a block, or None where a block has one. between_blocks: likewise.
    """

    before_name: str
    before_arguments: str
    end: str
    trigger: str = ""
    opening: str = ""
    closing: str = ""
    between: str | None = None
    between_blocks: str | None = None


FORMATS = {
    "hermes": CallFormat(
        trigger="<tool_call>",
        before_name='\n{"name": ',
        before_arguments=', "arguments": ',
        end="}\n</tool_call>",
        between_blocks="\n",
    ),
    "mistral": CallFormat(
        trigger="[TOOL_CALLS]",
        opening="[",
        before_name='{"name": ',
        before_arguments=', "arguments": ',
        end="}",
        between=", ",
        closing="]",
    ),
    "llama3": CallFormat(
        before_name='{"name": ', before_arguments=', "parameters": ', end="}", between="; "
    ),
    "json": CallFormat(
        before_name='{"name": ', before_arguments=', "arguments": ', end="}", between=", "
    ),
}
"""A family's name -> how grammars write its calls."""


def tool_grammar(
    body: ChatCompletionRequest, form: CallFormat | None, special: Mapping[str, int]
) -> Grammar | None:
    """What `tools` and the fields beside it demand of an answer; None where that is nothing.

    A call that is forced, or a function that is `strict`, or at most one call: each is enforced.
    With a `response_format`, an answer is either calls or what that wants.

    form: how the model writes calls; None is not known. special: the markers in it that are special
    tokens, with their ids.
    Raises the 400 of a demand that calls of this form cannot be held to.
    """
    if not body.uses_tools:
        return None
    functions = [tool.function for tool in body.tools or []]
    named, one = body.named_tool, body.parallel_tool_calls is False
    field = _demanding(body, functions)
    if form is None or not (form.trigger or body.forces_call):
        if field is None:
            return None  # of several calls all but the first are dropped where they are read
        why = "No grammar is known for the form in which this model writes calls."
        raise invalid(f"Unsupported '{field}': {why}", field, "unsupported_parameter")
    if named is not None:
        functions = [function for function in functions if function.name == named]
    rules = _Rules(form, special)
    schema = body.response_format.enforced if body.response_format else None
    if body.forces_call:
        start = rules.calls(one or named is not None)
    elif schema is not None:
        start = f"{rules.calls(one)} | %json {_in_grammar(schema)}"
    elif one and not body.ignore_eos:  # which no grammar can: the first call is kept all the same
        start = "call_after_text | TEXT"
    elif field is not None:
        start = "call_after_text* TEXT"
    else:
        return None
    return Grammar("lark", rules.grammar(start, functions, one or named is not None), "tools")


def _demanding(body: ChatCompletionRequest, functions: Sequence[Function]) -> str | None:
    """The field that lets only some answers pass, besides `parallel_tool_calls`."""
    if body.forces_call:
        return "tool_choice"
    if body.constraint is not None:
        return "response_format"
    strict = [number for number, function in enumerate(functions) if function.strict]
    return f"tools.{strict[0]}.function.strict" if strict else None


@dataclass(frozen=True, slots=True)
class _Rules:
    form: CallFormat
    special: Mapping[str, int]

    def calls(self, one: bool) -> str:
        """Blocks of calls, or one block."""
        block = f"{self.literal(self.form.trigger)} block"
        if one or self.form.between_blocks is None:
            return block
        return f"{block} ({self.literal(self.form.between_blocks)} {block})*"

    def grammar(self, start: str, functions: Sequence[Function], one: bool) -> str:
        """All of it; one: a block has one call."""
        form, literal = self.form, self.literal
        names = " | ".join(f"f{number}" for number in range(len(functions)))
        more = "" if one or form.between is None else f"({literal(form.between)} call)*"
        rules = [
            f"start: {start}",
            f"block: {literal(form.opening)} call {more} {literal(form.closing)}",
            f"call: {literal(form.before_name)} ({names}) {literal(form.end)}",
        ]
        if "TEXT" in start:
            # A special token ends a text by itself.
            lazy = "" if form.trigger in self.special else "[lazy]"
            rules += [
                "call_after_text: text_and_trigger block",
                f"text_and_trigger{lazy}: TEXT {literal(form.trigger)}",
                r"TEXT: /(.|\n)*/",
            ]
        for number, function in enumerate(functions):
            name = json.dumps(function.name, ensure_ascii=False)
            before = f"{json.dumps(name)} {literal(form.before_arguments)}"
            rules.append(f"f{number}: {before} %json {_arguments(function)}")
        return "\n".join(rules)

    def literal(self, text: str) -> str:
        """A text as it is, its special tokens by number."""
        markers = "|".join(map(re.escape, self.special))
        parts = re.split(f"({markers})", text) if markers else [text]
        return " ".join(
            f"<[{self.special[part]}]>" if part in self.special else json.dumps(part)
            for part in parts
            if part
        )


def _arguments(function: Function) -> str:
    schema = {"type": "object", **(function.parameters or NO_ARGUMENTS)}
    return _in_grammar(as_strict(schema, function.strict))


def _in_grammar(schema: dict[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": {**schema["x-guidance"], **JSON_STYLE}})
