"""Credentials of a request, wherever they travel: handshake, header, query. One place for all three wires."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from coach_server.errors import Unauthorized
from coach_server.services.access import Gate, Principal
from coach_server.settings import Settings

_EXTENSION = re.compile(r"chrome-extension://[a-p]{32}")
_LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")


class Origins:
    """Which origins may connect: exact matches only (live-coach.md §12.13)."""

    def __init__(self, settings: Settings) -> None:
        self._exact = frozenset(settings.cors_origin)
        self._any = "*" in self._exact and not settings.is_production
        self._open = not self._exact and not settings.is_production
        own = (f"http://localhost:{settings.port}", f"http://127.0.0.1:{settings.port}")
        self._own = frozenset(own)

    def allows(self, origin: str | None) -> bool:
        """A request without an Origin does not come from a browser's page."""
        if origin is None or self._any or origin in self._exact or origin in self._own:
            return True
        return self._open and bool(_EXTENSION.fullmatch(origin) or _LOCAL.fullmatch(origin))


def handshake_principal(gate: Gate, auth: object, environ: Mapping[str, Any]) -> Principal:
    """Socket.IO: `auth.token`, `auth.apiKey`, else the header x-api-key or Authorization."""
    if isinstance(auth, Mapping):
        if auth.get("token") is not None:
            return gate.by_token(auth["token"])
        if auth.get("apiKey") is not None:
            return gate.by_key(auth["apiKey"])
    return header_principal(gate, environ.get("HTTP_X_API_KEY"), environ.get("HTTP_AUTHORIZATION"))


def header_principal(gate: Gate, api_key: str | None, authorization: str | None) -> Principal:
    """x-api-key: an API key. Authorization: Bearer with a user token or an API key."""
    if api_key is not None:
        return gate.by_key(api_key)
    scheme, _, credential = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise Unauthorized()
    credential = credential.strip()
    return gate.by_token(credential) if credential.count(".") == 2 else gate.by_key(credential)


def request_principal(gate: Gate, request: web.Request) -> Principal:
    return header_principal(gate, request.headers.get("x-api-key"), request.headers.get("Authorization"))
