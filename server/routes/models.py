"""GET /v1/models"""

from __future__ import annotations

from fastapi import APIRouter

from server.errors import model_not_found
from server.schemas.models import Model, ModelList
from server.serving import ServingDep

router = APIRouter(tags=["models"])


@router.get("/v1/models")
async def list_models(serving: ServingDep) -> ModelList:
    """The base model and its adapters."""
    return ModelList(data=serving.models())


@router.get("/v1/models/{model:path}")
async def retrieve_model(model: str, serving: ServingDep) -> Model:
    """One of them; a name may hold slashes."""
    for known in serving.models():
        if known.id == model:
            return known
    raise model_not_found(f"The model '{model}' does not exist.")
