"""Keys: `Authorization: Bearer KEY` or `x-api-key: KEY`, but for what probes and scrapers ask."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import ApiError
from server.loopback import is_local

OPEN_PATHS = frozenset(
    {"/", "/health", "/health/live", "/health/ready", "/metrics", "/ping", "/version"}
)
ADMIN_PATH = "/v1/adapters"
STATS_PATH = "/v1/stats"


class AuthMiddleware:
    """Refuses requests without one of `keys`; no keys let everybody in.

    Below `ADMIN_PATH` no key opens but `admin_key`, and where there is none, nobody is let in.
    `STATS_PATH` tells how busy others are: it takes the same key, or a request from this machine.
    A path is guarded unless it is listed as open, so a route added later is guarded too. It is
    the path the router sees (`scope["path"]`), never one rebuilt from headers.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str], admin_key: str | None = None) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]
        self._admin = [] if admin_key is None else [_digest(admin_key)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is not None:
            await refusal.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        path: str = scope["path"]
        if path == ADMIN_PATH or path.startswith(f"{ADMIN_PATH}/"):
            return self._admin_refusal(scope, "Adapters cannot be managed over HTTP here")
        if path == STATS_PATH:
            refusal = self._admin_refusal(scope, "These figures are for this machine alone")
            return None if is_local(scope) else refusal
        if not self._digests or path in OPEN_PATHS or _has_one_of(self._digests, scope):
            return None
        return _wrong("API")

    def _admin_refusal(self, scope: Scope, closed: str) -> ApiError | None:
        if not self._admin:
            return _switched_off(closed)
        return None if _has_one_of(self._admin, scope) else _wrong("admin")


def _has_one_of(digests: Sequence[bytes], scope: Scope) -> bool:
    # Every key is compared, so that the time taken does not tell which one came close.
    given = [_digest(key) for key in _keys(Headers(scope=scope))]
    return sum(hmac.compare_digest(key, known) for key in given for known in digests) > 0


def _keys(headers: Headers) -> list[str]:
    """The keys a request brings: OpenAI's header and Anthropic's, each at most once."""
    bearer, plain = headers.getlist("authorization"), headers.getlist("x-api-key")
    scheme, _, key = bearer[0].partition(" ") if len(bearer) == 1 else ("", "", "")
    keys = [key.strip()] if scheme.lower() == "bearer" else []
    return keys + (plain if len(plain) == 1 else [])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _wrong(kind: str) -> ApiError:
    return ApiError(
        401,
        f"Missing or incorrect {kind} key. Send it as 'Authorization: Bearer KEY'.",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )


def _switched_off(closed: str) -> ApiError:
    return ApiError(
        403,
        f"{closed}: the server was started without --admin-key (BITA_ADMIN_KEY).",
        code="admin_disabled",
    )
