"""A stand-in for ElevenLabs, played by a test: `POST /v1/text-to-speech/{voice}/stream` as its documents have
it."""

from __future__ import annotations

from aiohttp import web

from tests.fakes.speaking import SpeakingVendor

KEY = "el-test-key"
VOICES = {"EXAVITQu4vr4xnSDxMaL", "JBFqnCBsd6RMkjVDRZzb", "AAAAAAAAAAAAAAAAAAAA"}
FORMATS = {f"pcm_{rate}" for rate in (8000, 16000, 22050, 24000, 44100, 48000)}
SPOKEN = {"eleven_flash_v2_5": {"en", "nl", "cs"}, "eleven_v3": {"en", "nl", "cs", "he"}}


class FakeElevenLabs(SpeakingVendor):
    audio_type = "audio/pcm"

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/text-to-speech/{voice}/stream", self._answer)

    def refusal(self, status: int) -> web.Response:
        detail = {"status": "refused", "message": "vendor's own words"}
        return web.json_response({"detail": detail}, status=status)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, await self._fault(request))

    async def _fault(self, request: web.Request) -> int | None:
        if request.headers.get("xi-api-key") != KEY:
            return 401
        if request.match_info["voice"] not in VOICES:
            return 404
        body = await request.json()
        languages = SPOKEN.get(body.get("model_id"))
        if languages is None or request.query.get("output_format") not in FORMATS:
            return 422
        if "language_code" in body:
            enforces = body["model_id"].endswith("_v2_5")
            return None if enforces and body["language_code"] in languages else 400
        return None
