"""Engine.IO for Coach Server: who may connect, how many, one heartbeat for all, and what tasks there are.

Handshake, long polling and the upgrade stay with python-engineio, whose server this extends.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import engineio
from aiohttp import web
from engineio import packet as eio
from engineio.async_drivers import aiohttp as library_driver

from coach_server.api.engine_lean import LeanSocket
from coach_server.api.engine_log import LibraryLog, Throttle
from coach_server.api.engine_options import MAX_IN_FLIGHT, MAX_PAYLOAD_BYTES, EngineOptions
from coach_server.api.engine_socket import CLOSE_REASON, StockSocket, WebSocket

if TYPE_CHECKING:
    from coach_server.api.engine import CoachSocketServer


class CoachEngine(engineio.AsyncServer):  # type: ignore[misc]  # python-engineio has no types
    """The Engine.IO server: who may connect, how many, and one heartbeat for all."""

    socketio: CoachSocketServer
    service_task_handle: asyncio.Task[None] | None

    def __init__(self, *, options: EngineOptions, throttle: Throttle, **library: Any) -> None:
        self.options = options
        self.throttle = throttle
        library.update(
            async_mode="aiohttp",
            ping_interval=options.ping_interval_s,
            ping_timeout=options.ping_timeout_s,
            max_http_buffer_size=MAX_PAYLOAD_BYTES,
            http_compression=False,
            cors_allowed_origins=self._library_origin_check,
            logger=LibraryLog(throttle),
        )
        super().__init__(**library)
        # The library's own dictionary is shared by every server of the process, so ours is a copy.
        self._async = {
            **library_driver._async,
            "websocket": WebSocket,
            "translate_request": self._environ,
        }
        self._socket_class = LeanSocket if options.driver == "lean" else StockSocket
        self._per_address: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._agenda: list[tuple[float, int, str, str]] = []
        self._agenda_order = itertools.count()
        self.draining = False

    # Requests.

    async def handle_request(self, request: web.Request) -> Any:
        if not self.allows(request.headers.get("Origin")):
            self.throttle.refused("origin not allowed")
            return web.Response(status=403, text="Origin not allowed")
        try:
            return await super().handle_request(request)
        except ConnectionError:
            raise
        except web.HTTPException as refusal:
            return web.Response(status=refusal.status, text="Bad request")
        except Exception:
            self.throttle.failed("socket request")
            return web.Response(status=400, text="Bad request")

    def allows(self, origin: str | None) -> bool:
        try:
            return self.options.is_origin_allowed(origin)
        except Exception:
            self.throttle.failed("origin check")
            return False

    def _library_origin_check(self, origin: str | None, _environ: dict[str, Any]) -> bool:
        return self.allows(origin)

    def _cors_headers(self, environ: dict[str, Any]) -> list[tuple[str, str]]:
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not self.allows(origin):
            return [("Vary", "Origin")]
        headers = [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
        ]
        if environ["REQUEST_METHOD"] == "OPTIONS":
            headers.append(("Access-Control-Allow-Methods", "OPTIONS, GET, POST"))
            if wanted := environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"):
                headers.append(("Access-Control-Allow-Headers", wanted[:500]))
        return headers

    def _environ(self, request: web.Request) -> dict[str, Any]:
        # Kept as long as the connection, so it holds what handlers and the library read, under shared names.
        environ: dict[str, Any] = {
            "aiohttp.request": request,
            "REQUEST_METHOD": request.method,
            "QUERY_STRING": request.query_string,
            "PATH_INFO": request.path,
            "REMOTE_ADDR": self.address_of(request),
            "wsgi.url_scheme": request.scheme,
        }
        for name, value in request.headers.items():
            key = _environ_name(name)
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def address_of(self, request: web.Request) -> str:
        """The client's address: the entry that the outermost trusted proxy added, else the connection's."""
        if self.options.trust_proxy:
            header = ",".join(request.headers.getall("X-Forwarded-For", []))
            hops = [hop.strip()[:64] for hop in header.split(",") if hop.strip()]
            if hops:
                return hops[-min(int(self.options.trust_proxy), len(hops))]
        return request.remote or "unknown"

    def bad_request(self, message: str, status: str = "400 BAD REQUEST") -> dict[str, Any]:
        return {"status": status, "headers": [("Content-Type", "text/plain")], "response": message.encode()}

    def _log_error_once(self, _message: str, message_key: str) -> None:
        self.throttle.refused(message_key)

    # Connections.

    async def _handle_connect(
        self, environ: dict[str, Any], transport: str, jsonp_index: int | None = None
    ) -> Any:
        address = environ["REMOTE_ADDR"]
        if self.draining:
            return self.bad_request("Draining", "503 SERVICE UNAVAILABLE")
        if self._per_address[address] >= self.options.max_sockets_per_ip:
            self.throttle.refused("too many sockets from one address")
            return self.bad_request("Too many connections", "429 TOO MANY REQUESTS")
        socket = self._open(address)
        await socket.greet(self._greeting(socket.sid, transport), transport)
        await self.socketio.entered(socket.sid, environ)
        if transport == "polling":
            socket.connected = True
            return self._ok(await socket.poll(), jsonp_index=jsonp_index)
        try:
            # The library's GET would answer a handshake without `Connection: Upgrade` by polling.
            return await socket._upgrade_websocket(environ)
        finally:
            if not socket.closed:
                await socket.close(wait=False, abort=True, reason=CLOSE_REASON.TRANSPORT_CLOSE)

    def _open(self, address: str) -> StockSocket:
        if self.service_task_handle is None:
            self.service_task_handle = asyncio.get_running_loop().create_task(
                self._service_task(), name="heartbeat of the sockets"
            )
        socket = self._socket_class(self, self.generate_id(), address)
        self.sockets[socket.sid] = socket
        self._per_address[address] += 1
        self.at(self.options.ping_interval_s, "ping", socket.sid)
        self.await_connect(socket)
        return socket

    def _greeting(self, sid: str, transport: str) -> eio.Packet:
        return eio.Packet(
            eio.OPEN,
            {
                "sid": sid,
                "upgrades": self._upgrades(sid, transport),
                "pingInterval": int(self.options.ping_interval_s * 1000),
                "pingTimeout": int(self.options.ping_timeout_s * 1000),
                "maxPayload": MAX_PAYLOAD_BYTES,
            },
        )

    def await_connect(self, socket: StockSocket) -> None:
        """Close this socket unless it is in a namespace when the deadline comes."""
        self.at(self.options.connect_deadline_s, "connect", socket.sid)

    def forget(self, socket: StockSocket) -> None:
        if self.sockets.pop(socket.sid, None) is not None:
            self._per_address[socket.address] -= 1
            if self._per_address[socket.address] <= 0:
                del self._per_address[socket.address]

    # Tasks and time.

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a task that this server owns until `shutdown`."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            try:
                raise error
            except Exception:
                self.throttle.failed("socket task")

    def at(self, delay_s: float, what: str, sid: str) -> None:
        # Sids, not sockets: a closed socket must not be kept alive by its next ping.
        due = self.options.clock.now() + delay_s
        heapq.heappush(self._agenda, (due, next(self._agenda_order), what, sid))

    async def _service_task(self) -> None:
        """The heartbeat of every socket: pings, unanswered pings and sockets that never CONNECT."""
        options = self.options
        tick = min(
            1.0, options.ping_interval_s / 4, options.ping_timeout_s / 4, options.connect_deadline_s / 4
        )
        while True:
            await options.clock.sleep_until(options.clock.now() + tick)
            now = options.clock.now()
            while self._agenda and self._agenda[0][0] <= now:
                _, _, what, sid = heapq.heappop(self._agenda)
                socket = self.sockets.get(sid)
                if socket is None or socket.closing:
                    continue
                try:
                    await self._attend(socket, what)
                except Exception:
                    self.throttle.failed("heartbeat", sid)

    async def _attend(self, socket: StockSocket, what: str) -> None:
        options = self.options
        if what == "ping":
            socket.heard = False
            await socket.ping()
            self.at(options.ping_timeout_s, "pong", socket.sid)
        elif what == "pong":
            # A socket whose handlers are all busy is not read, so its silence is ours.
            if socket.heard or socket.in_flight >= MAX_IN_FLIGHT:
                self.at(max(0.0, options.ping_interval_s - options.ping_timeout_s), "ping", socket.sid)
            else:
                self.spawn(socket.close(wait=False, reason=CLOSE_REASON.PING_TIMEOUT))
        elif not socket.joined:
            self.throttle.refused("a socket that did not connect in time", socket.sid)
            self.spawn(socket.close(wait=False))

    async def disconnect(self, sid: str | None = None) -> None:
        """Close one socket, or all of them."""
        sockets = list(self.sockets.values()) if sid is None else [self.sockets.get(sid)]
        await asyncio.gather(*(socket.close(wait=False) for socket in sockets if socket is not None))

    def cut(self) -> None:
        """Drop every connection that is still there, without a word."""
        for socket in list(self.sockets.values()):
            socket.abort()
            self.forget(socket)

    async def shutdown(self) -> None:
        """Stop the heartbeat and every task that handles an event."""
        tasks = [*self._tasks]
        if self.service_task_handle is not None:
            tasks.append(self.service_task_handle)
            self.service_task_handle = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@functools.lru_cache(maxsize=512)
def _environ_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
