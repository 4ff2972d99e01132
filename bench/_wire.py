"""A load generator cheap enough to saturate a server: frames made beforehand, answers counted."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable

HANDSHAKE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "{extra}\r\n"
)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
PONG = b'["PONG"'


def frame(text: str) -> bytes:
    """One masked text frame; the mask is zero, which every server accepts."""
    data = text.encode()
    size = len(data)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 65536:
        head = b"\x81\xfe" + struct.pack("!H", size)
    else:
        head = b"\x81\xff" + struct.pack("!Q", size)
    return head + b"\0\0\0\0" + data


class Connection(asyncio.Protocol):
    """One client: connects, then calls `on_pong` with the number of PONGs that each read brought."""

    def __init__(self, deflate: bool = False) -> None:
        self.on_pong: Callable[[Connection, int], None] = lambda connection, count: None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent_at = 0.0
        self._deflate = deflate
        self._head = b""
        self._greeted = 0
        self._stage = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.write(HANDSHAKE.format(extra=DEFLATE if self._deflate else "").encode())

    def data_received(self, data: bytes) -> None:
        if self._stage == 2:
            data = self._tail + data  # a read may end in the middle of the name
            count = data.count(PONG)
            self._tail = data[1 - len(PONG) :]
            if count:
                self.on_pong(self, count)
            return
        self._head += data
        _, complete, frames = self._head.partition(b"\r\n\r\n")
        if self._stage == 0 and complete and frames:  # the greeting, which may be compressed
            self._stage = 1
            self._greeted = len(self._head)
            self.transport.write(frame('40{"apiKey":"right"}'))
        elif self._stage == 1 and len(self._head) > self._greeted:  # the answer to CONNECT
            self._stage = 2
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("refused"))
        if not self.lost.done():
            self.lost.set_result(None)

    def send(self, data: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(data)


async def connect(port: int, count: int, deflate: bool = False) -> list[Connection]:
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(count):
        _, connection = await loop.create_connection(lambda: Connection(deflate), "127.0.0.1", port)
        await connection.ready
        connections.append(connection)
    return connections


async def close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.transport.abort()
    await asyncio.gather(*(connection.lost for connection in connections))
