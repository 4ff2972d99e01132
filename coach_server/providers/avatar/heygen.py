"""HeyGen Streaming Avatar, the legacy wire that LiveAvatar has superseded: `/v1/streaming.*`, version 2.

Wire: docs.heygen.com, "Streaming API", and seed 000. Answers are `{code, data, message}`; any code but 100 is
a failure, also with HTTP 200.
"""

from __future__ import annotations

import asyncio
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

BASE_URL = "https://api.heygen.com"
TOKEN_LIFE_S = 86_400  # seed 000: HeyGen tokens live 24 h
IDLE_S = 180  # the vendor ends a session nobody keeps alive: what bounds the bill of one we lost
SUCCESS = 100
LIST_BYTES = 1 << 20


class HeyGen:
    """`base_url` is http(s); a proxy or a stand-in may take its place."""

    name = "heygen"

    def __init__(
        self,
        api_key: str,
        http: aiohttp.ClientSession,
        clock: Clock,
        *,
        avatar_id: str,
        voice_id: str = "",
        knowledge_base_id: str = "",
        base_url: str = BASE_URL,
        timeout_s: float = 5.0,
    ) -> None:
        self._headers = {"X-Api-Key": api_key, "Content-Type": "application/json"}
        self._http = http
        self._clock = clock
        self._avatar_id = avatar_id
        self._voice_id = voice_id
        self._knowledge_base_id = knowledge_base_id
        self._base = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._configured = bool(api_key and avatar_id)

    def capabilities(self) -> AvatarCapabilities:
        return AvatarCapabilities(
            self.name,
            modes=("streaming",),
            languages=LANGUAGES,
            configured=self._configured,
            speaks=Speaks.SERVER,
            deprecated=True,
        )

    async def create(self, wish: AvatarWish) -> AvatarSession:
        if not self._configured:
            raise ProviderError("The avatar is not configured.")
        data = await self._post("streaming.new", self._new(wish))
        session_id = checked_id(data.get("session_id"))
        async with stopped_on_failure(self, session_id):
            session = self._session(session_id, data, wish)
            await self._post("streaming.start", {"session_id": session_id})
        return session

    async def refresh(self, session: AvatarSession) -> AvatarSession:
        """A new session: the room's token cannot be renewed. `streaming.create_token` gives another kind, one
        that opens sessions on the account, which is nothing to hand to a browser (trust.md G15)."""
        return await self.create(session.wish)

    async def speak(self, session_id: str, text: str) -> Spoken:
        body = {
            "session_id": session_id,
            "text": speakable(text),
            "task_type": "repeat",  # `talk` would let the vendor's own model answer
            "task_mode": "async",
        }
        data = await self._post("streaming.task", body)
        task_id, duration = data.get("task_id"), data.get("duration_ms")
        return Spoken(
            Delivery.SERVER,
            task_id=task_id[:128] if isinstance(task_id, str) else None,
            duration_ms=round(duration) if isinstance(duration, int | float) and duration >= 0 else None,
        )

    async def interrupt(self, session_id: str) -> RoomCommand | None:
        await self._post("streaming.interrupt", {"session_id": session_id})
        return None

    async def keep_alive(self, session_id: str) -> None:
        await self._post("streaming.keep_alive", {"session_id": session_id})

    async def stop(self, session_id: str, reason: StopReason) -> None:
        try:
            await self._post("streaming.stop", {"session_id": session_id})
        except Refused as error:
            # The same refusal stands for "unknown" and for anything else: believe the list of what is active.
            if error.http_status not in GONE | {200}:
                raise
            if await self._is_active(session_id):
                raise ProviderError("The avatar session could not be stopped.", retryable=True) from error

    async def erase(self, session_id: str) -> bool:
        return False

    async def _is_active(self, session_id: str) -> bool:
        status, headers, raw = await self._exchange("GET", "streaming.list", None)
        self._judged(status, headers, raw)
        return orjson.dumps(session_id) in raw

    def _new(self, wish: AvatarWish) -> dict[str, object]:
        voice: dict[str, object] = {"rate": 1.0}
        if self._voice_id:
            voice["voice_id"] = self._voice_id
        body: dict[str, object] = {
            "version": "v2",
            "avatar_id": self._avatar_id,
            "quality": "high",
            "voice": voice,
            "language": base(wish.language),
            "activity_idle_timeout": IDLE_S,
        }
        if knowledge := wish.knowledge_base_id or self._knowledge_base_id:
            body["knowledge_base_id"] = knowledge
        return body

    def _session(self, session_id: str, data: Mapping[str, Any], wish: AvatarWish) -> AvatarSession:
        url, token = checked_room(data.get("url"), data.get("access_token"))
        endpoint = data.get("realtime_endpoint")
        limit = seconds(data.get("session_duration_limit"))
        now = self._clock.now()
        return AvatarSession(
            self.name,
            session_id,
            wish,
            livekit_url=url,
            livekit_token=token,
            realtime_endpoint=endpoint if isinstance(endpoint, str) else "",
            issued_at=now,
            expires_at=now + min(limit or TOKEN_LIFE_S, TOKEN_LIFE_S),
            max_duration_s=limit or wish.max_duration_s,
        )

    async def _post(self, call: str, body: Mapping[str, object]) -> dict[str, Any]:
        return self._judged(*await self._exchange("POST", call, orjson.dumps(body)))

    def _judged(self, status: int, headers: Mapping[str, str], raw: bytes) -> dict[str, Any]:
        """The `data` of a success, empty where it is not an object."""
        try:
            envelope = orjson.loads(raw)
        except ValueError:
            envelope = None
        code = envelope.get("code") if isinstance(envelope, dict) else None
        if status != 200:
            raise refusal(status, headers, self.name, code)
        if code is None:
            raise unreadable()
        if code != SUCCESS:
            raise refusal(status, headers, self.name, code)
        data = envelope.get("data")
        return data if isinstance(data, dict) else {}

    async def _exchange(
        self, method: str, call: str, body: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        url = f"{self._base}/v1/{call}"
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                # A redirect would carry the key to another host.
                self._http.request(
                    method, url, data=body, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                return response.status, response.headers, await bounded.body(response, LIST_BYTES)
        except TimeoutError as error:
            raise ProviderTimeout("The avatar service did not answer in time.", retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError("The avatar service could not be reached.", retryable=True) from error
