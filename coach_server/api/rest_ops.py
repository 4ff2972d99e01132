"""Operation: health, readiness, figures, user tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import Field

from coach_server.api import wire, wire_out
from coach_server.api.answers import json_body, json_response
from coach_server.api.http import Doc, Rest
from coach_server.clock import Clock, millis
from coach_server.services.access import DEFAULT_TTL_S, MAX_TTL_S, Gate, Principal, Role
from coach_server.services.calls import Calls


class TokenWish(wire.Inbound):
    """Whom the token is for."""

    userId: wire.Id
    role: Literal[Role.SERVICE, Role.AGENT, Role.TRAINEE, Role.MANAGER, Role.ADMIN]
    teamId: wire.Id | None = None
    """A manager sees the calls of this team."""
    ttlSeconds: int = Field(DEFAULT_TTL_S, ge=1, le=MAX_TTL_S)


class RestOps:
    def __init__(
        self,
        *,
        calls: Calls,
        gate: Gate,
        clock: Clock,
        healthy: Callable[[], Awaitable[bool]],
        draining: Callable[[], bool],
        registry: CollectorRegistry,
    ) -> None:
        self._calls = calls
        self._gate = gate
        self._clock = clock
        self._healthy = healthy
        self._draining = draining
        self._registry = registry

    def register(self, rest: Rest) -> None:
        backends = (Role.SERVICE, Role.ADMIN)
        token = Doc("A short-lived token for a user.", wire_out.TokenAnswer, body=TokenWish)
        rest.open("/health", self.health, Doc("Whether the process lives.", wire_out.Health, also=(503,)))
        rest.open(
            "/ready", self.ready, Doc("Whether new clients should come here.", wire_out.Ready, also=(503,))
        )
        rest.add("GET", "/metrics", self.metrics, Doc("Prometheus figures.", "text/plain"), roles=backends)
        rest.add("POST", "/api/auth/token", self.token, token, roles=backends)

    async def health(self, request: web.Request) -> web.Response:
        """Whether the process lives: no database, no vendor (a load balancer must not replace every instance
        because the database blinked)."""
        draining = self._draining()
        return json_response(
            {
                "status": "draining" if draining else "healthy",
                "timestamp": millis(self._clock.now()),
                "activeConversations": self._calls.active,
            },
            status=503 if draining else 200,
        )

    async def ready(self, request: web.Request) -> web.Response:
        """Whether new clients should come here: 503 while draining or without the database."""
        if self._draining():
            return json_response({"status": "draining"}, status=503)
        if not await self._healthy():
            return json_response({"status": "unavailable"}, status=503)
        return json_response({"status": "ready"})

    async def metrics(self, request: web.Request, principal: Principal) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def token(self, request: web.Request, principal: Principal) -> web.Response:
        wish = wire.parse(TokenWish, await json_body(request))
        token, expires_at = self._gate.issue(
            principal, user_id=wish.userId, role=wish.role, team_id=wish.teamId, ttl_s=wish.ttlSeconds
        )
        return json_response({"token": token, "expiresAt": millis(expires_at)})
