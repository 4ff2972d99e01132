"""The HTTP runner: aiohttp's own, hardened against requests that never end and requests that are none.

aiohttp logs a traceback for each malformed request, with what the client sent, and tells the client the words
of its parser. Here it is one throttled line, and a short answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from coach_server.api.engine_log import LibraryLog, Throttle
from coach_server.clock import Clock

# Longer than the idle time-out of a load balancer (60 s), which must be the one that closes an idle
# connection: otherwise it may send a request into a connection that is just being closed.
KEEPALIVE_S = 75.0
HEAD_DEADLINE_S = 15.0
LOOK_EVERY_S = 2.0


class HttpRunner(web.AppRunner):
    """`web.AppRunner` with a deadline for the first request of a connection."""

    __slots__ = ("_clock", "_guard", "_head_deadline_s", "_throttle")

    def __init__(
        self, app: web.Application, *, clock: Clock, head_deadline_s: float = HEAD_DEADLINE_S, **options: Any
    ) -> None:
        self._clock = clock
        self._throttle = Throttle(clock)
        self._head_deadline_s = head_deadline_s
        self._guard: asyncio.Task[None] | None = None
        defaults = {"keepalive_timeout": KEEPALIVE_S, "logger": LibraryLog(self._throttle)}
        super().__init__(app, **{**defaults, **options})

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            throttle=self._throttle,
            **made._kwargs,
        )
        self._guard = asyncio.get_running_loop().create_task(
            self._watch(server), name="half-open connections"
        )
        return server

    async def _watch(self, server: _Server) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + LOOK_EVERY_S)
            server.close_half_open(self._clock.now(), self._head_deadline_s)

    async def cleanup(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
            self._guard = None
        await super().cleanup()


class _Server(web.Server):
    """Knows which connections have not yet sent one whole request head, and since when it knows them."""

    def __init__(self, handler: Any, *, request_factory: Any, throttle: Throttle, **options: Any) -> None:
        super().__init__(handler, request_factory=self._note_and_make, **options)
        self.throttle = throttle
        self._make = request_factory
        self._served: set[RequestHandler] = set()
        self._since: dict[RequestHandler, float] = {}

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def _note_and_make(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
        self._served.add(protocol)
        return self._make(message, payload, protocol, writer, task)

    def close_half_open(self, now: float, deadline_s: float) -> None:
        connections = set(self.connections)
        self._served &= connections
        self._since = {one: self._since.get(one, now) for one in connections - self._served}
        for connection, since in self._since.items():
            if now - since >= deadline_s:
                connection.force_close()


class _Connection(RequestHandler):
    """Answers a request that is none without the parser's words."""

    __slots__ = ("_throttle",)

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._throttle = server.throttle

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        if status < 500:
            self._throttle.refused("malformed HTTP request")
        else:
            self._throttle.failed("request handler")
        text = "Bad request" if status < 500 else "Internal server error"
        response = web.Response(status=status, text=text)
        response.force_close()
        return response
