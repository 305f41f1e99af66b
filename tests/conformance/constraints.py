"""Fields that constrain an answer, drawn at random: forms it must have, calls it must make."""

from __future__ import annotations

import json
import random
from typing import Any, TypeAlias

from tests.server.wire import WEATHER

Fields: TypeAlias = dict[str, Any]

NAME = "find_restaurants"
FIND: Fields = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Restaurants of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "cuisine": {"type": "string", "maxLength": 8},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TOOLS = [FIND, WEATHER]
STRICT_FIND: Fields = {**FIND, "function": {**FIND["function"], "strict": True}}
FINDS = [FIND, STRICT_FIND]

SCHEMAS: list[Fields] = [
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "party": {"enum": [1, 2, 4]}},
        "required": ["city", "party"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "integer"}, "maxItems": 5},
    {
        "type": "object",
        "properties": {"open": {"type": "boolean"}, "place": {"$ref": "#/$defs/place"}},
        "additionalProperties": False,
        "$defs": {"place": {"enum": ["San Jose", "Fresno", "Napa"]}},
    },
]
REGEXES = [r"(Sure|No), [a-z ]{3,20}\.", r"[0-9]{1,2}:[0-9]{2} (am|pm)", r"(the |a )*restaurant"]
CHOICES = [["Yes", "Yes, please", "No", "東京"], ["San Jose", "San Francisco"]]
GRAMMARS = [
    'root ::= "(" (root | [a-z]){1,3} ")" | [0-9]',
    "start: /[A-Z][a-z]+/ (/, [a-z]+/)* /\\?/",
]


ENDED: Fields = {"ignore_eos": False, "max_tokens": 48}
"""Long enough for a whole object; and a grammar ends it."""


def constraint(rng: random.Random) -> Fields:
    """One form of an answer, by one of its names."""
    if rng.random() < 0.4:
        return {**ENDED, "response_format": _response_format(rng)}
    kind, names, value = rng.choice(
        [
            ("json", ("guided_json", "json_schema"), _schema(rng)),
            ("json_object", (), True),
            ("regex", ("guided_regex", "regex"), rng.choice(REGEXES)),
            ("choice", ("guided_choice",), rng.choice(CHOICES)),
            ("grammar", ("guided_grammar", "ebnf", "grammar"), rng.choice(GRAMMARS)),
        ]
    )
    if names and rng.random() < 0.5:
        return {**ENDED, rng.choice(names): value}
    return {**ENDED, "structured_outputs": {kind: value}}


def response_text(rng: random.Random) -> Fields:
    """The same as /v1/responses has it."""
    given = _response_format(rng)
    form = {"type": given["type"], **given.get("json_schema", {})}
    return {"text": {"format": form}, "max_output_tokens": 48, "ignore_eos": False}


def tools(rng: random.Random) -> Fields:
    """Chat's: calls left to the model, forbidden, or enforced in one way or another."""
    fields: Fields = {"tools": TOOLS, "max_tokens": 48}
    if rng.random() < 0.2:
        fields["parallel_tool_calls"] = False
    match rng.choice(["auto", "auto", "none", "required", "named", "strict", "format"]):
        case "none":
            fields["tool_choice"] = "none"
        case "required":
            fields |= {**ENDED, "tool_choice": "required"}
        case "named":
            named = {"type": "function", "function": {"name": NAME}}
            fields |= {**ENDED, "tool_choice": named, "tools": [rng.choice(FINDS), WEATHER]}
        case "strict":
            fields |= {**ENDED, "tools": [STRICT_FIND, WEATHER]}
        case "format":
            fields |= {**ENDED, "response_format": _response_format(rng)}
    return fields


def response_tools(rng: random.Random) -> Fields:
    """The same as /v1/responses has them."""
    given = [STRICT_FIND, WEATHER] if (strict := rng.random() < 0.3) else TOOLS
    choice = rng.choice(["auto", "auto", "none", "required", {"type": "function", "name": NAME}])
    fields: Fields = {"tools": [{"type": "function", **tool["function"]} for tool in given]}
    fields |= {"tool_choice": choice, "max_output_tokens": 48}
    if strict or choice not in ("auto", "none"):
        fields["ignore_eos"] = False
    return fields


def message_tools(rng: random.Random) -> Fields:
    """The same as /v1/messages has them."""
    choice = rng.choice(["auto", "auto", "none", "any", "tool"])
    fields: Fields = {"type": choice}
    if choice == "tool":
        fields["name"] = NAME
    if choice != "none" and rng.random() < 0.3:
        fields["disable_parallel_tool_use"] = True
    functions = [tool["function"] for tool in TOOLS]
    shown = [{"name": f["name"], "input_schema": f["parameters"]} for f in functions]
    return {"tools": shown, "tool_choice": fields, "max_tokens": 48}


def message_output(rng: random.Random) -> Fields:
    """A form of an answer as /v1/messages has it."""
    form = {"type": "json_schema", "schema": rng.choice(SCHEMAS)}
    return {"output_config": {"format": form}, "max_tokens": 48}


def _schema(rng: random.Random) -> Any:
    """A schema, or its text."""
    schema = rng.choice(SCHEMAS)
    return schema if rng.random() < 0.7 else json.dumps(schema)


def _response_format(rng: random.Random) -> Fields:
    if rng.random() < 0.3:
        return {"type": "json_object"}
    named = {"name": "wish", "schema": rng.choice(SCHEMAS), "strict": rng.random() < 0.5}
    return {"type": "json_schema", "json_schema": named}
