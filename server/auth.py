"""API keys: `Authorization: Bearer KEY` on everything but what probes and scrapers ask."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import ApiError

OPEN_PATHS = frozenset(
    {"/health", "/health/live", "/health/ready", "/metrics", "/ping", "/version"}
)


class AuthMiddleware:
    """Refuses requests without one of `keys`; no keys let everybody in.

    A path is guarded unless it is listed as open, so a route added later is guarded too. It is
    the path the router sees (`scope["path"]`), never one rebuilt from headers.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._allowed(scope):
            await _refusal().response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        if not self._digests or scope["path"] in OPEN_PATHS:
            return True
        given = Headers(scope=scope).getlist("authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            return False
        digest = _digest(key.strip())
        # Every key is compared, so that the time taken does not tell which one came close.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _refusal() -> ApiError:
    return ApiError(
        401,
        "Missing or incorrect API key. Send it as 'Authorization: Bearer KEY'.",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )
