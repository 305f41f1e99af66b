"""Objects that tell by their `type` what they are."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator

from server.schemas.base import unsupported


def of_kinds(*kinds: str) -> BeforeValidator:
    """Refuses objects of other kinds by name, which a union's members would only find strange."""

    def check(data: Any) -> Any:
        kind = data.get("type") if isinstance(data, dict) else None
        if isinstance(kind, str) and kind not in kinds:
            raise unsupported("type", f"'{kind}' is not supported here")
        return data

    return BeforeValidator(check)


def kind_of(item: Any) -> Any:
    """The `type` of an object, parsed or not; None where it does not say."""
    return item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
