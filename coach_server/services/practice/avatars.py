"""Avatars for roleplay sessions: opened without ever failing a session, kept alive, renewed, closed for sure.

Nothing is stored here. Whoever asks keeps `provider`, the vendor's session id, `issued_at` and `expires_at`
in the session's row, and queues a durable job that calls `close` in the transaction that ends the session or
replaces its avatar. What an opening leaves to be closed is named by `Opening.to_close`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.avatar import (
    DEFAULT_DURATION_S,
    Avatar,
    AvatarCapabilities,
    AvatarSession,
    AvatarWish,
    Delivery,
    LeftOpen,
    RoomCommand,
    Speaks,
    Spoken,
    StopReason,
)
from coach_server.services.breaker import Breaker

if TYPE_CHECKING:
    from loguru import Logger

KEEP_ALIVE_S = 60.0
KEEP_ALIVE_RETRY_S = 15.0  # two more tries before a vendor gives the session up (180 s)
ACTIVE_S = 60.0  # a client that was not heard for longer lets its avatar go
RENEW_AT = 0.9  # of a token's life
RENEW_RETRY_S = 15.0


class AvatarStatus(StrEnum):
    READY = "ready"
    UNAVAILABLE = "unavailable"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Opening:
    """What came of opening or renewing. `to_close`: the vendor's session that must still be closed."""

    status: AvatarStatus
    session: AvatarSession | None = None
    to_close: str | None = None


class Avatars:
    def __init__(self, avatar: Avatar, clock: Clock, breaker: Breaker | None = None) -> None:
        self._avatar = avatar
        self._clock = clock
        self._breaker = breaker or Breaker(clock)
        self._alive = Pace(clock)
        self._renewals = Pace(clock)

    @property
    def provider(self) -> str:
        return self._avatar.name

    def capabilities(self) -> AvatarCapabilities:
        return self._avatar.capabilities()

    async def open(
        self,
        session_id: str,
        language: str,
        *,
        max_duration_s: int = DEFAULT_DURATION_S,
        knowledge_base_id: str = "",
    ) -> Opening:
        """Never raises ProviderError: without an avatar the session goes on in text."""
        if self._is_off():
            return Opening(AvatarStatus.OFF)
        wish = AvatarWish(session_id, language, max_duration_s, knowledge_base_id)
        opening = await self._opened(session_id, lambda: self._avatar.create(wish))
        if opening.session is not None:
            self._log(session_id).info("an avatar was opened")
        return opening

    def due_for_refresh(self, expires_at: float, now: float, *, issued_at: float) -> bool:
        """Whether nine tenths of a token's life are over (seconds since the epoch)."""
        return now >= issued_at + (expires_at - issued_at) * RENEW_AT

    async def refresh(self, session: AvatarSession) -> Opening:
        """What follows `session`; the same one while renewing fails or was tried a moment ago.

        Where the vendor renews no token, `session` of the answer is another one and `to_close` names the old:
        close that once the client has moved.
        """
        if not self._renewals.takes(session.session_id, RENEW_RETRY_S) or not self._is_ours(session.provider):
            return self._unchanged(session)
        opening = await self._opened(session.wish.session_id, lambda: self._avatar.refresh(session))
        if opening.session is None:
            return self._unchanged(session, opening.to_close)
        if opening.session.session_id == session.session_id:
            return opening
        return Opening(AvatarStatus.READY, opening.session, to_close=session.session_id)

    async def keep_alive(self, provider: str, vendor_session_id: str, *, active_at: float) -> AvatarStatus:
        """Tell the vendor, at most once a minute, that the session goes on; not for a client that was last
        heard (`active_at`) more than a minute ago. UNAVAILABLE: the vendor says that it is over; it is told
        once, so stop asking."""
        if self._is_off() or not self._is_ours(provider):
            return AvatarStatus.OFF
        if self._clock.now() - active_at > ACTIVE_S or not self._alive.takes(vendor_session_id, KEEP_ALIVE_S):
            return AvatarStatus.READY
        try:
            await self._avatar.keep_alive(vendor_session_id)
        except ProviderError as error:
            self._log(None, vendor_session_id, error).warning("an avatar was not kept alive")
            if not error.retryable:
                return AvatarStatus.UNAVAILABLE
            self._alive.again_in(vendor_session_id, KEEP_ALIVE_RETRY_S)
        return AvatarStatus.READY

    async def speak(self, provider: str, vendor_session_id: str, text: str) -> Spoken:
        """Have `text` said. When that fails the client is left to show it. Raises Invalid."""
        if not self._is_ours(provider):
            return Spoken(Delivery.CLIENT)
        try:
            return await self._avatar.speak(vendor_session_id, text)
        except ProviderError as error:
            self._log(None, vendor_session_id, error).warning("an avatar did not speak")
            return Spoken(Delivery.CLIENT)

    async def interrupt(self, provider: str, vendor_session_id: str) -> RoomCommand | None:
        """Have the avatar fall silent: done, or by the command the client is to send."""
        if not self._is_ours(provider):
            return None
        try:
            return await self._avatar.interrupt(vendor_session_id)
        except ProviderError as error:
            self._log(None, vendor_session_id, error).warning("an avatar was not interrupted")
            return None

    async def close(self, provider: str, vendor_session_id: str, reason: StopReason) -> None:
        """End the vendor's session, as often as asked. Raises ProviderError: the job calling tries again."""
        self._alive.forget(vendor_session_id)
        self._renewals.forget(vendor_session_id)
        if not self._is_ours(provider):
            self._log(None, vendor_session_id).warning("an avatar of another vendor was left to idle out")
            return
        await self._avatar.stop(vendor_session_id, reason)
        self._log(None, vendor_session_id).bind(reason=reason.value).info("an avatar was closed")

    async def erase(self, provider: str, vendor_session_id: str) -> bool:
        """Delete what the vendor kept of a closed session. False: it offers no way, or is no longer ours.
        Raises ProviderError: the job that calls tries again."""
        return self._is_ours(provider) and await self._avatar.erase(vendor_session_id)

    async def _opened(self, session_id: str, attempt: Callable[[], Awaitable[AvatarSession]]) -> Opening:
        try:
            return Opening(AvatarStatus.READY, await self._tried_twice(attempt))
        except ProviderError as error:
            left = error.session_id if isinstance(error, LeftOpen) else None
            self._log(session_id, left, error).warning("an avatar could not be opened")
            return Opening(AvatarStatus.UNAVAILABLE, to_close=left)

    async def _tried_twice(self, attempt: Callable[[], Awaitable[AvatarSession]]) -> AvatarSession:
        """A passing fault gets a second try at once; one that took its time, or asks for time, does not."""
        try:
            with self._breaker.guard():
                return await attempt()
        except (LeftOpen, ProviderTimeout):
            raise
        except ProviderError as error:
            if not error.retryable or error.retry_after_s is not None:
                raise
        with self._breaker.guard():
            return await attempt()

    def _unchanged(self, session: AvatarSession, to_close: str | None = None) -> Opening:
        over = self._clock.now() >= session.expires_at
        return Opening(AvatarStatus.UNAVAILABLE if over else AvatarStatus.READY, session, to_close)

    def _is_off(self) -> bool:
        return self._avatar.capabilities().speaks is Speaks.NONE

    def _is_ours(self, provider: str) -> bool:
        """False after the operator has changed vendors."""
        return provider == self._avatar.name

    def _log(
        self, session_id: str | None, vendor_session_id: str | None = None, error: ProviderError | None = None
    ) -> Logger:
        fields = {"session": session_id, "avatar_session": vendor_session_id, "provider": self._avatar.name}
        if error is not None:
            fields |= {"code": error.code, "reason": error.message}
        return logger.bind(**{name: value for name, value in fields.items() if value is not None})


class Pace:
    """Lets each key through once in a while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}

    def takes(self, key: str, every_s: float) -> bool:
        """Whether the key's turn has come; if so the next one is `every_s` seconds from now."""
        now = self._clock.now()
        if self._next.get(key, now) > now:
            return False
        # Whoever's time has come is as good as unknown: nobody is kept for ever.
        self._next = {other: due for other, due in self._next.items() if due > now}
        self._next[key] = now + every_s
        return True

    def again_in(self, key: str, seconds: float) -> None:
        self._next[key] = self._clock.now() + seconds

    def forget(self, key: str) -> None:
        self._next.pop(key, None)
