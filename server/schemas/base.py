"""What every request model does: no value is turned into another type, no field is lost silently.

A field is honoured (it is a field of the model), refused by name (`UNSUPPORTED`: it would change
the answer, and this server does not do it), or, where nobody here knows it or nothing is done about
it that the answer would show, ignored and reported in a header of the answer (`ignored_fields`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    model_validator,
)
from pydantic_core import PydanticCustomError

NeutralValues: TypeAlias = Mapping[str, tuple[Any, ...]]
"""Field name -> the values that ask for nothing."""


class Schema(BaseModel):
    """A part of a request's body.

    UNSUPPORTED: known fields that are refused, each with the values that ask for nothing (null is
    always one). IGNORED: fields of the model that are ignored, in the same form.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    UNSUPPORTED: ClassVar[NeutralValues] = {}
    IGNORED: ClassVar[NeutralValues] = {}
    _NAMES: ClassVar[frozenset[str]] = frozenset()

    # Of the class until a request has some: pydantic would make one for every model it builds.
    _ignored: ClassVar[Sequence[str]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        # Once a class: every message of a conversation asks.
        cls._NAMES = frozenset(field.alias or name for name, field in cls.model_fields.items())

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_unsupported(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        if not cls.UNSUPPORTED.keys().isdisjoint(data):
            for name, neutral in cls.UNSUPPORTED.items():
                if _asks(data.get(name), neutral):
                    raise unsupported(name)
            data = {name: value for name, value in data.items() if name not in cls.UNSUPPORTED}
        model = handler(data)
        if not cls._NAMES.issuperset(data) or not cls.IGNORED.keys().isdisjoint(data):
            ignored = (name for name, value in data.items() if cls._ignores(name, value))
            vars(model)["_ignored"] = list(ignored)
        return model

    @classmethod
    def _ignores(cls, name: str, value: Any) -> bool:
        return _asks(value, cls.IGNORED[name]) if name in cls.IGNORED else name not in cls._NAMES


def ignored_fields(model: Schema) -> Iterator[str]:
    """Dotted paths of what a request asks for and nothing is done about."""
    yield from model._ignored
    for name, value in vars(model).items():
        if value is None or isinstance(value, str):
            continue  # as most are
        if isinstance(value, Schema):
            yield from (f"{name}.{inner}" for inner in ignored_fields(value))
        elif isinstance(value, list):
            for place, part in enumerate(value):
                if isinstance(part, Schema):
                    yield from (f"{name}.{place}.{inner}" for inner in ignored_fields(part))


def unsupported(name: str, what: str = "Unsupported parameter") -> PydanticCustomError:
    """The complaint about a field this server knows of and does not serve."""
    return PydanticCustomError(
        "unsupported_parameter", "{what}: '{param}'.", {"what": what, "param": name}
    )


def disagrees(name: str, why: str) -> PydanticCustomError:
    """The complaint about a field that does not go with another one."""
    return PydanticCustomError("value_error", "{why}", {"param": name, "why": why})


def _asks(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether a field's value asks for something."""
    # 1 == True, which are different values of a field.
    nothing = any(value == other and type(value) is type(other) for other in neutral)
    return value is not None and not nothing
