"""A stand-in for Deepgram, played by a test: `/v1/listen` and `/v1/auth/grant` as its documents have them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import WSMsgType, web

from coach_server.clock import Clock
from tests.fakes.waiting import Watched

KEY = "dg-test-key"
IDLE_S = 10.0


class FakeDeepgram(Watched):
    """`refuse_with` is the HTTP status of the next upgrades. Connections are kept in `connections`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.refuse_with: int | None = None
        self.refuse_headers: dict[str, str] = {}
        self.hang = False
        self.grant_answer: Any = {"access_token": "temporary.jwt.token", "expires_in": 60}
        self.grants: list[dict[str, Any]] = []
        self.connections: list[Connection] = []
        self.url = ""

    async def __aenter__(self) -> FakeDeepgram:
        app = web.Application()
        app.router.add_get("/v1/listen", self._listen)
        app.router.add_post("/v1/auth/grant", self._grant)
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

    def _refusal(self, request: web.Request) -> web.Response | None:
        status = self.refuse_with
        if status is None and request.headers.get("Authorization") != f"Token {KEY}":
            status = 401
        if status is None:
            return None
        body = {"err_code": "REFUSED", "err_msg": "vendor's own words", "request_id": "r1"}
        return web.json_response(body, status=status, headers=self.refuse_headers)

    async def _grant(self, request: web.Request) -> web.Response:
        self.grants.append(await request.json())
        return self._refusal(request) or web.json_response(self.grant_answer)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if self.hang:
            await self.until(lambda: not self.hang, within_s=30)
        if (refused := self._refusal(request)) is not None:
            return refused
        socket = web.WebSocketResponse(timeout=0.2)
        await socket.prepare(request)
        connection = Connection(self, socket, request)
        self.connections.append(connection)
        self.changed()
        await connection.serve()
        return socket


class Connection:
    """One stream. `audio` is what came as binary frames, `controls` the types of the text frames.

    `pending` holds words a vendor would still be working on: Finalize and CloseStream bring them out.
    """

    def __init__(self, fake: FakeDeepgram, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.fake = fake
        self.socket = socket
        self.query = request.query
        self.audio = bytearray()
        self.controls: list[str] = []
        self.pending: list[str] = []
        self.closed_by_client = False
        self._request = request
        self._heard_at = fake.clock.now()

    async def serve(self) -> None:
        idle = asyncio.create_task(self._hang_up_when_idle())
        try:
            async for message in self.socket:
                self._heard_at = self.fake.clock.now()
                if message.type is WSMsgType.BINARY:
                    self.audio += message.data
                elif message.type is WSMsgType.TEXT:
                    await self._control(json.loads(message.data))
                self.fake.changed()
        finally:
            idle.cancel()
            self.closed_by_client = True
            self.fake.changed()

    async def words(
        self,
        text: str,
        *,
        start: float = 0.0,
        duration: float = 1.0,
        is_final: bool = True,
        speech_final: bool = False,
        confidence: float = 0.9,
        channel: int = 0,
        speakers: list[int] | None = None,
        from_finalize: bool = False,
    ) -> None:
        spoken = text.split()
        labels = speakers or [0] * len(spoken)
        words = [
            {"word": word.lower(), "punctuated_word": word, "confidence": confidence, "speaker": label}
            for word, label in zip(spoken, labels, strict=True)
        ]
        await self.send(
            {
                "type": "Results",
                "channel_index": [channel, int(self.query["channels"])],
                "start": start,
                "duration": duration,
                "is_final": is_final,
                "speech_final": speech_final,
                "from_finalize": from_finalize,
                "channel": {"alternatives": [{"transcript": text, "confidence": confidence, "words": words}]},
                "metadata": {"request_id": "r1", "model_info": {"arch": "nova-3"}},
            }
        )

    async def send(self, message: dict[str, Any]) -> None:
        await self.socket.send_str(json.dumps(message))

    async def send_raw(self, text: str) -> None:
        await self.socket.send_str(text)

    def drop(self) -> None:
        """Cut the TCP connection, as a network does: no close frame."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _control(self, message: dict[str, Any]) -> None:
        self.controls.append(message["type"])
        match message["type"]:
            case "Finalize":
                await self._bring_out(from_finalize=True)
            case "CloseStream":
                await self._bring_out()
                await self.send({"type": "Metadata", "request_id": "r1", "duration": 1.0, "channels": 1})
                await self.socket.close(code=1000)

    async def _bring_out(self, *, from_finalize: bool = False) -> None:
        # An empty final comes even when nothing was pending, as with the vendor.
        for text in self.pending or [""]:
            await self.words(text, from_finalize=from_finalize)
        self.pending.clear()

    async def _hang_up_when_idle(self) -> None:
        while (due := self._heard_at + IDLE_S) > self.fake.clock.now():
            await self.fake.clock.sleep_until(due)
        reason = b"NET-0001 no audio within the time-out"
        await self.socket.close(code=1011, message=reason)
