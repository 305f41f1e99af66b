"""The tables of fields in docs/api.md, as the schemas say.

    python -m tests.packaging.api_tables

writes them into the page, between the comments that name their model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from server.schemas.base import Schema
from server.schemas.chat import ChatCompletionRequest
from server.schemas.common import NO_EFFECT
from server.schemas.completions import CompletionRequest
from server.schemas.tokens import DetokenizeRequest, TokenizeRequest

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
MODELS = (ChatCompletionRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest)
GENERATES = {ChatCompletionRequest, CompletionRequest}
BLOCK = re.compile(r"<!-- fields of (\w+) -->\n.*?<!-- end -->\n", re.DOTALL)


def table(model: type[Schema]) -> str:
    """One row a field, then what is taken without effect and what is refused."""
    generates = model in GENERATES
    head = ["field", "what it does", *(["speculation", "streaming"] if generates else [])]
    rows = [head, ["---"] * len(head)]
    without_effect = []
    for name, field in model.model_fields.items():
        if field.description == NO_EFFECT:
            without_effect.append(name)
            continue
        extra: Any = field.json_schema_extra or {}
        support = ["yes", "yes" if extra.get("x-streaming", True) else "refused"]
        text = (field.description or "").rstrip(".")
        rows.append([f"`{name}`", text, *(support if generates else [])])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if without_effect:
        lines += ["", f"Taken without effect: {_names(without_effect)}."]
    if model.UNSUPPORTED:
        lines += ["", f"Refused: {_names(model.UNSUPPORTED)}."]
    return "\n".join(_wrapped(line) for line in lines) + "\n"


def filled(page: str) -> str:
    """The page with its tables as the schemas say."""
    models = {model.__name__: model for model in MODELS}

    def block(match: re.Match[str]) -> str:
        return f"<!-- fields of {match[1]} -->\n{table(models[match[1]])}<!-- end -->\n"

    return BLOCK.sub(block, page)


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _wrapped(line: str) -> str:
    """Prose at 100 characters; a table's row is one line."""
    lines, here = [], ""
    for word in line.split(" ") if not line.startswith("|") else [line]:
        if here and len(here) + 1 + len(word) > 100:
            lines.append(here)
            here = word
        else:
            here = f"{here} {word}" if here else word
    return "\n".join([*lines, here])


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
