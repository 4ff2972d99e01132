"""One connection: the library's Engine.IO socket with bounds, a probe, and refusals instead of tracebacks."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from aiohttp import WSMessage, WSMsgType, web
from engineio import packet as eio
from engineio.async_socket import AsyncSocket
from engineio.base_server import BaseServer
from engineio.exceptions import ContentTooLongError, SocketIsClosedError

from coach_server.api.engine_options import (
    BODY_DEADLINE_S,
    BURST,
    CLOSE_WAIT_S,
    MAX_IN_FLIGHT,
    MAX_PAYLOAD_BYTES,
    Event,
)
from coach_server.api.engine_wire import CoachPacket, Refused, split_payload

if TYPE_CHECKING:
    from coach_server.api.engine_io import CoachEngine

CLOSE_REASON = BaseServer.reason


@types.coroutine
def next_turn() -> Generator[None, None, None]:
    """Let every other task run once."""
    yield


def is_frame(text: str) -> bool:
    """Whether clients send such Engine.IO packets: a Socket.IO message, or a short control packet."""
    if text[:1] == "4":
        return "0" <= text[1:2] <= "6"
    return "0" <= text[:1] <= "6" and len(text) <= 32


class WebSocket:
    """One aiohttp WebSocket, in the place where python-engineio lets a server bring its own class."""

    response: web.WebSocketResponse
    stream: Any
    request: web.Request
    # Whether the peer is known not to read: then unsent bytes must not keep the connection open.
    is_dead = False

    def __init__(
        self, handler: Callable[[WebSocket], Coroutine[Any, Any, None]], server: CoachEngine
    ) -> None:
        self._handler = handler
        self._server = server

    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse | dict[str, Any]:
        self.request = environ["aiohttp.request"]
        # No permessage-deflate: 130 KB a connection for text this short. Pings are answered by `control`. The
        # lean driver keeps its own outbox, so there aiohttp must never hold a sender back.
        self.response = web.WebSocketResponse(
            max_msg_size=self._server.options.max_message_bytes,
            compress=False,
            timeout=CLOSE_WAIT_S,
            autoping=False,
            writer_limit=2**62 if self._server.options.driver == "lean" else 2**16,
        )
        if not self.response.can_prepare(self.request):
            return self._server.bad_request("Invalid websocket upgrade")
        self.stream = await self.response.prepare(self.request)
        try:
            await self._handler(self)
        except ConnectionError:
            pass
        except Exception:
            self._server.throttle.failed("websocket")
        finally:
            await self.end()
        return self.response

    async def wait(self) -> str | bytes:
        """The next well-formed Engine.IO frame. OSError when the connection is over."""
        while True:
            message = await self.response.receive()
            if message.type is WSMsgType.BINARY:
                return bytes(message.data)
            if message.type in (WSMsgType.PING, WSMsgType.PONG):
                await self.control(message)
            elif message.type is not WSMsgType.TEXT:
                raise OSError("closed")
            elif is_frame(message.data):
                return str(message.data)
            else:
                self._server.throttle.refused("unreadable frame")

    async def control(self, message: WSMessage) -> None:
        """Answer a ping of the WebSocket protocol, unless the peer does not read its answers."""
        if message.type is WSMsgType.PING and not self.request.protocol.writing_paused:
            with contextlib.suppress(ConnectionError):
                await self.response.pong(message.data)

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self.response.send_str(message)
        else:
            await self.response.send_bytes(message)

    async def close(self) -> None:
        await self.response.close()

    async def end(self) -> None:
        """Close politely for a second, then for good, whatever is left unsent."""
        transport = self.request.transport
        try:
            async with asyncio.timeout(2 * CLOSE_WAIT_S):
                await self.response.close()
        except TimeoutError:
            self.is_dead = True
        except (ConnectionError, RuntimeError):
            pass
        if self.is_dead and transport is not None:
            transport.abort()

    def abort(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()


class StockSocket(AsyncSocket):  # type: ignore[misc]  # python-engineio has no types
    """The library's socket with a bounded outbox, the shared heartbeat and refusals instead of tracebacks."""

    def __init__(self, server: CoachEngine, sid: str, address: str) -> None:
        # The fields of BaseSocket, without its queue: an idle WebSocket never needs one.
        self.server = server
        self.sid = sid
        self.last_ping = None
        self.connected = False
        self.upgrading = False
        self.upgraded = False
        self.closing = False
        self.closed = False
        self.session: dict[str, Any] = {}
        self.address = address
        # Socket.IO: the sid in "/" while connected there, and how many namespaces and attempts there were.
        self.root_sid: str | None = None
        self.joined = 0
        self.attempts = 0
        # Heartbeat and probe.
        self.heard = True
        self._listener: asyncio.Future[bool] | None = None
        self._listeners = 0
        # Flow.
        self.in_flight = 0
        self._room: asyncio.Future[None] | None = None
        self._queue: asyncio.Queue[eio.Packet | None] | None = None
        self._queued_bytes = 0
        self._ws: WebSocket | None = None
        self._is_dropped = False
        # The binary event whose attachments are still to come.
        self.pending: CoachPacket | None = None

    @property
    def queue(self) -> asyncio.Queue[eio.Packet | None]:
        if self._queue is None:
            self._queue = asyncio.Queue()
        return self._queue

    # Heartbeat: the server's one task keeps it, so the library's timers do nothing here.

    def schedule_ping(self) -> None: ...

    async def check_ping_timeout(self) -> bool:
        if self.closed:
            raise SocketIsClosedError()
        return True

    async def ping(self) -> None:
        await self.send(eio.Packet(eio.PING))

    def hear(self) -> None:
        """Note a sign of life."""
        self.heard = True
        if self._listener is not None:
            self._answer(True)

    def _answer(self, alive: bool) -> None:
        if self._listener is not None and not self._listener.done():
            self._listener.set_result(alive)
        self._listener = None

    async def answers(self, timeout_s: float) -> bool:
        """Ping now; True once any packet comes back within `timeout_s`."""
        if self.closing:
            return False
        clock = self.server.options.clock
        listener = self._listener
        if listener is None:
            listener = self._listener = asyncio.get_running_loop().create_future()
            await self.ping()
        self._listeners += 1
        sleeper = asyncio.ensure_future(clock.sleep_until(clock.now() + timeout_s))
        try:
            await asyncio.wait((listener, sleeper), return_when=asyncio.FIRST_COMPLETED)
            return listener.done() and listener.result()
        finally:
            sleeper.cancel()
            self._listeners -= 1
            if not self._listeners and self._listener is listener:
                self._listener = None  # unanswered: the next probe pings again

    # In.

    async def receive(self, pkt: eio.Packet) -> None:
        """One packet from the library's WebSocket loop."""
        await self.take(pkt.packet_type, pkt.data)

    async def take(self, packet_type: int, data: str | bytes) -> None:
        """One packet, in order. Raises SocketIsClosedError when nothing more may come."""
        if self.closing:
            raise SocketIsClosedError()
        self.hear()
        if packet_type == eio.MESSAGE:
            event = await self.server.socketio.take(self, data)
            if event is not None:
                while self.in_flight >= MAX_IN_FLIGHT:
                    await self.room()
                self.in_flight += 1
                self.server.spawn(self._run(event))
        elif packet_type == eio.CLOSE:
            await self.close(wait=False, abort=True, reason=CLOSE_REASON.CLIENT_DISCONNECT)
        elif packet_type == eio.UPGRADE:
            await self.send(eio.Packet(eio.NOOP))

    async def _run(self, event: Event) -> None:
        try:
            await self.server.socketio.run_event(self, event)
        finally:
            self.leave_flight()

    def leave_flight(self) -> None:
        self.in_flight -= 1
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def room(self) -> None:
        """Wait until a handler of this socket has ended."""
        if self._room is None or self._room.done():
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)

    async def handle_post_request(self, environ: dict[str, Any]) -> None:
        try:
            body = await self._body(environ["aiohttp.request"])
            parts = split_payload(body, self.server.options.max_message_bytes)
        except (Refused, TimeoutError) as error:
            reason = error.reason if isinstance(error, Refused) else "a body that did not come"
            self.server.throttle.refused(reason, self.sid)
            if not self.closed:
                raise ContentTooLongError() from None  # the library then closes and answers 400
            return
        with contextlib.suppress(SocketIsClosedError):
            await self._take_all(parts)

    async def _take_all(self, parts: list[str | bytes | Refused]) -> None:
        for number, part in enumerate(parts, 1):
            if isinstance(part, bytes):
                await self.take(eio.MESSAGE, part)
            elif isinstance(part, Refused):
                self.server.throttle.refused(part.reason, self.sid)
            elif is_frame(part):
                await self.take(int(part[0]), part[1:])
            else:
                self.server.throttle.refused("unreadable frame", self.sid)
            if not number % BURST:
                await next_turn()

    async def _body(self, request: web.Request) -> bytes:
        # Reading `content.read(length)` as the library does gives what has arrived so far, not the whole.
        body = bytearray()
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_PAYLOAD_BYTES:
                    raise Refused("payload too large")
        return bytes(body)

    # Out.

    async def greet(self, pkt: eio.Packet, transport: str) -> None:
        await self.send(pkt)

    async def message(self, text: str) -> None:
        """Send one Socket.IO packet that has no attachments."""
        await self.send(eio.Packet(eio.MESSAGE, text))

    async def send(self, pkt: eio.Packet) -> None:
        """Queue a packet. Never waits: a reader that does not keep up is disconnected instead."""
        if self.closed:
            return
        if pkt.binary:
            # A packet keeps its first encoding, and polling needs another one than WebSocket.
            pkt = eio.Packet(eio.MESSAGE, pkt.data)
        size = len(pkt.data) if isinstance(pkt.data, (str, bytes)) else 0
        if self._is_full(self.queue.qsize(), self._queued_bytes + size):
            return
        self._queued_bytes += size
        self.queue.put_nowait(pkt)

    def _is_full(self, packets: int, size: int) -> bool:
        options = self.server.options
        if packets < options.outbox_packets and size <= options.outbox_bytes:
            return False
        if not self.closing and not self._is_dropped:
            self._is_dropped = True
            self.server.throttle.refused("a reader too slow for what it asked", self.sid)
            self.server.spawn(self.close(wait=False, abort=True, reason=CLOSE_REASON.TRANSPORT_ERROR))
            if self._ws is not None:
                self._ws.abort()
        return True

    async def poll(self) -> list[eio.Packet]:
        packets: list[eio.Packet] = await super().poll()
        self._queued_bytes = 0
        return packets

    # End.

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """Tell the application, then the client, and let the connection go. Never waits for a slow reader."""
        if self.closed or self.closing:
            return
        self.closing = True
        self._answer(False)
        self.pending = None
        try:
            await self.server.socketio.left(self.sid, reason or CLOSE_REASON.SERVER_DISCONNECT)
        except Exception:
            self.server.throttle.failed("disconnect handler", self.sid)
        if not abort:
            await self.send(eio.Packet(eio.CLOSE))
        if reason == CLOSE_REASON.PING_TIMEOUT and self._ws is not None:
            self._ws.is_dead = True
        self.closed = True
        self.server.forget(self)
        self._end_transport()

    def abort(self) -> None:
        self.closing = self.closed = True
        if self._ws is not None:
            self._ws.abort()
        self._end_transport()

    def _end_transport(self) -> None:
        if self._queue is not None or self._ws is not None:
            self.queue.put_nowait(None)  # ends the library's writer, and with it the WebSocket

    # WebSocket.

    async def _upgrade_websocket(self, environ: dict[str, Any]) -> Any:
        if self.upgraded or self.upgrading:
            return self.server.bad_request("Upgraded already")
        return await super()._upgrade_websocket(environ)

    async def _websocket_handler(self, ws: WebSocket) -> None:
        self._ws = ws
        try:
            await super()._websocket_handler(ws)
        finally:
            if self.connected and not self.upgraded:  # an upgrade that failed: polling goes on
                self.upgrading = False
                self._ws = None
