"""Qwen3-Coder's form: bare values between tags, whose types the function's schema tells.

<tool_call>
<function=weather>
<parameter=place>
San Jose
</parameter>
</function>
</tool_call>
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.tool_calls.json_value import is_value
from server.tool_calls.scan import END, NotACall, Scan, Scanner
from server.tool_calls.text import pass_until, text_until
from server.tool_calls.writer import PieceWriter

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, PARAMETER = "<function=", "<parameter="
_END_OF_FUNCTION, _END_OF_VALUE = "</function>", "</parameter>"

_PYTHONS = {"True": "true", "False": "false", "None": "null"}
_KINDS = {
    **{"{": {"object"}, "[": {"array"}, '"': {"string"}},
    **{"t": {"boolean"}, "f": {"boolean"}, "n": {"null"}},
}
_NUMBER = {"number", "integer"}


def read(scanner: Scanner, writer: PieceWriter, functions: Mapping[str, Any]) -> Scan[None]:
    """Calls behind the opening marker, which models are known to forget, and may be missing.

    functions: name -> JSON schema of its arguments. Values of parameters that no schema names are
    strings.
    """
    while (marker := (yield from text_until(scanner, writer, OPEN, CLOSE, FUNCTION))) != END:
        if marker == CLOSE:
            if not writer.after_call:
                writer.say(CLOSE)
            continue
        scanner.hold(marker)
        try:
            if marker == OPEN:
                yield from scanner.space()
                yield from scanner.expect(FUNCTION)
            yield from _call(scanner, writer, functions)
        except NotACall:
            writer.say(scanner.held())


def _call(scanner: Scanner, writer: PieceWriter, functions: Mapping[str, Any]) -> Scan[None]:
    """From the function's name on; what breaks once it is written stays a call."""
    name = yield from _name(scanner)
    yield from scanner.space()
    tag = yield from _tag(scanner)
    writer.start(name)
    scanner.hold()
    writer.arguments("{")
    properties = _properties(functions.get(name))
    before = ""
    try:
        while tag == PARAMETER:
            key = yield from _name(scanner)
            writer.arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            yield from _value(scanner, writer, _kinds(properties.get(key, {"type": "string"})))
            before = ", "
            scanner.hold()
            yield from scanner.space()
            tag = yield from _tag(scanner)
    except NotACall:
        writer.end(complete=False)
        raise
    writer.arguments("}")
    writer.end(complete=True)


def _name(scanner: Scanner) -> Scan[str]:
    """A name and the `>` behind it."""
    name: list[str] = []
    while scanner.char not in (">", "<", "\n", END):
        name.append(scanner.char)
        yield from scanner.next()
    yield from scanner.expect(">")
    return "".join(name).strip()


def _tag(scanner: Scanner) -> Scan[str]:
    """What begins a parameter or ends a function."""
    yield from scanner.expect("<")
    tag = PARAMETER if scanner.char == PARAMETER[1] else _END_OF_FUNCTION
    yield from scanner.expect(tag[1:])
    return tag


def _value(scanner: Scanner, writer: PieceWriter, kinds: set[str]) -> Scan[None]:
    """A value up to its closing tag: strings as they come, others once they are whole.

    A line's end behind the opening tag and before the closing one belongs to the tags.
    """
    scanner.hold()  # what is read from here on is written
    if scanner.char == "\n":
        yield from scanner.skip()
    ends = (_END_OF_VALUE, f"\n{_END_OF_VALUE}")
    if kinds == {"string"}:
        writer.arguments('"')
        end = yield from pass_until(scanner, lambda text: writer.arguments(_escaped(text)), *ends)
        if end == END:
            raise NotACall
        writer.arguments('"')
        return
    value: list[str] = []
    end = yield from pass_until(scanner, value.append, *ends)
    if end == END:
        writer.arguments("".join(value))
        raise NotACall
    writer.arguments(_as_json("".join(value), kinds))


def _as_json(text: str, kinds: set[str]) -> str:
    """A value as JSON of one of these kinds, as far as it can be read so; else a string."""
    value = _PYTHONS.get(text.strip(), text.strip())
    if is_value(value) and (_KINDS.get(value[0], _NUMBER) & kinds or "string" not in kinds):
        return value
    return json.dumps(text, ensure_ascii=False)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _properties(schema: Any) -> Mapping[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def _kinds(schema: Any) -> set[str]:
    """The types a schema allows; none where it does not say."""
    if not isinstance(schema, Mapping):
        return set()
    given = schema.get("type", [])
    kinds = {given} if isinstance(given, str) else {kind for kind in given if isinstance(kind, str)}
    for name in ("anyOf", "oneOf"):
        for inner in schema.get(name) or ():
            kinds |= _kinds(inner)
    return kinds
