"""A Socket.IO server as a process: `python -m bench._peer lean|stock|plain [deadline]`. Prints its port.

The handlers do what every peer's do: keep the last words of a TRANSCRIPT, answer PING by PONG. `plain` is
python-socketio on aiohttp as it comes; the others are this project's socket floor with either driver.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import socketio
import uvloop
from aiohttp import web
from loguru import logger

from coach_server.api.engine import EngineOptions, build_socket_server
from coach_server.api.http_runner import HttpRunner
from coach_server.clock import SystemClock


def build(kind: str, connect_deadline_s: float = 8.0) -> Any:
    if kind == "plain":
        return socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins="*")
    return build_socket_server(
        EngineOptions(
            is_origin_allowed=lambda origin: True,
            driver="lean" if kind == "lean" else "stock",
            max_sockets_per_ip=10**6,
            connect_deadline_s=connect_deadline_s,
        )
    )


def register(server: Any) -> None:
    last: dict[str, str] = {}

    @server.on("connect")
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None: ...

    @server.on("disconnect")
    async def disconnect(sid: str, reason: str) -> None:
        last.pop(sid, None)

    @server.on("TRANSCRIPT")
    async def transcript(sid: str, data: Any = None) -> None:
        if isinstance(data, dict) and isinstance(text := data.get("text"), str):
            last[sid] = text

    @server.on("PING")
    async def ping(sid: str, data: Any = None) -> None:
        await server.emit("PONG", {"type": "PONG", "payload": {"timestamp": 1766750000000}}, to=sid)

    @server.on("ASK_MUCH")
    async def ask_much(sid: str, count: Any = None) -> None:
        for _ in range(count):
            await server.emit("PONG", {"type": "PONG", "payload": {"text": "x" * 200}}, to=sid)


async def serve(kind: str, connect_deadline_s: float = 8.0) -> None:
    server = build(kind, connect_deadline_s)
    register(server)
    app = web.Application()
    server.attach(app)
    if kind == "plain":
        runner = web.AppRunner(app, access_log=None)
    else:
        runner = HttpRunner(app, clock=SystemClock(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, format="{level} {message} {extra}")
    uvloop.run(serve(sys.argv[1], *map(float, sys.argv[2:])))
