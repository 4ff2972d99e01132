"""A stand-in for Amazon Transcribe's WebSocket: checks the presigned URL and every checksum; a test plays it.

Frames are read with botocore's decoder and written here by hand, so that neither side of the server's own
framing vouches for the other.
"""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from typing import Any

from aiohttp import WSMsgType, web
from botocore.eventstream import EventStreamBuffer, ParserError

from coach_server.clock import Clock
from tests.fakes.sigv4 import Keys, presigned_is_right
from tests.fakes.waiting import Watched

KEYS = Keys("AKIATESTTRANSCRIBE", "transcribe/secret+key", "eu-west-1", "transcribe")
IDLE_S = 15.0
MAX_FRAME_S = 1.0


class FakeTranscribe(Watched):
    def __init__(self, clock: Clock, keys: Keys = KEYS) -> None:
        super().__init__()
        self.clock = clock
        self.keys = keys
        self.refuse_with: int | None = None
        self.connections: list[Connection] = []
        self.url = ""

    async def __aenter__(self) -> FakeTranscribe:
        app = web.Application()
        app.router.add_get("/stream-transcription-websocket", self._listen)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self.connections:
            connection.drop()
        await self._runner.cleanup()

    async def connection(self, number: int = 0) -> Connection:
        await self.until(lambda: len(self.connections) > number)
        return self.connections[number]

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        raw_query = request.raw_path.partition("?")[2]
        right = presigned_is_right(self.keys, request.path, raw_query, request.headers["Host"])
        status = self.refuse_with or (None if right else 403)
        if status is not None:
            return web.json_response({"Message": "vendor's own words"}, status=status)
        socket = web.WebSocketResponse(timeout=0.2)
        await socket.prepare(request)
        connection = Connection(self, socket, request)
        self.connections.append(connection)
        self.changed()
        await connection.serve()
        return socket


class Connection:
    """One stream. `frames` holds the audio payloads in order; the empty one is the end of the stream."""

    def __init__(self, fake: FakeTranscribe, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.fake = fake
        self.socket = socket
        self.query = request.query
        self.frames: list[bytes] = []
        self.pending: list[dict[str, Any]] = []
        self.fault: str | None = None
        self.closed = False
        self._request = request
        self._heard_at = fake.clock.now()

    @property
    def audio(self) -> bytes:
        return b"".join(self.frames)

    async def serve(self) -> None:
        idle = asyncio.create_task(self._time_out_when_idle())
        try:
            async for message in self.socket:
                if message.type is not WSMsgType.BINARY:
                    await self.exception("BadRequestException")
                    break
                await self._frame(message.data)
                self.fake.changed()
        finally:
            idle.cancel()
            self.closed = True
            self.fake.changed()

    async def words(self, *results: dict[str, Any]) -> None:
        payload = json.dumps({"Transcript": {"Results": list(results)}}).encode()
        await self.socket.send_bytes(frame(_event_headers("TranscriptEvent"), payload))

    async def exception(self, kind: str) -> None:
        headers = {
            ":content-type": "application/json",
            ":exception-type": kind,
            ":message-type": "exception",
        }
        payload = json.dumps({"Message": "vendor's own words"}).encode()
        await self.socket.send_bytes(frame(headers, payload))
        await self.socket.close(code=1000)

    async def send_raw(self, data: bytes) -> None:
        await self.socket.send_bytes(data)

    def drop(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _frame(self, data: bytes) -> None:
        audio = self._audio(data)
        if audio is None:
            await self.exception("BadRequestException")
            return
        self._heard_at = self.fake.clock.now()
        self.frames.append(audio)
        if not audio:
            await self.words(*self.pending)
            await self.socket.close(code=1000)

    def _audio(self, data: bytes) -> bytes | None:
        """The payload of one intact AudioEvent of at most a second and whole samples, else None."""
        buffer = EventStreamBuffer()
        try:
            buffer.add_data(data)
            events = list(buffer)
        except ParserError as error:
            self.fault = str(error)
            return None
        expected = _event_headers("AudioEvent", "application/octet-stream")
        if len(events) != 1 or events[0].headers != expected:
            self.fault = "wrong headers"
            return None
        channels = int(self.query.get("number-of-channels", "1"))
        rate = int(self.query["sample-rate"]) * channels * 2
        if len(events[0].payload) > rate * MAX_FRAME_S or len(events[0].payload) % (2 * channels):
            self.fault = "wrong size"
            return None
        return bytes(events[0].payload)

    async def _time_out_when_idle(self) -> None:
        while (due := self._heard_at + IDLE_S) > self.fake.clock.now():
            await self.fake.clock.sleep_until(due)
        await self.exception("BadRequestException")


def result(
    text: str,
    *,
    partial: bool = False,
    start: float = 0.0,
    end: float = 1.0,
    confidence: float = 0.9,
    speaker: str | None = None,
    channel: str | None = None,
) -> dict[str, Any]:
    items: list[dict[str, Any]] = [
        {"Type": "pronunciation", "Content": word, "StartTime": start, "EndTime": end}
        | ({} if partial else {"Confidence": confidence})
        | ({"Speaker": speaker} if speaker else {})
        for word in text.split()
    ]
    items.append({"Type": "punctuation", "Content": ".", "StartTime": end, "EndTime": end})
    return {
        "ResultId": "res-1",
        "StartTime": start,
        "EndTime": end,
        "IsPartial": partial,
        "Alternatives": [{"Transcript": text, "Items": items}],
    } | ({"ChannelId": channel} if channel else {})


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    block = b""
    for name, value in headers.items():
        block += struct.pack("!B", len(name)) + name.encode()
        block += struct.pack("!BH", 7, len(value)) + value.encode()
    start = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    start += struct.pack("!I", zlib.crc32(start))
    whole = start + block + payload
    return whole + struct.pack("!I", zlib.crc32(whole))


def _event_headers(kind: str, content: str = "application/json") -> dict[str, str]:
    return {":content-type": content, ":event-type": kind, ":message-type": "event"}
