"""A stand-in for LiveAvatar's `/v1/sessions/…` in FULL mode: a key buys a token, which starts one session."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from coach_server.clock import Clock
from tests.fakes.heygen import WORDS, Call, FakeVendor

KEY = "la-master-key"
AVATAR = "0b3f8d9e-6f2b-4a52-8a0c-6f3d1f4f9a11"
IDLE_S = 300
REASONS = {
    "UNKNOWN",
    "USER_DISCONNECTED",
    "SERVER_ERROR",
    "IDLE_TIMEOUT",
    "NO_CREDITS",
    "USER_CLOSED",
    "AVATAR_DELETED",
    "MAX_DURATION_REACHED",
    "ZOMBIE_SESSION_REAP",
    "AGENT_HANG_UP",
}


@dataclass
class Session:
    id: str
    token: str
    asked: Mapping[str, Any]
    touched_at: float
    started: bool = False
    stop_reason: str | None = None
    erased: bool = False


class FakeLiveAvatar(FakeVendor):
    """`code` is the number of a success, which differs among the vendor's own documents. Calls are named by
    their path after `/v1/sessions/`, the erasure `events`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.code = 1000
        self.changes: dict[str, Any] = {}
        self.token_changes: dict[str, Any] = {}
        self.sessions: dict[str, Session] = {}

    @property
    def open(self) -> list[str]:
        """The sessions that bill: started, not stopped, not left alone."""
        return [id for id, session in self.sessions.items() if session.started and self._is_alive(session)]

    def _is_alive(self, session: Session) -> bool:
        return session.stop_reason is None and self.clock.now() - session.touched_at < IDLE_S

    def _name(self, request: web.Request) -> str:
        return request.path.removeprefix("/v1/sessions/").rpartition("/")[2]

    def _answer(self, call: Call) -> web.Response:
        match call.method, call.name:
            case "POST", "token":
                return self._token(call)
            case "POST", "start":
                return self._start(call)
            case "POST", "keep-alive" | "stop":
                return self._of_session(call)
            case "DELETE", "events":
                return self._erase(call)
            case _:
                return _refusal(404)

    def _token(self, call: Call) -> web.Response:
        if call.headers.get("X-API-KEY") != KEY:
            return _refusal(401)
        body = call.body or {}
        if not _is_right(body):
            return _refusal(422)
        session = Session(str(uuid.uuid4()), f"session.jwt.{uuid.uuid4().hex}", body, self.clock.now())
        self.sessions[session.id] = session
        return self._success({"session_id": session.id, "session_token": session.token} | self.token_changes)

    def _start(self, call: Call) -> web.Response:
        session = self._bearer(call)
        if session is None or call.body is not None:
            return _refusal(401)
        if session.started or not self._is_alive(session):
            return _refusal(400)
        session.started = True
        session.touched_at = self.clock.now()
        data = {
            "session_id": session.id,
            "livekit_url": "wss://room.livekit.example",
            "livekit_client_token": f"room.jwt.of-{session.id}",
            "livekit_agent_token": "agent.jwt.secret",
            "max_session_duration": session.asked["max_session_duration"],
            "ws_url": None,
        }
        return self._success(data | self.changes, status=201)

    def _of_session(self, call: Call) -> web.Response:
        session = self._bearer(call)
        if session is None and call.headers.get("X-API-KEY") != KEY:
            return _refusal(401)
        session = session or self.sessions.get((call.body or {}).get("session_id", ""))
        if session is None:
            return _refusal(404)
        if not self._is_alive(session):
            return _refusal(400)
        session.touched_at = self.clock.now()
        if call.name == "stop":
            return self._stop(session, call.body.get("reason", "UNKNOWN"))
        return self._success(None)

    def _stop(self, session: Session, reason: str) -> web.Response:
        if reason not in REASONS:
            return _refusal(422)
        session.stop_reason = reason
        self.changed()
        return self._success(None)

    def _erase(self, call: Call) -> web.Response:
        if call.headers.get("X-API-KEY") != KEY:
            return _refusal(401)
        session = self.sessions.get(call.path.split("/")[-2])
        if session is None:
            return _refusal(404)
        session.erased = True
        return self._success(None)

    def _bearer(self, call: Call) -> Session | None:
        token = call.headers.get("Authorization", "").removeprefix("Bearer ")
        return next((session for session in self.sessions.values() if session.token == token), None)

    def _success(self, data: Any, status: int = 200) -> web.Response:
        return web.json_response({"code": self.code, "data": data, "message": WORDS}, status=status)


def _is_right(body: Mapping[str, Any]) -> bool:
    video, persona = body.get("video_settings", {}), body.get("avatar_persona", {})
    return (
        body.get("mode") == "FULL"
        and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(body.get("avatar_id"))) is not None
        and isinstance(body.get("is_sandbox", False), bool)
        and isinstance(body.get("max_session_duration"), int)
        and video.get("quality") in ("very_high", "high", "medium", "low")
        and video.get("encoding") in ("H264", "VP8")
        and persona.keys() <= {"voice_id", "context_id", "language", "voice_settings", "stt_config"}
        and body.get("interactivity_type") in ("CONVERSATIONAL", "PUSH_TO_TALK")
    )


def _refusal(status: int) -> web.Response:
    return web.json_response({"code": 4000, "data": None, "message": WORDS}, status=status)
