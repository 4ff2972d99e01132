"""REST of live-coach.md §8: the coach on request, the report, speech tokens, transcription by HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web
from pydantic import ConfigDict, Field

from coach_server.api import wire, wire_out
from coach_server.api.answers import json_body, json_response
from coach_server.api.audio_events import result_payload
from coach_server.api.http import Doc, Rest
from coach_server.clock import Clock, millis
from coach_server.errors import Unavailable
from coach_server.services.access import Principal
from coach_server.services.generate import PERSONAS, Generator
from coach_server.services.limits import Limits
from coach_server.services.report_input import ReportIn
from coach_server.services.reports import Reports
from coach_server.services.transcription import Transcriptions

MAX_REPORT_BODY = 2_000_000
STT_TOKEN_S = 30


class SpeechTokens(Protocol):
    async def grant(self, ttl_s: int) -> tuple[str, int]:
        """A short-lived token of the speech vendor and its life in seconds."""
        ...


class GenerateWish(wire.Inbound):
    """What to answer to. `systemPrompt` of older clients is ignored on purpose."""

    model_config = ConfigDict(json_schema_extra={"required": ["persona", "context"]})
    persona: wire.Text = Field("", max_length=64, json_schema_extra={"enum": list(PERSONAS)})
    context: wire.Text = Field("", max_length=wire.MAX_TEXT, json_schema_extra={"pattern": r"\S"})
    """What was said."""
    language: wire.Language | None = None


class SpeechTokenWish(wire.Inbound):
    """Who will use the token."""

    userId: wire.Id
    sessionId: wire.Id


class TranscribeWish(wire.Inbound):
    """A transcription session of yours."""

    sessionId: wire.StreamId


class TranscribeStart(TranscribeWish):
    """The session to open."""

    language: wire.Language | None = None
    sampleRate: int = Field(16_000, ge=8_000, le=48_000)


class TranscribeChunk(TranscribeWish):
    """Audio for the session. The service checks it; the schema says what it takes."""

    model_config = ConfigDict(json_schema_extra={"required": ["sessionId", "chunk"]})
    chunk: Any = Field(
        None,
        json_schema_extra={
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^[A-Za-z0-9+/]+={0,2}$",
        },
    )
    """Signed 16-bit PCM, at most 64 kB of audio."""
    speaker: Any = None
    """`agent` or `caller`, where it is known."""


class RestTools:
    def __init__(
        self,
        *,
        generator: Generator,
        reports: Reports,
        transcriptions: Transcriptions,
        speech_tokens: SpeechTokens | None,
        limits: Limits,
        clock: Clock,
        language: str,
    ) -> None:
        self._generator = generator
        self._reports = reports
        self._transcriptions = transcriptions
        self._speech_tokens = speech_tokens
        self._limits = limits
        self._clock = clock
        self._language = language

    def register(self, rest: Rest) -> None:
        generate = Doc(
            "Three things to say next, or what a sceptical customer would answer.",
            wire_out.GenerateAnswer,
            body=GenerateWish,
            refusals=(429,),
        )
        report = Doc(
            "Mail the report of a call.", wire_out.ReportAnswer, body=ReportIn, refusals=(403, 429, 502, 504)
        )
        speech_token = Doc(
            "A short-lived token of Deepgram.",
            wire_out.SpeechTokenAnswer,
            body=SpeechTokenWish,
            refusals=(429, 502, 503, 504),
        )
        start = Doc(
            "Open a transcription session.",
            wire_out.TranscribeStarted,
            body=TranscribeStart,
            refusals=(409, 429, 502, 503),
        )
        chunk = Doc(
            "Send audio and fetch what was heard.",
            wire_out.TranscribeTaken,
            body=TranscribeChunk,
            refusals=(404, 408, 429, 502, 503),
        )
        end = Doc(
            "Close the session and fetch its last words.",
            wire_out.TranscribeEnded,
            body=TranscribeWish,
            refusals=(404, 503),
        )
        rest.add("POST", "/api/ai/generate", self.generate, generate)
        rest.add("POST", "/api/generate-report", self.report, report)
        rest.add("POST", "/api/auth/deepgram-token", self.speech_token, speech_token)
        rest.add("POST", "/api/transcribe/start", self.start, start)
        rest.add("POST", "/api/transcribe/chunk", self.chunk, chunk)
        rest.add("POST", "/api/transcribe/end", self.end, end)

    async def generate(self, request: web.Request, principal: Principal) -> web.Response:
        wish = wire.parse(GenerateWish, await json_body(request))
        await self._limits.check("generate", principal.owner)
        data = await self._generator.generate(wish.persona, wish.context, wish.language or self._language)
        return json_response({"success": True, "data": data, "timestamp": millis(self._clock.now())})

    async def report(self, request: web.Request, principal: Principal) -> web.Response:
        report = wire.parse(ReportIn, await json_body(request, max_bytes=MAX_REPORT_BODY))
        return json_response({"success": True, "messageId": await self._reports.send_report(report)})

    async def speech_token(self, request: web.Request, principal: Principal) -> web.Response:
        wire.parse(SpeechTokenWish, await json_body(request))
        if self._speech_tokens is None:
            raise Unavailable("Deepgram is not configured on this server.")
        await self._limits.check("token", principal.owner)
        token, expires_in = await self._speech_tokens.grant(STT_TOKEN_S)
        created = datetime.fromtimestamp(self._clock.now(), UTC).isoformat().replace("+00:00", "Z")
        return json_response({"token": token, "expiresIn": expires_in, "createdAt": created})

    async def start(self, request: web.Request, principal: Principal) -> web.Response:
        wish = wire.parse(TranscribeStart, await json_body(request))
        await self._transcriptions.start(
            principal.owner, wish.sessionId, sample_rate=wish.sampleRate, language=wish.language
        )
        return json_response(
            {"success": True, "sessionId": wish.sessionId, "message": "Transcription session started"}
        )

    async def chunk(self, request: web.Request, principal: Principal) -> web.Response:
        wish = wire.parse(TranscribeChunk, await json_body(request))
        results = self._transcriptions.audio(
            principal.owner, wish.sessionId, wish.chunk, speaker=wish.speaker
        )
        return json_response(
            {
                "success": True,
                "message": "Audio chunk processed",
                "results": [result_payload(result) for result in results],
            }
        )

    async def end(self, request: web.Request, principal: Principal) -> web.Response:
        wish = wire.parse(TranscribeWish, await json_body(request))
        results = await self._transcriptions.end(principal.owner, wish.sessionId)
        return json_response(
            {
                "success": True,
                "sessionId": wish.sessionId,
                "results": [result_payload(result) for result in results],
            }
        )
