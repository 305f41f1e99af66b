"""Llama 4's form, also of some Llama 3.2: [name(key="value"), ...], as Python would write it.

It has no JSON to hand on: a list of calls is read as a whole, and its arguments are put into JSON.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Collection
from typing import Any

from server.tool_calls.scan import END, NotACall, Scan, Scanner
from server.tool_calls.text import text_until
from server.tool_calls.writer import PieceWriter

OPEN, CLOSE = "<|python_start|>", "<|python_end|>"
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
_JSON_NAMES = {"true": True, "false": False, "null": None}


def read(scanner: Scanner, writer: PieceWriter, names: Collection[str]) -> Scan[None]:
    """Calls of known functions at the beginning of the answer, and any behind the marker."""
    yield from _calls_here(scanner, writer, names)
    while (marker := (yield from text_until(scanner, writer, OPEN, CLOSE))) != END:
        if marker == OPEN:
            yield from _calls_here(scanner, writer, None, OPEN)
        elif not writer.after_call:
            writer.say(CLOSE)


def _calls_here(
    scanner: Scanner, writer: PieceWriter, known: Collection[str] | None, marker: str = ""
) -> Scan[None]:
    scanner.hold(marker)
    try:
        yield from scanner.space()
        calls = _parsed((yield from _list(scanner)))
        if not calls or (known is not None and any(name not in known for name, _ in calls)):
            raise NotACall
    except NotACall:
        writer.say(scanner.held())
        return
    for name, arguments in calls:
        writer.start(name)
        writer.arguments(arguments)
        writer.end(complete=True)


def _list(scanner: Scanner) -> Scan[str]:
    """Consume a list whose first element looks like a call, and return its text."""
    text: list[str] = []
    depth, quote, called = 0, "", False
    while True:
        char = scanner.char
        if char == END or (not depth and char != "["):
            raise NotACall
        text.append(char)
        if quote:
            if char == "\\":
                yield from scanner.next()
                text.append(scanner.char)
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        else:
            depth += _BRACKETS.get(char, 0)
        called = called or char == "("
        if not called and not (depth == 1 and (char in "[._" or char.isalnum() or char.isspace())):
            raise NotACall
        if scanner.char != END:
            yield from scanner.next()
        if not depth:
            return "".join(text)


def _parsed(text: str) -> list[tuple[str, str]]:
    """Names and arguments of a list of calls; raises NotACall where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            tree = ast.parse(text, mode="eval").body
        if not isinstance(tree, ast.List):
            raise NotACall
        return [_call(node) for node in tree.elts]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotACall from error


def _call(node: ast.expr) -> tuple[str, str]:
    if not isinstance(node, ast.Call) or node.args:
        raise NotACall
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise NotACall
        arguments[keyword.arg] = _plain(keyword.value)
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    return ast.unparse(node.func), text


def _plain(node: ast.expr) -> Any:
    """What a literal says; raises NotACall for all that is not in JSON."""
    match node:
        case ast.Constant(str() | int() | float() | None as value):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
            return -number
        case ast.Name(name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.List(elements) | ast.Tuple(elements):
            return [_plain(element) for element in elements]
        case ast.Dict(keys, values):
            return {_key(key): _plain(value) for key, value in zip(keys, values, strict=True)}
    raise NotACall


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise NotACall
