"""What an answer must look like: `response_format`, and others' names for the same and more."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.request import Grammar
from server.schemas.base import NeutralValues, Schema, disagrees
from server.schemas.common import NO_EFFECT, GenerationRequest


def _unicode(text: str) -> str:
    """Half of a surrogate pair is a valid JSON string, and no text."""
    try:
        text.encode()
    except UnicodeError as error:
        raise PydanticCustomError("value_error", "not valid Unicode text") from error
    return text


Text = Annotated[str, AfterValidator(_unicode)]
JsonSchema = dict[str, Any]
Choices = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=4096)]

_KINDS = {
    "schema": "json_schema",
    "json": "json_schema",
    "json_schema": "json_schema",
    "json_object": "json_schema",
    "regex": "regex",
    "choice": "choice",
    "grammar": "ebnf",
    "ebnf": "ebnf",
}

ANY_OBJECT: dict[str, Any] = {"type": "object", "x-guidance": {}}
LENIENT = {"lenient": True, "coerce_one_of": True}
"""Options of llguidance: what it does not know in a schema is left out, `oneOf` is `anyOf`."""


class JsonSchemaFormat(Schema):
    """strict: refuse a schema that cannot be kept to the letter; else keep what of it can be."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = Field(None, description=NO_EFFECT)
    json_schema: JsonSchema = Field(alias="schema")
    strict: bool | None = None

    @property
    def enforced(self) -> dict[str, Any]:
        """The schema, with how exactly it is to be taken."""
        return as_strict(self.json_schema, self.strict)


class ResponseFormat(Schema):
    """json_schema: needed by the type of that name, and by no other."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise PydanticCustomError("missing", "Field required", {"param": "json_schema"})
        if self.type != "json_schema" and self.json_schema is not None:
            raise disagrees("json_schema", "only allowed with type 'json_schema'")
        return self

    @property
    def enforced(self) -> dict[str, Any] | None:
        """The schema of the answer; None for any text."""
        if self.json_schema is not None:
            return self.json_schema.enforced
        return ANY_OBJECT if self.type == "json_object" else None


class StructuredOutputs(Schema):
    """vLLM's: exactly one of them. json: a schema, or its text. grammar: GBNF or Lark."""

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "structural_tag": (),
        "whitespace_pattern": (),
        "disable_any_whitespace": (False,),
        "disable_additional_properties": (False,),
        "disable_fallback": (False, True),  # there is one library, and nothing to fall back to
    }

    json_schema: JsonSchema | Text | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: Text | None = None
    choice: Choices | None = None
    grammar: Text | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> StructuredOutputs:
        if len(self.grammars) != 1:
            raise PydanticCustomError(
                "value_error",
                "exactly one of json, json_object, regex, choice and grammar is needed",
            )
        return self

    @property
    def grammars(self) -> list[Grammar]:
        """All that is asked for."""
        return _grammars(
            "structured_outputs.",
            json=self.json_schema,
            json_object=ANY_OBJECT if self.json_object else None,
            regex=self.regex,
            choice=self.choice,
            grammar=self.grammar,
        )


class StructuredRequest(GenerationRequest):
    """Fields that constrain an answer, one of them at most."""

    response_format: ResponseFormat | None = Field(
        None, description="`text`, `json_object` or `json_schema`."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="One of `json`, `json_object`, `regex`, `choice` and `grammar`; vLLM's."
    )
    guided_json: JsonSchema | Text | None = Field(
        None, description="As `structured_outputs.json`; vLLM's older name."
    )
    guided_regex: Text | None = Field(
        None, description="As `structured_outputs.regex`; vLLM's older name."
    )
    guided_choice: Choices | None = Field(
        None, description="As `structured_outputs.choice`; vLLM's older name."
    )
    guided_grammar: Text | None = Field(
        None, description="As `structured_outputs.grammar`; vLLM's older name."
    )
    json_schema: JsonSchema | Text | None = Field(
        None, description="As `structured_outputs.json`; llama.cpp's and SGLang's."
    )
    regex: Text | None = Field(None, description="As `structured_outputs.regex`; SGLang's.")
    ebnf: Text | None = Field(None, description="As `structured_outputs.grammar`; SGLang's.")
    grammar: Text | None = Field(None, description="As `structured_outputs.grammar`; llama.cpp's.")

    @model_validator(mode="after")
    def _one_constraint(self) -> StructuredRequest:
        given = [grammar.field.split(".")[0] for grammar in self.grammars]
        if len(given) > 1:
            raise disagrees(given[1], f"not allowed with '{given[0]}'")
        return self

    @cached_property
    def constraint(self) -> Grammar | None:
        """What the answer must match, if anything."""
        return next(iter(self.grammars), None)

    @property
    def grammars(self) -> list[Grammar]:
        """All constraints that are given; more than one is refused."""
        schema = self.response_format.enforced if self.response_format else None
        return [
            *_grammars("response_format.json_schema.", schema=schema),
            *(self.structured_outputs.grammars if self.structured_outputs else ()),
            *_grammars(
                "guided_",
                json=self.guided_json,
                regex=self.guided_regex,
                choice=self.guided_choice,
                grammar=self.guided_grammar,
            ),
            *_grammars(
                "",
                json_schema=self.json_schema,
                regex=self.regex,
                ebnf=self.ebnf,
                grammar=self.grammar,
            ),
        ]


def as_strict(schema: dict[str, Any], strict: bool | None) -> dict[str, Any]:
    """The schema, to be kept to the letter or else refused; or only as far as it can be."""
    return {**schema, "x-guidance": {} if strict else LENIENT}


def _grammars(prefix: str, **given: dict[str, Any] | list[str] | str | None) -> list[Grammar]:
    """A grammar for each field that is given, whose name begins with `prefix`."""
    return [
        Grammar(_KINDS[name], value if isinstance(value, str) else json.dumps(value), prefix + name)
        for name, value in given.items()
        if value is not None
    ]
