"""Tool calls as a grammar: which ones an answer may, or must, have.

A format says how a family of models writes a call around its arguments; the arguments follow the
function's own schema. The grammar is llguidance's Lark, which holds JSON schemas side by side, each
with references of its own. Free text ends where it comes to what every call begins with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.request import JSON_STYLE, Grammar
from server.schemas.chat import ChatCompletionRequest, Function
from server.schemas.structured import as_strict

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How calls are written, all of it plain text.

    trigger: begins every call, and nothing else. before_name: from there to the function's name, a
        JSON string. before_arguments: from there to the arguments, a JSON object. end: of a call.
    between: two calls.
    """

    trigger: str
    before_name: str
    before_arguments: str
    end: str
    between: str


HERMES = CallFormat(
    trigger="<tool_call>",
    before_name='\n{"name": ',
    before_arguments=', "arguments": ',
    end="}\n</tool_call>",
    between="\n",
)


def tool_grammar(body: ChatCompletionRequest, form: CallFormat = HERMES) -> Grammar | None:
    """What `tools` and the fields beside it demand of an answer; None where that is nothing.

    A call that is forced, or a function that is `strict`, or at most one call: each is enforced.
    With a `response_format`, an answer is either calls or what that wants.
    """
    if not body.uses_tools:
        return None
    functions = [tool.function for tool in body.tools or []]
    named, one = body.named_tool, body.parallel_tool_calls is False
    schema = body.response_format.enforced if body.response_format else None
    if named is not None:
        functions = [function for function in functions if function.name == named]
    if body.forces_call:
        start = "call" if one or named is not None else _calls(form)
    elif schema is not None:
        start = f"{'call' if one else _calls(form)} | %json {_in_grammar(schema)}"
    elif one:
        start = "call_after_text | TEXT"
    elif any(function.strict for function in functions):
        start = "call_after_text* TEXT"
    else:
        return None
    return Grammar("lark", _lark(start, functions, form), "tools")


def _lark(start: str, functions: Sequence[Function], form: CallFormat) -> str:
    names = " | ".join(f"f{number}" for number in range(len(functions)))
    rules = [
        f"start: {start}",
        f"call: {_literal(form.trigger)} body",
        "call_after_text: text_and_trigger body",
        f"text_and_trigger[lazy]: TEXT {_literal(form.trigger)}",
        r"TEXT: /(.|\n)*/",
        f"body: {_literal(form.before_name)} ({names}) {_literal(form.end)}",
    ]
    for number, function in enumerate(functions):
        before = json.dumps(function.name, ensure_ascii=False) + form.before_arguments
        rules.append(f"f{number}: {_literal(before)} %json {_arguments(function)}")
    return "\n".join(rules)


def _calls(form: CallFormat) -> str:
    return f"call ({_literal(form.between)} call)*"


def _arguments(function: Function) -> str:
    schema = {"type": "object", **(function.parameters or NO_ARGUMENTS)}
    return _in_grammar(as_strict(schema, function.strict))


def _in_grammar(schema: dict[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": {**schema["x-guidance"], **JSON_STYLE}})


def _literal(text: str) -> str:
    return json.dumps(text)
