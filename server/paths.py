"""With and without `/v1`: clients and probes disagree about which paths have it."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/v1"
GENERATION_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")


class PathMiddleware:
    """Gives every request the path its route has, before anybody judges it by its path.

    paths: of all routes, such as /v1/models/{id} and /health.
    """

    def __init__(self, app: ASGIApp, paths: Iterable[str]) -> None:
        self._app = app
        parts = [path.split("/") for path in paths]
        self._below = {part[2] for part in parts if part[1] == PREFIX[1:] and len(part) > 2}
        self._above = {part[1] for part in parts} - {PREFIX[1:], ""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = self.canonical(scope["path"])
        await self._app(scope, receive, send)

    def canonical(self, path: str) -> str:
        """`path`, or what it means."""
        first, _, rest = path.removeprefix("/").partition("/")
        if first in self._below and first not in self._above:
            return f"{PREFIX}{path}"
        if first == PREFIX[1:] and rest.partition("/")[0] in self._above - self._below:
            return f"/{rest}"
        return path
