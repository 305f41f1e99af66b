"""/v1/adapters: what may be asked, and what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.config import ADAPTER_NAME
from server.schemas.base import Schema


class LoadAdapterRequest(Schema):
    """name: what requests will call it. path: its folder, below the server's adapter folder."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "fast", "path": "fast-v2"}}
    )

    name: Annotated[str, Field(pattern=f"^{ADAPTER_NAME}$")]
    path: Annotated[str, Field(min_length=1, max_length=4096)]


class Adapter(BaseModel):
    """A loaded adapter. default: whether requests for the base model draft with it."""

    id: str
    object: Literal["adapter"] = "adapter"
    path: str
    default: bool


class AdapterList(BaseModel):
    """All of them, the default first."""

    object: Literal["list"] = "list"
    data: list[Adapter]


class AdapterDeleted(BaseModel):
    """An adapter that takes no more requests."""

    id: str
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True
