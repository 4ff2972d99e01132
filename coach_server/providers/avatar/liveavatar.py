"""LiveAvatar in FULL mode, without a context: it says only what it is told, and the browser tells it.

Wire: docs.liveavatar.com. A token is asked for with the key, and starts one session; there is no HTTP call to
speak, so texts travel as commands on the LiveKit data channel. A call has succeeded when its HTTP status says
so: the number in the envelope is not the same everywhere.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from coach_server.clock import Clock
from coach_server.domain.language import base
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers import bounded
from coach_server.providers.avatar import (
    GONE,
    LANGUAGES,
    MAX_TOKEN_CHARS,
    AvatarCapabilities,
    AvatarSession,
    AvatarWish,
    Delivery,
    Refused,
    RoomCommand,
    Speaks,
    Spoken,
    StopReason,
    checked_id,
    checked_room,
    refusal,
    seconds,
    speakable,
    stopped_on_failure,
    unreadable,
)

BASE_URL = "https://api.liveavatar.com"
CONTROL_TOPIC = "agent-control"

_REASONS = {
    StopReason.COMPLETED: "USER_CLOSED",
    StopReason.ABANDONED: "USER_DISCONNECTED",
    StopReason.REPLACED: "UNKNOWN",
    StopReason.EXPIRED: "MAX_DURATION_REACHED",
    StopReason.FAILED: "SERVER_ERROR",
}


class LiveAvatar:
    """`base_url` is http(s); a proxy or a stand-in may take its place. `sandbox` sessions cost nothing."""

    name = "liveavatar"

    def __init__(
        self,
        api_key: str,
        http: aiohttp.ClientSession,
        clock: Clock,
        *,
        avatar_id: str,
        voice_id: str = "",
        base_url: str = BASE_URL,
        sandbox: bool = False,
        timeout_s: float = 5.0,
    ) -> None:
        self._key = {"X-API-KEY": api_key}
        self._http = http
        self._clock = clock
        self._avatar_id = avatar_id
        self._voice_id = voice_id
        self._base = base_url.rstrip("/")
        self._sandbox = sandbox
        self._timeout_s = timeout_s
        self._configured = bool(api_key and avatar_id)

    def capabilities(self) -> AvatarCapabilities:
        return AvatarCapabilities(
            self.name,
            modes=("full",),
            languages=LANGUAGES,
            configured=self._configured,
            speaks=Speaks.CLIENT,
            sandbox=self._sandbox,
        )

    async def create(self, wish: AvatarWish) -> AvatarSession:
        """A wish's `knowledge_base_id` is left out: with a context the vendor's own model would answer."""
        if not self._configured:
            raise ProviderError("The avatar is not configured.")
        granted = _data(await self._call("POST", "/v1/sessions/token", self._key, self._wished(wish)))
        session_id, token = checked_id(granted.get("session_id")), _token(granted.get("session_token"))
        async with stopped_on_failure(self, session_id):
            bearer = {"Authorization": f"Bearer {token}"}
            started = _data(await self._call("POST", "/v1/sessions/start", bearer))
            return self._session(session_id, token, started, wish)

    async def refresh(self, session: AvatarSession) -> AvatarSession:
        """A new session: the vendor renews no token."""
        return await self.create(session.wish)

    async def speak(self, session_id: str, text: str) -> Spoken:
        command = _command("avatar.speak_text", session_id, text=speakable(text))
        return Spoken(Delivery.CLIENT, command=command)

    async def interrupt(self, session_id: str) -> RoomCommand | None:
        return _command("avatar.interrupt", session_id)

    async def keep_alive(self, session_id: str) -> None:
        await self._call("POST", "/v1/sessions/keep-alive", self._key, {"session_id": session_id})

    async def stop(self, session_id: str, reason: StopReason) -> None:
        body = {"session_id": session_id, "reason": _REASONS[reason]}
        await self._unless_gone("POST", "/v1/sessions/stop", body)

    async def erase(self, session_id: str) -> bool:
        await self._unless_gone("DELETE", f"/v1/sessions/{checked_id(session_id)}/events")
        return True

    def _wished(self, wish: AvatarWish) -> dict[str, object]:
        persona = {"language": base(wish.language)}
        if self._voice_id:
            persona["voice_id"] = self._voice_id
        return {
            "mode": "FULL",
            "avatar_id": self._avatar_id,
            "is_sandbox": self._sandbox,
            "max_session_duration": wish.max_duration_s,
            "video_settings": {"quality": "high", "encoding": "H264"},
            "avatar_persona": persona,
            "interactivity_type": "CONVERSATIONAL",
        }

    def _session(
        self, session_id: str, token: str, started: Mapping[str, Any], wish: AvatarWish
    ) -> AvatarSession:
        url, room_token = checked_room(started.get("livekit_url"), started.get("livekit_client_token"))
        limit = seconds(started.get("max_session_duration")) or wish.max_duration_s
        now = self._clock.now()
        return AvatarSession(
            self.name,
            session_id,
            wish,
            livekit_url=url,
            livekit_token=room_token,
            client_token=token,
            issued_at=now,
            expires_at=now + limit,
            max_duration_s=limit,
        )

    async def _unless_gone(self, method: str, path: str, body: Mapping[str, object] | None = None) -> None:
        try:
            await self._call(method, path, self._key, body)
        except Refused as error:
            if error.http_status not in GONE:
                raise

    async def _call(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, object] | None = None
    ) -> bytes:
        """The body of a success."""
        data = None if body is None else orjson.dumps(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                # A redirect would carry the key to another host.
                self._http.request(
                    method,
                    self._base + path,
                    data=data,
                    headers={**headers, **kind},
                    allow_redirects=False,
                ) as response,
            ):
                raw = await bounded.body(response)
        except TimeoutError as error:
            raise ProviderTimeout("The avatar service did not answer in time.", retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError("The avatar service could not be reached.", retryable=True) from error
        if not 200 <= response.status < 300:
            raise refusal(response.status, response.headers, self.name, _vendor_code(raw))
        return raw


def _command(event: str, session_id: str, **more: str) -> RoomCommand:
    head = {"event_id": str(uuid.uuid4()), "event_type": event, "session_id": session_id}
    return RoomCommand(CONTROL_TOPIC, head | more)


def _data(raw: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(raw)["data"]
    except (ValueError, TypeError, LookupError):
        raise unreadable() from None
    if not isinstance(data, dict):
        raise unreadable()
    return data


def _token(value: object) -> str:
    # It becomes a header: a line break in it would end that header.
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TOKEN_CHARS:
        raise unreadable()
    if not (value.isascii() and value.isprintable()):
        raise unreadable()
    return value


def _vendor_code(raw: bytes) -> object:
    try:
        return orjson.loads(raw)["code"]
    except (ValueError, TypeError, LookupError):
        return None
