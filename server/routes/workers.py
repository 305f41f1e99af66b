"""What SGLang's router asks a server behind it, under its paths of today and of before."""

from __future__ import annotations

import asyncio
import time
import uuid
from importlib.metadata import version

from fastapi import APIRouter

from engine.request import Request as EngineRequest
from engine.request import SamplingParams
from server.errors import unavailable
from server.schemas.workers import Generated, ModelFacts, ServerFacts
from server.serving import ServingDep

router = APIRouter(tags=["operations"])

GENERATE_SECONDS = 20.0


@router.get("/model_info")
@router.get("/get_model_info")
async def get_model_info(serving: ServingDep) -> ModelFacts:
    """Which model is served."""
    serving.check_ready()
    name = serving.config.model_names[0]
    return ModelFacts(
        model_path=name, served_model_name=name, architectures=[serving.client.info.architecture]
    )


@router.get("/server_info")
@router.get("/get_server_info")
async def get_server_info(serving: ServingDep) -> ServerFacts:
    """How much it takes on."""
    serving.check_ready()
    info, name = serving.client.info, serving.config.model_names[0]
    return ServerFacts(
        model_path=name,
        served_model_name=name,
        version=version("bita-serve"),
        context_length=info.max_model_len,
        max_running_requests=serving.config.engine.max_num_seqs,
        max_total_num_tokens=info.num_blocks * info.block_size,
        page_size=info.block_size,
        dtype=info.dtype,
        device=info.device,
        tp_size=serving.config.engine.tensor_parallel_size,
    )


@router.get("/health_generate")
async def get_health_generate(serving: ServingDep) -> Generated:
    """200 once a token was generated, 503 where none came in `GENERATE_SECONDS`.

    It waits for its turn like every request, so a full server may fail it; metrics leave it out.
    """
    serving.check_ready()
    began = time.monotonic()
    request = EngineRequest(
        f"health-{uuid.uuid4().hex}",
        [0],
        SamplingParams(temperature=0, max_tokens=1),
        speculation=False,
    )
    try:
        async with asyncio.timeout(GENERATE_SECONDS):
            async for _ in serving.client.generate(request):
                pass
    except TimeoutError as error:
        raise unavailable("No token was generated in time.") from error
    return Generated(seconds=round(time.monotonic() - began, 3))
