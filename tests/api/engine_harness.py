"""A small server on the socket floor, and raw clients that say exactly what a test wants said."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import socketio
from aiohttp import web
from loguru import logger
from socketio.exceptions import ConnectionRefusedError as Refusal

from coach_server.api.engine import CoachSocketServer, EngineOptions, build_socket_server
from coach_server.api.http_runner import HttpRunner

Driver = Literal["lean", "stock"]
ALLOWED = "https://agent.example"
DRIVERS: tuple[Driver, ...] = ("lean", "stock")


def allow(origin: str | None) -> bool:
    return origin in (None, ALLOWED)


async def until(holds: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for a state; its value, or a failure that names nothing but the time."""
    async with asyncio.timeout(seconds):
        while not (value := holds()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return value


@dataclass
class Seen:
    """What the handlers of the small server were called with."""

    connects: list[Any] = field(default_factory=list)
    partings: list[tuple[str, str]] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    gates: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))


@dataclass
class Served:
    server: CoachSocketServer
    port: int
    seen: Seen
    log: list[str]
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"{self.url}/socket.io/?EIO=4"

    @contextlib.asynccontextmanager
    async def client(self, *transports: str, **options: Any) -> AsyncIterator[socketio.AsyncClient]:
        """The python client, connected."""
        client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        await client.connect(
            self.url, auth={"apiKey": "right"}, transports=list(transports or ("websocket",)), **options
        )
        try:
            yield client
        finally:
            if client.transport() == "polling":
                # Its own disconnect waits for the next ping, so the server says good-bye to it.
                await self.server.disconnect(client.get_sid())
            await client.disconnect()

    @contextlib.asynccontextmanager
    async def raw(self, connect: bool = True, **options: Any) -> AsyncIterator[RawWebSocket]:
        """A WebSocket that has read the greeting, and has sent CONNECT unless told otherwise."""
        async with self.http.ws_connect(f"{self.endpoint}&transport=websocket", **options) as ws:
            raw = RawWebSocket(ws)
            raw.greeting = json.loads((await raw.read())[1:])
            if connect:
                await raw.connect()
            yield raw

    async def polling(self, connect: bool = True) -> RawPolling:
        raw = RawPolling(self.http, f"{self.endpoint}&transport=polling")
        await raw.open()
        if connect:
            await raw.post('40{"apiKey":"right"}')
            raw.sid = json.loads((await raw.poll())[0][2:])["sid"]
        return raw


class RawWebSocket:
    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.greeting: dict[str, Any] = {}
        self.sid = ""
        self.pings = 0

    async def connect(self) -> None:
        await self.send('40{"apiKey":"right"}')
        self.sid = json.loads((await self.read())[2:])["sid"]

    async def send(self, data: str | bytes) -> None:
        if isinstance(data, str):
            await self.ws.send_str(data)
        else:
            await self.ws.send_bytes(data)

    async def read(self, seconds: float = 10.0) -> Any:
        """The next frame; ConnectionError once the server has closed."""
        message = await self.ws.receive(seconds)
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            self.pings += message.data == "2"
            return message.data
        raise ConnectionError(str(message.type))

    async def ask(self, event: str, *args: Any, ack: int = 7) -> Any:
        """Send an event and return the ack's arguments."""
        await self.send(f"42{ack}{json.dumps([event, *args])}")
        while not (frame := await self.read()).startswith(f"43{ack}["):
            pass
        return json.loads(frame[2 + len(str(ack)) :])

    async def closed(self, seconds: float = 10.0) -> None:
        """Return when the server has closed this connection."""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                while True:
                    await self.read()


class RawPolling:
    def __init__(self, http: aiohttp.ClientSession, endpoint: str) -> None:
        self.http = http
        self.endpoint = endpoint
        self.sid = ""
        self.greeting: dict[str, Any] = {}

    async def open(self) -> None:
        (packet,) = await self.poll()
        self.greeting = json.loads(packet[1:])
        self.endpoint += f"&sid={self.greeting['sid']}"

    async def poll(self) -> list[str]:
        async with self.http.get(self.endpoint) as response:
            if response.status != 200:
                raise ConnectionError(f"{response.status}")
            return (await response.text()).split("\x1e")

    async def post(self, *packets: str, status: int = 200) -> str:
        async with self.http.post(self.endpoint, data="\x1e".join(packets).encode()) as response:
            assert response.status == status
            return await response.text()


@contextlib.asynccontextmanager
async def serve(driver: Driver, **options: Any) -> AsyncIterator[Served]:
    """The small server, ended with everything that connected to it."""
    seen = Seen()
    options.setdefault("is_origin_allowed", allow)
    server = build_socket_server(EngineOptions(driver=driver, **options))
    register(server, seen)
    app = web.Application()
    server.attach(app)
    runner = HttpRunner(app, clock=server.options.clock, shutdown_timeout=5.0, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    log: list[str] = []
    sink = logger.add(log.append, format="{level} {message} {extra}", level="DEBUG")
    try:
        async with aiohttp.ClientSession() as http:
            yield Served(server, runner.addresses[0][1], seen, log, http)
    finally:
        await runner.cleanup()
        logger.remove(sink)


def register(server: CoachSocketServer, seen: Seen) -> None:
    @server.on("connect")
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        seen.connects.append(auth)
        if not isinstance(auth, dict) or auth.get("apiKey") != "right":
            raise Refusal("Authentication failed")

    @server.on("disconnect")
    async def disconnect(sid: str, reason: str) -> None:
        seen.partings.append((sid, reason))

    @server.on("PING")
    async def ping(sid: str, data: Any = None) -> None:
        await server.emit("PONG", {"type": "PONG", "payload": data}, to=sid)

    @server.on("NOTE")
    async def note(sid: str, data: Any = None) -> dict[str, Any]:
        seen.events.append((sid, data))
        return {"ok": True}

    @server.on("HOLD")
    async def hold(sid: str, gate: Any = None) -> dict[str, Any]:
        seen.events.append((sid, f"hold {gate}"))
        await seen.gates[str(gate)].wait()
        seen.events.append((sid, f"free {gate}"))
        return {"ok": True, "gate": gate}

    @server.on("ECHO")
    async def echo(sid: str, *args: Any) -> tuple[Any, ...]:
        return args

    @server.on("BREAK")
    async def broken(sid: str, data: Any = None) -> None:
        raise RuntimeError("a fault of the application")

    @server.on("NOTE", namespace="/other")
    async def other(sid: str, data: Any = None) -> str:
        seen.events.append((sid, data))
        return "other"
