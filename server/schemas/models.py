"""GET /v1/models: what is answered."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Model(BaseModel):
    """A name to put into a request's `model`.

    root: the base model's name. parent: the same for an adapter, null for the base itself.
    max_model_len: tokens of prompt and answer together.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "bita-serve"
    root: str
    parent: str | None = None
    max_model_len: int


class ModelList(BaseModel):
    """All of them, the base model first."""

    object: Literal["list"] = "list"
    data: list[Model]
