"""/v1/adapters: adapters come and go while the server runs.

Behind the admin key: `server.auth` guards everything below `ADMIN_PATH`.
"""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter

from engine.errors import AdapterRefused, UnknownAdapter
from server import adapter_dir
from server.auth import ADMIN_PATH
from server.body import JsonRoute
from server.errors import ApiError, invalid, model_not_found
from server.schemas.adapters import Adapter, AdapterDeleted, AdapterList, LoadAdapterRequest
from server.serving import Serving, ServingDep

router = APIRouter(prefix=ADMIN_PATH, tags=["adapters"], route_class=JsonRoute)

log = logging.getLogger("bita.server")


@router.get("")
async def list_adapters(serving: ServingDep) -> AdapterList:
    """What is loaded now."""
    loaded = serving.client.info.adapters.items()
    return AdapterList(data=[_adapter(serving, name, folder) for name, folder in loaded])


@router.post("")
async def load_adapter(body: LoadAdapterRequest, serving: ServingDep) -> Adapter:
    """Load an adapter; requests find it as soon as this is answered."""
    root = serving.config.adapter_dir
    if root is None:
        raise ApiError(
            403,
            "No adapters can be loaded: the server was started without --adapter-dir "
            "(BITA_ADAPTER_DIR).",
            code="adapter_dir_unset",
        )
    serving.check_ready()
    if body.name in serving.config.model_names:
        raise invalid(f"Invalid 'name': '{body.name}' is the model's own name.", "name")
    folder = await asyncio.to_thread(adapter_dir.resolve, root, body.path)
    try:
        await serving.client.load_adapter(body.name, str(folder))
    except AdapterRefused as error:
        # Where the server keeps its files is nobody's business.
        raise AdapterRefused(str(error).replace(str(folder), body.path), error.field) from error
    log.info("adapter %s loaded from %r", body.name, body.path)
    return _adapter(serving, body.name, str(folder))


@router.delete("/{name}")
async def unload_adapter(name: str, serving: ServingDep) -> AdapterDeleted:
    """Unload an adapter: new requests do not find it, running ones end with it."""
    serving.check_ready()
    try:
        await serving.client.unload_adapter(name)
    except UnknownAdapter as error:
        raise model_not_found(f"No adapter '{name}' is loaded.", "name") from error
    log.info("adapter %s unloaded", name)
    return AdapterDeleted(id=name)


def _adapter(serving: Serving, name: str, folder: str) -> Adapter:
    default = next(iter(serving.client.info.adapters), None)
    path = adapter_dir.shown(serving.config.adapter_dir, folder)
    return Adapter(id=name, path=path, default=name == default)
