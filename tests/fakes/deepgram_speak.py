"""A stand-in for Deepgram Aura, played by a test: `POST /v1/speak` as its documents have it."""

from __future__ import annotations

import re

from aiohttp import web

from tests.fakes.speaking import SpeakingVendor

KEY = "dg-test-key"
MOST_CHARS = 2000
_MODEL = re.compile(r"aura-2-[a-z]+-(de|en|es|fr|it|ja|nl)")


class FakeDeepgramSpeak(SpeakingVendor):
    audio_type = "audio/l16;rate=24000;channels=1"

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/speak", self._answer)

    def refusal(self, status: int) -> web.Response:
        body = {"err_code": "REFUSED", "err_msg": "vendor's own words", "request_id": "r1"}
        return web.json_response(body, status=status, headers={"dg-request-id": "r1"})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, await self._fault(request))

    async def _fault(self, request: web.Request) -> int | None:
        if request.headers.get("Authorization") != f"Token {KEY}":
            return 401
        query, body = request.query, await request.json()
        if set(body) != {"text"} or not _MODEL.fullmatch(query.get("model", "")):
            return 400
        # Raw samples at a rate are only to be had with this encoding, and without a container.
        if (query.get("encoding"), query.get("container")) != ("linear16", "none"):
            return 400
        return 413 if len(body["text"]) > MOST_CHARS else None
