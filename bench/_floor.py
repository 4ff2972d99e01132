"""This server's socket floor alone: the lean driver, an ack for each event, nothing behind it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import uvloop
from aiohttp import web

from coach_server.api.engine import EngineOptions, build_socket_server
from coach_server.api.http_runner import HttpRunner
from coach_server.clock import SystemClock


async def serve() -> None:
    server = build_socket_server(
        EngineOptions(is_origin_allowed=lambda origin: True, max_sockets_per_ip=10**6)
    )

    async def connect(sid: str, environ: dict[str, Any], auth: object = None) -> None: ...

    async def start(sid: str, data: object = None) -> dict[str, Any]:
        return {"ok": True, "conversationId": sid}

    async def transcript(sid: str, data: object = None) -> dict[str, Any]:
        return {"ok": True, "stored": False}

    server.on("connect", connect)
    server.on("START_CONVERSATION", start)
    server.on("TRANSCRIPT", transcript)
    app = web.Application()

    async def ready(_: web.Request) -> web.Response:
        return web.Response()

    app.router.add_get("/ready", ready)
    server.attach(app)
    runner = HttpRunner(app, clock=SystemClock(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"]), backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
