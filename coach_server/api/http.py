"""HTTP as a whole: routes with the access they need, errors, CORS, headers of trust.md G26."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

from coach_server.api import faults
from coach_server.api.answers import json_response
from coach_server.api.auth import Origins, request_principal
from coach_server.errors import CoachError, Unauthorized
from coach_server.services.access import PERSONAL, Gate, Principal, Role

RestHandler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]
OpenHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
_HEADERS = "Content-Type, Authorization, X-Requested-With, Accept, Origin, x-api-key"
_PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
}
# Routes whose clients read `error` as the HTTP phrase and `message` as the sentence (live-coach.md §8).
_PHRASED = ("/api/transcribe/", "/api/auth/deepgram-token")
_ANY_ROLE = PERSONAL
# Whoever may take part in a practice session: also with its join token, or as a guest where that is open.
PRACTISING = tuple(Role)


@dataclass(frozen=True, slots=True)
class Doc:
    """What the documents say of a route. `answer` is a model, or the media type of an answer that is not
    JSON. `refusals`: statuses beyond those that follow from its access, body and path. `also`: further
    statuses that carry `answer`."""

    summary: str
    answer: type[BaseModel] | str
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    refusals: tuple[int, ...] = ()
    also: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A route that asks for credentials. `roles`: who may call it; refused before the handler runs."""

    method: str
    path: str
    handler: RestHandler
    doc: Doc
    roles: tuple[Role, ...] = _ANY_ROLE

    @property
    def is_phrased(self) -> bool:
        return self.path.startswith(_PHRASED)

    @property
    def is_for_all(self) -> bool:
        return self.roles in (_ANY_ROLE, PRACTISING)

    @property
    def is_for_guests(self) -> bool:
        return Role.GUEST in self.roles


@dataclass(frozen=True, slots=True)
class OpenRoute:
    """A GET route that anyone may ask."""

    path: str
    handler: OpenHandler
    doc: Doc


@dataclass(slots=True)
class Rest:
    """Collects routes and guards them. `is_open`: practising needs no credentials here."""

    gate: Gate
    is_open: bool = False
    routes: list[Route] = field(default_factory=list)
    open_routes: list[OpenRoute] = field(default_factory=list)

    def add(
        self,
        method: str,
        path: str,
        handler: RestHandler,
        doc: Doc,
        *,
        roles: tuple[Role, ...] = _ANY_ROLE,
    ) -> None:
        self.routes.append(Route(method, path, handler, doc, roles))

    def open(self, path: str, handler: OpenHandler, doc: Doc) -> None:
        self.open_routes.append(OpenRoute(path, handler, doc))

    def mount(self, app: web.Application) -> None:
        for route in self.routes:
            app.router.add_route(route.method, route.path, self._guarded(route))
        for public in self.open_routes:
            app.router.add_get(public.path, public.handler)

    def _guarded(self, route: Route) -> OpenHandler:
        async def handle(request: web.Request) -> web.StreamResponse:
            guests = self.is_open and route.is_for_guests
            principal = request_principal(self.gate, request, guests=guests)
            principal.require(*route.roles)
            return await route.handler(request, principal)

        return handle


def error_middleware() -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def answer(request: web.Request, handler: OpenHandler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400 or not request.path.startswith("/api/"):
                raise
            refusal = _error(request, faults.to_coach_error(error))
            if "Allow" in error.headers:
                refusal.headers["Allow"] = error.headers["Allow"]
            return refusal
        except Exception as error:
            return _error(request, faults.to_coach_error(error))

    return answer


def _error(request: web.Request, error: CoachError) -> web.Response:
    if not request.path.startswith(_PHRASED):
        return faults.http_answer(error)
    message = "Invalid API key" if isinstance(error, Unauthorized) else error.message
    phrase = _PHRASES.get(
        error.status, "Service Unavailable" if error.status == 503 else "Internal Server Error"
    )
    body = {"error": phrase, "message": message, "code": error.code}
    if error.field:
        body["field"] = error.field
    return json_response(body, status=error.status)


async def hide_library(_request: web.Request, response: web.StreamResponse) -> None:
    """Signal `on_response_prepare`: otherwise every answer names the HTTP library and its version."""
    response.headers["Server"] = "coach-server"


def security_middleware(
    origins: Origins, *, production: bool, trusts_proxy: bool
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """CORS for exact origins, HTTPS in production, and headers that keep browsers from guessing."""

    def dress(response: web.StreamResponse, origin: str | None, forwarded: str) -> None:
        if response.prepared:
            return
        _head(response, origin if origin and origins.allows(origin) else None)
        if production and forwarded == "https":
            response.headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"

    @web.middleware
    async def guard(request: web.Request, handler: OpenHandler) -> web.StreamResponse:
        forwarded = request.headers.get("X-Forwarded-Proto", "") if trusts_proxy else ""
        if production and forwarded == "http" and request.path not in ("/health", "/ready"):
            raise web.HTTPPermanentRedirect(f"https://{request.host}{request.path_qs}")
        if request.path.startswith("/socket.io"):
            return await handler(request)
        origin = request.headers.get("Origin")
        if request.method == "OPTIONS" and origin is not None:
            response: web.StreamResponse = web.Response(status=204 if origins.allows(origin) else 403)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:  # an answer too, only raised
                dress(error, origin, forwarded)
                raise
        dress(response, origin, forwarded)
        return response

    return guard


def _head(response: web.StreamResponse, origin: str | None) -> None:
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    headers.add("Vary", "Origin")
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
        headers["Access-Control-Allow-Methods"] = _METHODS
        headers["Access-Control-Allow-Headers"] = _HEADERS
        headers["Access-Control-Max-Age"] = "600"
