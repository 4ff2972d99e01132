"""A stand-in for the outside API that sessions are exported to. It checks what a careful receiver would: the
token, the signature over time and body, the age of the time, and that an id always brings the same body."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import deque
from typing import Any

from aiohttp import web

from coach_server.clock import Clock
from tests.fakes.waiting import Watched

TOKEN = "batman-secret"
MOST_AGE_S = 300


class FakeBatman(Watched):
    """`answers`: statuses of the next requests, with what `Retry-After` says; then everything right is taken.
    `taken`: the bodies by export id; `seen`: how often anything came."""

    def __init__(self, clock: Clock, token: str = TOKEN) -> None:
        super().__init__()
        self.clock = clock
        self.token = token
        self.answers: deque[tuple[int, str | None]] = deque()
        self.taken: dict[str, dict[str, Any]] = {}
        self.seen = 0
        self.lose_answer = False
        self.hang = False
        self.url = ""

    async def __aenter__(self) -> FakeBatman:
        app = web.Application(client_max_size=32_000_000)
        app.router.add_post("/v1/sessions", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/sessions"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang = False
        self.changed()
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.seen += 1
        self.changed()
        if self.hang:
            await self.until(lambda: not self.hang, within_s=30)
        if self.answers:
            status, wait = self.answers.popleft()
            return web.Response(status=status, headers={"Retry-After": wait} if wait else {})
        if (fault := self._fault(request, body)) is not None:
            return web.json_response({"error": fault[1]}, status=fault[0])
        document = json.loads(body)
        known = self.taken.setdefault(request.headers["Idempotency-Key"], document)
        if known != document:
            return web.json_response({"error": "other body under this key"}, status=409)
        if self.lose_answer:
            self.lose_answer = False
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"ok": True}, status=201)

    def _fault(self, request: web.Request, body: bytes) -> tuple[int, str] | None:
        headers = request.headers
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, "token"
        sent = headers.get("X-Timestamp", "")
        if not sent.isdigit() or abs(self.clock.now() - int(sent)) > MOST_AGE_S:
            return 400, "time"
        made = hmac.digest(self.token.encode(), f"{sent}.".encode() + body, hashlib.sha256).hex()
        if not hmac.compare_digest(headers.get("X-Signature", ""), f"sha256={made}"):
            return 400, "signature"
        if headers.get("Content-Type") != "application/json" or not headers.get("Idempotency-Key"):
            return 400, "headers"
        return None
