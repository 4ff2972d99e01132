"""/api/roleplay/sessions: the seed's routes, and talking to the customer without an avatar."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import orjson
from aiohttp import web

from coach_server.api import faults, wire
from coach_server.api.answers import json_body, json_response
from coach_server.api.http import PRACTISING, Doc, Rest
from coach_server.api.practice import out as practice_out
from coach_server.api.practice import wire as practice_wire
from coach_server.services.access import PERSONAL, Principal, Role
from coach_server.services.practice.desk import PracticeDesk
from coach_server.services.practice.sessions import Roleplays, StartWish
from coach_server.services.practice.talk import RoleplayTalk, Said

EVENT_STREAM = "text/event-stream"
# Whoever may begin something; a join token belongs to a session that has begun.
BEGINNERS = (*PERSONAL, Role.GUEST)


class RestRoleplay:
    def __init__(self, sessions: Roleplays, talk: RoleplayTalk, desk: PracticeDesk) -> None:
        self._sessions = sessions
        self._talk = talk
        self._desk = desk

    def register(self, rest: Rest) -> None:
        one = "/api/roleplay/sessions/{id}"
        out = practice_out
        start = Doc(
            "Start a practice session.",
            out.SessionStarted,
            body=practice_wire.StartRoleplay,
            refusals=(403, 404, 409, 429, 503),
        )
        say = Doc(
            "Store a message of the talk.",
            out.MessageStored,
            body=practice_wire.SayMessage,
            refusals=(409, 429, 503),
        )
        ask = Doc(
            "Say something; the customer answers.",
            out.ReplyAnswer,
            body=practice_wire.AskCustomer,
            refusals=(409, 429, 503),
        )
        feedback = Doc("What the session came to.", out.RoleplayFeedback, refusals=(409,))
        analyse = Doc("Order its analysis again.", out.AnalysisOrdered, refusals=(409, 429, 503))
        stop = Doc("Stop it.", out.SessionStopped, refusals=(503,))
        rest.add("POST", "/api/roleplay/sessions/start", self.start, start, roles=BEGINNERS)
        rest.add("POST", f"{one}/stop", self.stop, stop, roles=PRACTISING)
        rest.add(
            "GET", f"{one}/status", self.status, Doc("How it stands.", out.SessionStatus), roles=PRACTISING
        )
        rest.add("POST", f"{one}/transcript", self.transcript, say, roles=PRACTISING)
        rest.add("POST", f"{one}/message", self.message, ask, roles=PRACTISING)
        rest.add("POST", f"{one}/analyze", self.analyse, analyse, roles=PRACTISING)
        rest.add("GET", f"{one}/feedback", self.feedback, feedback, roles=PRACTISING)

    async def start(self, request: web.Request, principal: Principal) -> web.Response:
        wish = wire.parse(practice_wire.StartRoleplay, await json_body(request))
        consent = wish.consent.model_dump(exclude_none=True) if wish.consent else None
        answer = await self._sessions.start(
            principal,
            StartWish(
                user_id=wish.userId,
                scenario_id=wish.scenarioId,
                phase_id=wish.startPhaseId,
                step_id=wish.startStepId,
                language=wish.language,
                methodology=wish.methodology,
                store_transcript=wish.storeTranscript,
                consent=consent,
                idempotency_key=wish.idempotencyKey,
                avatar=wish.avatar,
            ),
        )
        return json_response(answer)

    async def stop(self, request: web.Request, principal: Principal) -> web.Response:
        """The web client sends no body, the seed `{sessionId}`: neither is needed, so it is not read."""
        return json_response(await self._sessions.stop(principal, _id(request)))

    async def status(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._sessions.status(principal, _id(request)))

    async def transcript(self, request: web.Request, principal: Principal) -> web.Response:
        said = wire.parse(practice_wire.SayMessage, await json_body(request))
        self._talk.take(principal, _id(request))
        answer = await self._talk.hear(
            principal,
            _id(request),
            Said(
                speaker=said.speaker,
                text=said.message,
                said_at=said.timestamp,
                message_id=said.messageId,
                duration_ms=said.durationMs,
                confidence=said.confidence,
            ),
        )
        return json_response(answer)

    async def message(self, request: web.Request, principal: Principal) -> web.StreamResponse:
        wish = wire.parse(practice_wire.AskCustomer, await json_body(request))
        self._talk.take(principal, _id(request))
        said = Said("user", wish.text, message_id=wish.messageId or str(uuid.uuid4()))
        pieces = self._talk.answer(principal, _id(request), said)
        if EVENT_STREAM in request.headers.get("Accept", ""):
            return await _streamed(request, pieces)
        last: Mapping[str, Any] = {}
        async for piece in pieces:
            last = piece
        return json_response({"messageId": last["messageId"], "reply": last["reply"]})

    async def analyse(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.analyse(principal, _id(request)))

    async def feedback(self, request: web.Request, principal: Principal) -> web.Response:
        return json_response(await self._desk.feedback(principal, _id(request)))


async def _streamed(
    request: web.Request, pieces: AsyncGenerator[Mapping[str, Any], None]
) -> web.StreamResponse:
    """Each piece as it comes (contract §10.2: streaming that is buffered feels like waiting). What is refused
    before the first one is an ordinary refusal; a reader who leaves stops the answer."""
    async with aclosing(pieces):
        first = await anext(pieces)
        response = web.StreamResponse(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        response.content_type = EVENT_STREAM
        await response.prepare(request)
        with suppress(ConnectionError):
            await _write(response, first, pieces)
    return response


async def _write(
    response: web.StreamResponse, first: Mapping[str, Any], rest: AsyncIterator[Mapping[str, Any]]
) -> None:
    """Raises ConnectionError when the reader has left."""
    await response.write(_data(first))
    try:
        async for piece in rest:
            await response.write(_data(piece))
    except ConnectionError:
        raise
    except Exception as error:
        fault = faults.to_coach_error(error)
        await response.write(_data({"type": "error", "code": fault.code, "message": fault.message}))
    await response.write_eof()


def _data(piece: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(dict(piece)) + b"\n\n"


def _id(request: web.Request) -> str:
    return request.match_info["id"]
