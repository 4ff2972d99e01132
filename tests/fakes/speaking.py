"""What the stand-ins for voice services share: a scripted answer, sent in chunks of an odd size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from tests.fakes.waiting import Watched

CHUNK = 4097  # a chunk ends anywhere, also within a sample


@dataclass
class Asked:
    """One request. `gone`: the client hung up before its end."""

    path: str
    query: dict[str, str]
    body: dict[str, Any]
    gone: bool = False


@dataclass
class Script:
    """How the next requests are answered. `refuse_with`: an HTTP status; `body`, `content_type`: what comes
    in place of audio; `cut_after`: bytes after which the line breaks; `pause_after`: bytes after which it
    waits for `go_on`, 0: before the first; `hang`: not even headers come."""

    pcm: bytes = b""
    refuse_with: int | None = None
    refuse_headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = ""
    cut_after: int | None = None
    pause_after: int | None = None
    hang: bool = False


class SpeakingVendor(Watched):
    """A server on 127.0.0.1; subclasses add the route and how the vendor refuses."""

    audio_type = "application/octet-stream"

    def __init__(self, pcm: bytes) -> None:
        super().__init__()
        self.script = Script(pcm)
        self.asked: list[Asked] = []
        self.url = ""
        self.go_on = asyncio.Event()

    def routes(self, app: web.Application) -> None:
        raise NotImplementedError

    def refusal(self, status: int) -> web.Response:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        app = web.Application()
        self.routes(app)
        # A client that hangs up ends the answer, as it would end the vendor's work.
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on.set()
        await self._runner.cleanup()

    async def answer(self, request: web.Request, status: int | None) -> web.StreamResponse:
        """`status`: how the request itself is refused."""
        asked = Asked(request.path, dict(request.query), await request.json())
        self.asked.append(asked)
        self.changed()
        script = self.script
        try:
            if script.hang:
                await self.go_on.wait()
            if (code := script.refuse_with or status) is not None:
                refused = self.refusal(code)
                refused.headers.update(script.refuse_headers)
                return refused
            return await self._speak(request, script)
        except (asyncio.CancelledError, ConnectionError):
            asked.gone = True
            self.changed()
            raise

    async def _speak(self, request: web.Request, script: Script) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": script.content_type or self.audio_type})
        response.enable_chunked_encoding()
        await response.prepare(request)
        body = script.pcm if script.body is None else script.body
        for at in range(0, len(body), CHUNK):
            if script.pause_after is not None and at >= script.pause_after:
                await self.go_on.wait()
            if script.cut_after is not None and at >= script.cut_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(body[at : at + CHUNK])
        await response.write_eof()
        return response
