"""Credentials of a request, wherever they travel: handshake, header, query. One place for all three wires."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from coach_server.errors import Unauthorized
from coach_server.services.access import Gate, Principal
from coach_server.settings import Settings

_EXTENSION = re.compile(r"chrome-extension://[a-p]{32}")
_LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.I)
_PROXIES_SAY = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")


class Origins:
    """Which origins may connect: exact matches only (live-coach.md §12.13)."""

    def __init__(self, settings: Settings) -> None:
        self._exact = frozenset(settings.cors_origin)
        self._any = "*" in self._exact and not settings.is_production
        self._open = not self._exact and not settings.is_production
        hosts = () if settings.is_production else ("localhost", "127.0.0.1")
        self._own = frozenset(f"http://{host}:{settings.port}" for host in hosts)

    def allows(self, origin: str | None) -> bool:
        """A request without an Origin does not come from a browser's page."""
        if origin is None or self._any or origin in self._exact or origin in self._own:
            return True
        return self._open and bool(_EXTENSION.fullmatch(origin) or _LOCAL.fullmatch(origin))


def handshake_principal(
    gate: Gate, auth: object, environ: Mapping[str, Any], *, guests: bool = False
) -> Principal:
    """Socket.IO: `auth.token` (a user's), `auth.joinToken` (of a practice session), `auth.apiKey`, else the
    header x-api-key or Authorization. With `guests` a handshake without any of these is let in as one."""
    if isinstance(auth, Mapping):
        for name in ("token", "joinToken"):
            if auth.get(name) is not None:
                return gate.by_token(auth[name])
        if auth.get("apiKey") is not None:
            return gate.by_key(auth["apiKey"])
    api_key, authorization = environ.get("HTTP_X_API_KEY"), environ.get("HTTP_AUTHORIZATION")
    if guests and api_key is None and authorization is None:
        return gate.guest()
    return header_principal(gate, api_key, authorization)


def header_principal(gate: Gate, api_key: str | None, authorization: str | None) -> Principal:
    """x-api-key: an API key. Authorization: Bearer with a user token or an API key."""
    if api_key is not None:
        return gate.by_key(api_key)
    scheme, _, credential = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise Unauthorized()
    credential = credential.strip()
    return gate.by_token(credential) if credential.count(".") == 2 else gate.by_key(credential)


def request_principal(gate: Gate, request: web.Request, *, guests: bool = False) -> Principal:
    """Of the headers; with `guests` a request without credentials is let in as one."""
    api_key, authorization = request.headers.get("x-api-key"), request.headers.get("Authorization")
    if guests and api_key is None and authorization is None:
        return gate.guest()
    return header_principal(gate, api_key, authorization)


def is_at_this_machine(request: web.Request) -> bool:
    """Whether a person opens this page in a browser on the server's own machine.

    Not when a proxy stands between, not under a foreign name (DNS rebinding), and not when a script of
    another page fetches it: such a request has an Origin or is not for a document.
    """
    headers = request.headers
    if any(name in headers for name in _PROXIES_SAY) or "Origin" in headers:
        return False
    if headers.get("Sec-Fetch-Dest", "document") != "document":
        return False
    return bool(_LOCAL_HOST.fullmatch(headers.get("Host", ""))) and _is_loopback(request.remote)


def _is_loopback(address: str | None) -> bool:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
