"""The socket floor: a Socket.IO server that holds under hostile input and costs little per event.

`build_socket_server` gives a `socketio.AsyncServer`; what it adds is listed in `CoachSocketServer`.
Who may do what with a conversation is not decided here: handlers are registered with `on`, and are called in
the order of a client's events up to their first await.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import orjson
import socketio
from aiohttp import web
from socketio import packet
from socketio.exceptions import ConnectionRefusedError as Refusal

from coach_server.api.engine_io import CoachEngine
from coach_server.api.engine_log import LibraryLog, Throttle
from coach_server.api.engine_options import MISSED, EngineOptions, Event
from coach_server.api.engine_socket import StockSocket
from coach_server.api.engine_wire import RESERVED_EVENTS, CoachPacket, Refused, may_be_deep

ROOT = "/"
# CONNECT packets one connection may send: enough for every namespace, too few for guessing keys.
MAX_ATTEMPTS = 10
DISCONNECT_DEADLINE_S = 5.0

INVALID_ANSWER = {"ok": False, "code": "INVALID", "message": "The request is not valid."}
UNKNOWN_ANSWER = {"ok": False, "code": "INVALID", "message": "There is no event with this name."}
FAILED_ANSWER = {"ok": False, "code": "INTERNAL", "message": "The server could not do this."}


# Whether the event being handled asks for an ack. Read it before the handler's first await.
wants_ack: ContextVar[bool] = ContextVar("wants_ack", default=False)


def build_socket_server(options: EngineOptions, **library: Any) -> CoachSocketServer:
    """A server to `attach` to an aiohttp application; `library` goes to socketio (`client_manager=`, …)."""
    return CoachSocketServer(options, **library)


class CoachSocketServer(socketio.AsyncServer):  # type: ignore[misc]  # python-socketio has no types
    """socketio.AsyncServer with limits, a probe, a drain, and short paths for events and emits.

    Handlers are called as `handler(sid, *arguments)`, `connect` as `handler(sid, environ, auth)` and
    `disconnect` as `handler(sid, reason)`. An ack is answered with the handler's result, and with
    `{ok: false, code, message}` when the packet was refused, the event is unknown or the handler raised.
    """

    eio: CoachEngine

    def __init__(self, options: EngineOptions, **library: Any) -> None:
        self.options = options
        self.throttle = Throttle(options.clock)
        self._by_sid: dict[str, StockSocket] = {}
        # The handlers of the root namespace by the names that clients may use.
        self._plain: dict[str, Callable[..., Any]] = {}
        log = LibraryLog(self.throttle)
        super().__init__(
            serializer=CoachPacket,
            logger=log,
            engineio_logger=log,
            options=options,
            throttle=self.throttle,
            **library,
        )
        self.eio.socketio = self

    def _engineio_server_class(self) -> type[CoachEngine]:
        return CoachEngine

    def attach(self, app: web.Application, socketio_path: str = "socket.io") -> None:
        """Add the routes to an application. When it stops, sockets are closed and tasks ended."""
        super().attach(app, socketio_path)
        app.on_shutdown.append(self._on_shutdown)
        app.on_cleanup.append(self._on_cleanup)

    async def _on_shutdown(self, _app: web.Application) -> None:
        # aiohttp waits for open connections before it cleans up, so they end here at the latest.
        await self._close_all()

    async def _on_cleanup(self, _app: web.Application) -> None:
        await self.shutdown()

    # Events.

    def on(self, event: str, handler: Any = None, namespace: str | None = None) -> Any:
        """As in the library: register a handler, or decorate one."""
        if handler is None:
            return lambda handler: self.on(event, handler, namespace) or handler
        if namespace in (None, ROOT) and event not in RESERVED_EVENTS:
            self._plain[event] = handler
        super().on(event, handler, namespace)
        return None

    def start_plain(self, socket: StockSocket, frame: str) -> Any:
        """The shortest path: `42[…]` for a registered handler, started as by `start`; MISSED for all else."""
        sid = socket.root_sid
        if sid is None or socket.pending is not None:
            return MISSED
        try:
            data = orjson.loads(frame[2:])
            handler = self._plain[data[0]]
        except (ValueError, LookupError, TypeError):
            return MISSED
        # Nearly every event has one object without a list in it. Searching is cheaper than counting.
        if (frame.find("[", 3) > 0 or frame.find("{", frame.find("{") + 1) > 0) and may_be_deep(frame):
            return MISSED
        if wants_ack.get():
            wants_ack.set(False)
        try:
            return handler(sid, *data[1:])
        except Exception as error:
            return self._not_called(socket, handler, error)

    def event_of(self, socket: StockSocket, frame: str) -> Event | None:
        """The short path: an event in the root namespace (`42[…]`, `42<ack>[…]`); None for anything else.

        What is wrong with a packet, the long way finds out.
        """
        sid = socket.root_sid
        start = frame.find("[", 2, 18)
        if sid is None or start < 0 or socket.pending is not None:
            return None
        ack = None
        if start != 2:
            digits = frame[2:start]
            if not (digits.isascii() and digits.isdigit()):
                return None
            ack = int(digits)
        try:
            data = orjson.loads(frame[start:])
        except ValueError:
            return None
        if not data or type(data[0]) is not str or data[0] in RESERVED_EVENTS or may_be_deep(frame):
            return None
        return (ROOT, sid, data, ack)

    async def take(self, socket: StockSocket, data: str | bytes) -> Event | None:
        """Act on one Socket.IO packet; an event is returned, for the driver to run. Never raises."""
        try:
            return await self._take(socket, data)
        except Refused as refused:
            self.throttle.refused(refused.reason, socket.sid)
            if refused.ack is not None and socket.root_sid is not None:
                await self._answer(socket, ROOT, refused.ack, INVALID_ANSWER)
        except Exception:
            self.throttle.failed("packet", socket.sid)
        return None

    async def _take(self, socket: StockSocket, data: str | bytes) -> Event | None:
        pending, socket.pending = socket.pending, None
        if isinstance(data, bytes):
            if pending is None:
                raise Refused("binary data that no packet announced")
            if not pending.add_attachment(data):
                socket.pending = pending
                return None
            pkt = pending
        else:
            if pending is not None:
                self.throttle.refused("text in the place of an attachment", socket.sid)
            if not data:
                raise Refused("an empty packet")
            pkt = CoachPacket(encoded_packet=data)
            if pkt.attachment_count:
                if not self._sid_of(socket, pkt.namespace or ROOT):
                    raise Refused("a packet before CONNECT")
                socket.pending = pkt
                return None
        return await self._act_on(socket, pkt)

    async def _act_on(self, socket: StockSocket, pkt: CoachPacket) -> Event | None:
        namespace = pkt.namespace or ROOT
        if pkt.packet_type == packet.CONNECT:
            await self._handle_connect(socket.sid, namespace, pkt.data)
            return None
        sid = self._sid_of(socket, namespace)
        if sid is None:
            raise Refused("a packet before CONNECT")
        if pkt.packet_type == packet.DISCONNECT:
            await self._handle_disconnect(socket.sid, namespace, self.reason.CLIENT_DISCONNECT)
        elif pkt.packet_type in (packet.ACK, packet.BINARY_ACK):
            await self.manager.trigger_callback(sid, pkt.id, pkt.data)
        else:
            return (namespace, sid, pkt.data, pkt.id)
        return None

    def _sid_of(self, socket: StockSocket, namespace: str) -> str | None:
        if namespace == ROOT:
            return socket.root_sid
        sid: str | None = self.manager.sid_from_eio_sid(socket.sid, namespace)
        return sid if self.manager.is_connected(sid, namespace) else None

    async def run_event(self, socket: StockSocket, event: Event) -> None:
        """Call the handler, wait for it, and answer the ack."""
        result = self.start(socket, event)
        if inspect.isawaitable(result):
            try:
                result = await result
            except Exception:
                result = self.failed(socket)
        if event[3] is not None:
            await self.answer(socket, event, result)

    def start(self, socket: StockSocket, event: Event) -> Any:
        """Call the handler: its coroutine, a plain function's result, or what an ack is told instead."""
        namespace, sid, data, ack = event
        if wants_ack.get() is (ack is None):
            wants_ack.set(ack is not None)
        try:
            handler = self.handlers[namespace][data[0]]
        except KeyError:
            return self._call_other(socket, event)
        try:
            return handler(sid, *data[1:])
        except Exception as error:
            return self._not_called(socket, handler, error)

    def _call_other(self, socket: StockSocket, event: Event) -> Any:
        """Catch-all handlers and namespace classes."""
        namespace, sid, data, _ = event
        handler, args = self._get_event_handler(data[0], namespace, (sid, *data[1:]))
        if handler is None:
            owner, args = self._get_namespace_handler(namespace, args)
            if owner is None:
                self.throttle.refused("unknown event", socket.sid)
                return UNKNOWN_ANSWER
            return owner.trigger_event(data[0], *args)
        try:
            return handler(*args)
        except Exception as error:
            return self._not_called(socket, handler, error)

    def _not_called(self, socket: StockSocket, handler: Any, error: Exception) -> Any:
        # A coroutine function has not run yet, so only the number of arguments can be wrong.
        if isinstance(error, TypeError) and inspect.iscoroutinefunction(handler):
            self.throttle.refused("a wrong number of arguments", socket.sid)
            return INVALID_ANSWER
        return self.failed(socket)

    def failed(self, socket: StockSocket) -> Any:
        """What an ack is told of the exception that is being handled."""
        self.throttle.failed("event handler", socket.sid)
        return FAILED_ANSWER

    async def answer(self, socket: StockSocket, event: Event, result: Any) -> None:
        """Answer the ack that `event` asked for."""
        namespace, _, _, ack = event
        if ack is not None:
            await self._answer(socket, namespace, ack, result)

    async def _answer(self, socket: StockSocket, namespace: str, ack: int, result: Any) -> None:
        if result is None:
            data = []
        elif isinstance(result, tuple):
            data = list(result)
        else:
            data = [result]
        if namespace == ROOT and (text := _json_or_none(data)) is not None:
            await socket.message(f"3{ack}{text}")
            return
        await self._send_packet(
            socket.sid, self.packet_class(packet.ACK, data=data, namespace=namespace, id=ack)
        )

    # Connecting and parting.

    async def entered(self, eio_sid: str, environ: dict[str, Any]) -> None:
        await self._handle_eio_connect(eio_sid, environ)

    async def left(self, eio_sid: str, reason: str) -> None:
        await self._handle_eio_disconnect(eio_sid, reason)

    async def _handle_connect(self, eio_sid: str, namespace: str, data: Any) -> None:
        socket = self.eio.sockets.get(eio_sid)
        if socket is None:
            return
        socket.attempts += 1
        if socket.attempts > MAX_ATTEMPTS:
            self.throttle.refused("too many attempts to connect", eio_sid)
            await socket.close(wait=False)
            return
        sid = await self.manager.pre_connect(eio_sid, namespace) if self._serves(namespace) else None
        if sid is None:
            await self._refuse_connect(eio_sid, namespace, {"message": "Invalid namespace"})
            return
        if namespace == ROOT:
            self._by_sid[sid] = socket
        refusal = await self._ask_to_connect(sid, namespace, eio_sid, data)
        if refusal is not None:
            if not socket.closing:
                await self._refuse_connect(eio_sid, namespace, refusal)
            await self._remove(sid, namespace)
        elif socket.closing:  # it went away while the handler was deciding
            await self._tell_parted(sid, namespace, self.reason.TRANSPORT_CLOSE)
            await self._remove(sid, namespace)
        else:
            await self._send_packet(
                eio_sid, self.packet_class(packet.CONNECT, {"sid": sid}, namespace=namespace)
            )
            await self.manager.connect(sid, namespace)
            socket.joined += 1
            if namespace == ROOT:
                socket.root_sid = sid

    def _serves(self, namespace: str) -> bool:
        return (
            namespace in self.handlers
            or namespace in self.namespace_handlers
            or self.namespaces == "*"
            or namespace in self.namespaces
        )

    async def _ask_to_connect(
        self, sid: str, namespace: str, eio_sid: str, auth: Any
    ) -> dict[str, Any] | None:
        """Run the connect handler; what to tell the client when it refuses, None when it accepts."""
        default: dict[str, Any] = Refusal().error_args
        try:
            accepted = await self._trigger_event("connect", namespace, sid, self.environ[eio_sid], auth)
        except Refusal as refusal:
            reason: dict[str, Any] = refusal.error_args
            return reason
        except Exception:
            self.throttle.failed("connect handler", eio_sid)
            return default
        return default if accepted is False else None

    async def _refuse_connect(self, eio_sid: str, namespace: str, reason: dict[str, Any]) -> None:
        await self._send_packet(
            eio_sid, self.packet_class(packet.CONNECT_ERROR, data=reason, namespace=namespace)
        )

    async def _handle_disconnect(self, eio_sid: str, namespace: str, reason: str | None = None) -> None:
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace)
        if self.manager.is_connected(sid, namespace):
            await self._part(sid, namespace, reason or self.reason.CLIENT_DISCONNECT)

    async def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Take a client out of a namespace. Its connection closes soon, by itself or by the deadline."""
        namespace = namespace or ROOT
        if ignore_queue:
            is_here = self.manager.is_connected(sid, namespace)
        else:
            is_here = await self.manager.can_disconnect(sid, namespace)
        if is_here:
            eio_sid = self.manager.eio_sid_from_sid(sid, namespace)
            await self._send_packet(eio_sid, self.packet_class(packet.DISCONNECT, namespace=namespace))
            await self._part(sid, namespace, self.reason.SERVER_DISCONNECT)

    async def _part(self, sid: str, namespace: str, reason: str) -> None:
        eio_sid = self.manager.pre_disconnect(sid, namespace=namespace)
        socket = self.eio.sockets.get(eio_sid)
        if socket is not None:
            socket.joined -= 1
            socket.pending = None
            if namespace == ROOT:
                socket.root_sid = None
            if not socket.joined and not socket.closing:
                self.eio.await_connect(socket)
        await self._tell_parted(sid, namespace, reason)
        await self._remove(sid, namespace)

    async def _tell_parted(self, sid: str, namespace: str, reason: str) -> None:
        try:
            await self._trigger_event("disconnect", namespace, sid, reason)
        except Exception:
            self.throttle.failed("disconnect handler")

    async def _remove(self, sid: str, namespace: str) -> None:
        if namespace == ROOT:
            self._by_sid.pop(sid, None)
        await self.manager.disconnect(sid, namespace, ignore_queue=True)

    # Emitting.

    async def emit(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        room: Any = None,
        skip_sid: Any = None,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
        ignore_queue: bool = False,
    ) -> None:
        """As in the library; to one client of this process it is one write, and never goes through a bus."""
        target = to or room
        if callback is None and skip_sid is None and namespace in (None, ROOT) and isinstance(target, str):
            socket = self._by_sid.get(target)
            if socket is not None and (text := _event_text(event, data)) is not None:
                await socket.message(text)
                return
        await super().emit(
            event,
            data,
            to=target,
            skip_sid=skip_sid,
            namespace=namespace,
            callback=callback,
            ignore_queue=ignore_queue,
        )

    # What the application asks of a socket.

    async def probe(self, sid: str, timeout_s: float) -> bool:
        """Ping this client at once: True if any packet of it arrives within `timeout_s` seconds."""
        socket = self._by_sid.get(sid)
        return socket is not None and await socket.answers(timeout_s)

    def address(self, sid: str) -> str | None:
        """The IP address of a connected client."""
        socket = self._by_sid.get(sid)
        return None if socket is None else socket.address

    def figures(self) -> dict[str, int]:
        """Counts for /metrics: open connections, clients in the root namespace, and refusals by reason."""
        return {
            "sockets": len(self.eio.sockets),
            "clients": len(self._by_sid),
            **{f"refused: {reason}": count for reason, count in sorted(self.throttle.counts.items())},
        }

    async def drain(self, notice_event: str, notice_for: Callable[[str], Any], grace_s: float) -> None:
        """Take no new connections, tell every client, give them `grace_s` seconds to go, close the rest."""
        self.eio.draining = True
        for sid in list(self._by_sid):
            await self.emit(notice_event, notice_for(sid), to=sid)
        clock = self.options.clock
        end = clock.now() + grace_s
        while self.eio.sockets and clock.now() < end:
            await clock.sleep_until(min(end, clock.now() + 0.1))
        await self._close_all()

    async def _close_all(self) -> None:
        """Close every connection; those that have not ended by the deadline are cut."""
        self.eio.draining = True
        try:
            async with asyncio.timeout(DISCONNECT_DEADLINE_S):
                await self.eio.disconnect()
        except TimeoutError:
            self.throttle.refused("sockets cut at the end of a drain")
            self.eio.cut()


def _event_text(event: str, data: Any) -> str | None:
    """The packet for an event without attachments; None when the library has to look at it."""
    if data is None:
        arguments = [event]
    elif isinstance(data, tuple):
        arguments = [event, *data]
    else:
        arguments = [event, data]
    text = _json_or_none(arguments)
    return None if text is None else "2" + text


def _json_or_none(value: list[Any]) -> str | None:
    """None when there are bytes in it, or something else that takes the long way."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return None


__all__ = ["CoachSocketServer", "EngineOptions", "build_socket_server", "wants_ack"]
