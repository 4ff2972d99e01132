"""A Socket.IO client that costs little: what is measured shall be the server. Times are perf_counter's."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from bench._server import KEY
from bench._wire import HANDSHAKE, frame
from coach_server.services.demo import load_demo

# Called with the ack's JSON array as it came, and when.
Acked = Callable[[bytes, float], None]


class Client(asyncio.Protocol):
    """One connection, WebSocket only. `on_event(name, payload, at)` hears what the server tells."""

    def __init__(self) -> None:
        self.on_event: Callable[[str, dict[str, Any], float], None] | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self._buffer = bytearray()
        self._upgraded = False
        self._acks: dict[int, Acked] = {}
        self._ids = itertools.count()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.write(HANDSHAKE.format(extra="").encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("refused"))
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._buffer += data
        if not self._upgraded:
            _, complete, rest = self._buffer.partition(b"\r\n\r\n")
            if not complete:
                return
            self._upgraded, self._buffer = True, rest
        at = 0
        while (place := _payload(self._buffer, at)) is not None:
            start, at = place
            self._take(bytes(self._buffer[start:at]), now)
        del self._buffer[:at]

    def _take(self, packet: bytes, now: float) -> None:
        if packet.startswith(b"43"):
            bracket = packet.index(b"[")
            acked = self._acks.pop(int(packet[2:bracket]), None)
            if acked is not None:
                acked(packet[bracket:], now)
        elif packet.startswith(b"42"):
            if self.on_event is not None:
                name, message = orjson.loads(packet[2:])
                self.on_event(name, message["payload"], now)
        elif packet == b"2":
            self.transport.write(frame("3"))
        elif packet.startswith(b"0"):
            self.transport.write(frame('40{"apiKey":"' + KEY + '"}'))
        elif packet.startswith(b"40"):
            self.ready.set_result(None)
        elif packet.startswith(b"44"):
            self.ready.set_exception(ConnectionError(packet.decode()))

    def emit(self, name: str, data: object, acked: Acked | None = None) -> None:
        number = ""
        if acked is not None:
            number = str(next(self._ids))
            self._acks[int(number)] = acked
        self.transport.write(frame(f"42{number}" + orjson.dumps([name, data]).decode()))

    async def ask(self, name: str, data: object) -> dict[str, Any]:
        """The ack, which must say ok."""
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.emit(name, data, lambda raw, _: answered.set_result(raw))
        async with asyncio.timeout(10):
            answer: dict[str, Any] = orjson.loads(await answered)[0]
        if not answer["ok"]:
            raise RuntimeError(f"{name} was refused: {answer}")
        return answer


def _payload(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `at` begins and ends; None while it is not all there."""
    if len(buffer) < at + 2:
        return None
    size, start = buffer[at + 1] & 0x7F, at + 2
    if size == 126:
        start = at + 4
        size = int.from_bytes(buffer[at + 2 : start], "big")
    elif size == 127:
        start = at + 10
        size = int.from_bytes(buffer[at + 2 : start], "big")
    return (start, start + size) if len(buffer) >= start + size else None


async def connect(port: int, count: int = 1) -> list[Client]:
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        async with asyncio.timeout(10):
            await client.ready
        clients.append(client)
    return clients


async def close(clients: Sequence[Client]) -> None:
    for client in clients:
        client.transport.abort()
    await asyncio.gather(*(client.lost for client in clients))


class Talk:
    """Words of a call: the demo's sentences, each time with another beginning, so that nothing that knows a
    text already looks faster than it is."""

    OPENINGS = (
        "Right.",
        "Well,",
        "You know,",
        "As I said,",
        "Honestly,",
        "Look,",
        "Okay, so,",
        "I think",
        "",
    )

    def __init__(self) -> None:
        self._turns = load_demo("en").turns
        self._said = itertools.count()

    def segment(self, call_id: str, number: int) -> dict[str, Any]:
        """The payload of a TRANSCRIPT, agent and customer in turn."""
        said = next(self._said)
        turn = self._turns[number % len(self._turns)]
        opening = self.OPENINGS[said % len(self.OPENINGS)]
        return {
            "conversationId": call_id,
            "speaker": "agent" if number % 2 == 0 else "caller",
            "text": f"{opening} {turn.text} {said % 100_000}",
            "isFinal": True,
            "timestamp": 1766750000000 + said,
            "segmentId": f"s{said}",
        }


START = {
    "agentId": "agent-1",
    "metadata": {"source": "bench", "agentName": "Maya", "customerName": "Daniel", "company": "Finch Lane"},
}


async def start_calls(clients: Sequence[Client], **choices: object) -> list[str]:
    """One call each; their ids."""
    calls = []
    for client in clients:
        answer = await client.ask("START_CONVERSATION", START | choices)
        calls.append(str(answer["conversationId"]))
    return calls
