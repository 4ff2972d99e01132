"""The lean WebSocket driver: one loop a connection reads, runs events in order, and writes straight out.

The library spends, for each event, a task with a timer to receive it, a task to dispatch it, and a queue, a
timer and a writer task to answer it. Here an event costs a task only when its handler has to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections import deque
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from aiohttp import WSMessage, WSMsgType
from engineio import packet as eio
from engineio.exceptions import SocketIsClosedError

from coach_server.api.engine_options import BURST, MAX_IN_FLIGHT, MISSED, UPGRADE_DEADLINE_S, Event
from coach_server.api.engine_socket import CLOSE_REASON, StockSocket, WebSocket, next_turn

if TYPE_CHECKING:
    from coach_server.api.engine_io import CoachEngine


@types.coroutine
def finish(coroutine: Coroutine[Any, Any, Any], waiting_for: Any) -> Generator[Any, Any, Any]:
    """Go on, in the current task, with a coroutine that was started by `send` and now waits."""
    while True:
        try:
            yield waiting_for
        except BaseException as stop:  # a cancellation, mostly: it belongs to the coroutine
            try:
                waiting_for = coroutine.throw(stop)
            except StopIteration as end:
                return end.value
        else:
            return (yield from coroutine)


class LeanSocket(StockSocket):
    """One loop reads, runs events in order and hands over to the next task only when a handler waits."""

    def __init__(self, server: CoachEngine, sid: str, address: str) -> None:
        super().__init__(server, sid, address)
        self._greeting: eio.Packet | None = None
        self._outbox: deque[str | bytes] | None = None
        self._outbox_bytes = 0
        self._ended: asyncio.Future[None] | None = None
        self._end_reason = CLOSE_REASON.TRANSPORT_CLOSE

    async def greet(self, pkt: eio.Packet, transport: str) -> None:
        if transport == "websocket":
            self._greeting = pkt
        else:
            await self.send(pkt)

    async def _websocket_handler(self, ws: WebSocket) -> None:
        if self.connected:
            if not await self._upgraded_by(ws):
                return
        else:
            self.connected = True
            self.upgraded = True
        self._ended = asyncio.get_running_loop().create_future()
        if self._greeting is not None:
            await ws.send(self._greeting.encode())
            self._greeting = None
        await self._move_queue_to(ws)
        await self._read()
        await self._ended
        await self.close(wait=False, abort=True, reason=self._end_reason)

    async def _upgraded_by(self, ws: WebSocket) -> bool:
        self.upgrading = True  # polls are answered at once from now on
        try:
            async with asyncio.timeout(UPGRADE_DEADLINE_S):
                if await ws.wait() != "2probe":
                    return False
                await ws.send("3probe")
                await self.send(eio.Packet(eio.NOOP))  # ends the poll that waits
                if await ws.wait() != "5" or self.closing:
                    return False
        except (TimeoutError, OSError):
            return False
        else:
            self.upgraded = True
            return True
        finally:
            self.upgrading = False

    async def _move_queue_to(self, ws: WebSocket) -> None:
        while self._queue is not None and not self._queue.empty():
            pkt = self._queue.get_nowait()
            if pkt is not None and pkt.packet_type != eio.NOOP:
                await ws.send(pkt.encode())
        self._queue = None
        self._queued_bytes = 0
        self._ws = ws

    # In.

    async def _read(self) -> None:
        """Read until the end of the connection, or until a handler waits: then another task reads on."""
        handed_over = False
        try:
            if self.in_flight >= MAX_IN_FLIGHT:
                await self.room()
            while not (handed_over := await self._read_burst()):
                await next_turn()
        except SocketIsClosedError:
            pass
        finally:
            if not handed_over:
                self._set_ended()

    async def _read_burst(self) -> bool:
        """Read some packets and run their events; True when a handler had to wait and has now ended.

        A handler is started in this task. Most end without waiting, and so cost no task of their own; one
        that waits keeps this task: `asyncio.timeout` depends on `asyncio.current_task()` staying the same.
        """
        assert self._ws is not None
        receive = self._ws.response.receive
        socketio = self.server.socketio
        for _ in range(BURST):
            if self.closing:
                raise SocketIsClosedError()
            message = await receive()
            event = None
            result = MISSED
            if message.type is WSMsgType.TEXT and message.data[:2] == "42":
                self.heard = True
                if self._listener is not None:
                    self._answer(True)
                frame = message.data
                if frame[2:3] == "[":
                    result = socketio.start_plain(self, frame)
                else:
                    event = socketio.event_of(self, frame)
            if result is MISSED:
                if event is None and (event := await self._next_event(message)) is None:
                    continue
                result = socketio.start(self, event)
            if type(result) is types.CoroutineType:
                try:
                    waiting_for = result.send(None)
                except StopIteration as end:
                    result = end.value
                except Exception:
                    result = socketio.failed(self)
                else:
                    await self._finish(event, result, waiting_for)
                    return True
            if event is not None:
                await socketio.answer(self, event, result)
        return False

    async def _finish(
        self, event: Event | None, coroutine: Coroutine[Any, Any, Any], waiting_for: Any
    ) -> None:
        self.in_flight += 1
        self.server.spawn(self._read())
        try:
            result = await finish(coroutine, waiting_for)
        except Exception:
            result = self.server.socketio.failed(self)
        finally:
            self.leave_flight()
        if event is not None:
            await self.server.socketio.answer(self, event, result)

    async def _next_event(self, message: WSMessage) -> Event | None:
        """Anything but a well-formed event in the root namespace."""
        if self.closing:
            raise SocketIsClosedError()
        if message.type is WSMsgType.TEXT:
            self.hear()
            text: str = message.data
            if text[:1] == "4":
                return await self.server.socketio.take(self, text[1:])
            await self._take_control(text[:1])
            return None
        if message.type is WSMsgType.BINARY:
            self.hear()
            return await self.server.socketio.take(self, message.data)
        if message.type in (WSMsgType.PING, WSMsgType.PONG) and self._ws is not None:
            await self._ws.control(message)
            return None
        if message.type is WSMsgType.ERROR:
            self.server.throttle.refused("unreadable frame", self.sid)
            self._end_reason = CLOSE_REASON.TRANSPORT_ERROR
        raise SocketIsClosedError()

    async def _take_control(self, kind: str) -> None:
        if kind == "1":
            await self.close(wait=False, abort=True, reason=CLOSE_REASON.CLIENT_DISCONNECT)
            raise SocketIsClosedError()
        if kind not in ("0", "2", "3", "5", "6"):
            self.server.throttle.refused("unreadable frame", self.sid)

    # Out.

    async def send(self, pkt: eio.Packet) -> None:
        if self._ws is None:
            await super().send(pkt)
        elif not self.closed:
            await self.write(pkt.data if pkt.binary else pkt.encode())

    async def message(self, text: str) -> None:
        ws = self._ws
        if ws is None:
            await super().message(text)
        elif self._outbox is not None or self.closed or ws.request.protocol.writing_paused:
            await self.write("4" + text)
        else:
            with contextlib.suppress(ConnectionError, RuntimeError):
                await ws.response.send_str("4" + text)

    async def write(self, data: str | bytes) -> None:
        """Write one frame in order. Never waits: what the connection does not take is kept, within bounds."""
        ws = self._ws
        if ws is None or self.closed:
            return
        if self._outbox is not None or ws.request.protocol.writing_paused:
            self._keep(data)
            return
        with contextlib.suppress(ConnectionError, RuntimeError):  # the reader will see the end
            await ws.send(data)

    def _keep(self, data: str | bytes) -> None:
        if self._outbox is None:
            self._outbox = deque()
            self.server.spawn(self._flush())
        if not self._is_full(len(self._outbox), self._outbox_bytes + len(data)):
            self._outbox.append(data)
            self._outbox_bytes += len(data)

    async def _flush(self) -> None:
        ws, outbox = self._ws, self._outbox
        assert ws is not None and outbox is not None
        try:
            while outbox and not self.closed:
                await ws.stream.drain()
                while outbox and not ws.request.protocol.writing_paused:
                    data = outbox.popleft()
                    self._outbox_bytes -= len(data)
                    await ws.send(data)
        except (ConnectionError, RuntimeError):
            pass  # the reader will see the end
        self._outbox = None
        self._outbox_bytes = 0

    # End.

    def _set_ended(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _end_transport(self) -> None:
        if self._ws is not None and self._ended is not None and not self._ended.done():
            self.server.spawn(self._ws.end())  # wakes whoever reads
        self._set_ended()
        if self._queue is not None:
            self._queue.put_nowait(None)  # answers the poll that waits
