"""The HTTP runner: aiohttp's own, which also closes connections that never finish a first request head."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from coach_server.clock import Clock

# Longer than the idle time-out of a load balancer (60 s), which must be the one that closes an idle
# connection: otherwise it may send a request into a connection that is just being closed.
KEEPALIVE_S = 75.0
HEAD_DEADLINE_S = 15.0
LOOK_EVERY_S = 2.0


class HttpRunner(web.AppRunner):
    """`web.AppRunner` with a deadline for the first request of a connection."""

    __slots__ = ("_clock", "_guard", "_head_deadline_s", "_served", "_since")

    def __init__(
        self, app: web.Application, *, clock: Clock, head_deadline_s: float = HEAD_DEADLINE_S, **options: Any
    ) -> None:
        super().__init__(app, **{"keepalive_timeout": KEEPALIVE_S, **options})
        self._clock = clock
        self._head_deadline_s = head_deadline_s
        # Connections that have sent one whole request head; the others, and since when they are known.
        self._served: set[RequestHandler] = set()
        self._since: dict[RequestHandler, float] = {}
        self._guard: asyncio.Task[None] | None = None

    async def setup(self) -> None:
        await super().setup()
        server = self.server
        assert server is not None
        make_request = server.request_factory

        def note_and_make(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
            self._served.add(protocol)
            return make_request(message, payload, protocol, writer, task)

        server.request_factory = note_and_make
        self._guard = asyncio.get_running_loop().create_task(
            self._watch(server), name="half-open connections"
        )

    async def _watch(self, server: web.Server) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + LOOK_EVERY_S)
            now = self._clock.now()
            connections = set(server.connections)
            self._served &= connections
            self._since = {
                connection: self._since.get(connection, now) for connection in connections - self._served
            }
            for connection, since in self._since.items():
                if now - since >= self._head_deadline_s:
                    connection.force_close()

    async def cleanup(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
            self._guard = None
        await super().cleanup()
