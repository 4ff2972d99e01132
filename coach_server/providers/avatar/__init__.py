"""A talking face for Hugo: a vendor's session that streams video into a LiveKit room the browser joins.

Vendor files in this folder; their JSON dies in them. A session bills by the minute from its opening, so an
opening that fails half-way is stopped here, and one that could not be stopped is named by the error.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from loguru import logger

from coach_server.errors import Invalid, ProviderError

MAX_TEXT_CHARS = 4000
MAX_TOKEN_CHARS = 8192
DEFAULT_DURATION_S = 1800
LANGUAGES = ("nl", "en", "he")

# What a session that is over, or never was, answers with. 401 and 403 are about the key, not the session.
GONE = frozenset({400, 404, 409, 410})

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_ROOM = re.compile(r"wss?://[\x21-\x7e]{1,2000}")
_UNSPEAKABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_SECONDS = re.compile(r"[0-9]{1,5}")

_REFUSALS = {
    200: "The avatar service did not accept the request.",  # HeyGen refuses in the envelope as well
    400: "The avatar service did not accept the request.",
    401: "The avatar service refused the credentials.",
    402: "The account at the avatar service has no credit.",
    403: "The avatar service refused the credentials.",
    404: "The avatar service does not know this session.",
    429: "The avatar service has too many requests.",
}


class Speaks(StrEnum):
    """Who brings a text to the avatar."""

    SERVER = "server"
    CLIENT = "client"
    NONE = "none"


class Delivery(StrEnum):
    """SERVER: the vendor has the text. CLIENT: the browser sends the command it is given; without a command
    it shows the text itself."""

    SERVER = "server"
    CLIENT = "client"


class StopReason(StrEnum):
    COMPLETED = "completed"
    ABANDONED = "abandoned"
    REPLACED = "replaced"
    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AvatarWish:
    """What is to be opened. `session_id` is the roleplay session's. `language` is a BCP 47 tag.
    `knowledge_base_id` takes the place of the configured one where the vendor has such a thing."""

    session_id: str
    language: str = "nl"
    max_duration_s: int = DEFAULT_DURATION_S
    knowledge_base_id: str = ""


@dataclass(frozen=True, slots=True)
class AvatarSession:
    """An open session. `session_id` is the vendor's; times are seconds since the epoch.

    `livekit_token` opens this one room. `client_token` drives this one session, where the vendor has such a
    token. Nothing here opens anything else on the account.
    """

    provider: str
    session_id: str
    wish: AvatarWish
    livekit_url: str = ""
    livekit_token: str = field(default="", repr=False)
    client_token: str = field(default="", repr=False)
    sdp_offer: str | None = None
    """Seed 000's field: always None, as no vendor has offered SDP since version 1 of the HeyGen wire."""
    realtime_endpoint: str = ""
    issued_at: float = 0.0
    expires_at: float = 0.0
    """When the token or the session itself ends, whichever is first."""
    max_duration_s: int = DEFAULT_DURATION_S

    @property
    def access_token(self) -> str:
        """The room's token under the name it has in seed 000."""
        return self.livekit_token


@dataclass(frozen=True, slots=True)
class RoomCommand:
    """What the browser publishes, as JSON, on the LiveKit data channel `topic`."""

    topic: str
    data: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spoken:
    """How a text reaches the avatar. `task_id` and `duration_ms` where the vendor tells them."""

    delivery: Delivery
    task_id: str | None = None
    duration_ms: int | None = None
    command: RoomCommand | None = None


@dataclass(frozen=True, slots=True)
class AvatarCapabilities:
    provider: str
    modes: tuple[str, ...]
    languages: tuple[str, ...]
    configured: bool
    speaks: Speaks
    deprecated: bool = False
    sandbox: bool = False


class Avatar(Protocol):
    """Every call raises ProviderError, in our words, and says whether another try may help."""

    @property
    def name(self) -> str: ...

    def capabilities(self) -> AvatarCapabilities: ...

    async def create(self, wish: AvatarWish) -> AvatarSession:
        """A started session. Raises LeftOpen where one was begun, did not start, and could not be stopped."""
        ...

    async def refresh(self, session: AvatarSession) -> AvatarSession:
        """What follows `session`, which goes on until it is stopped. Its `session_id` differs where the
        vendor cannot renew a token and a new session was opened."""
        ...

    async def speak(self, session_id: str, text: str) -> Spoken:
        """Have exactly `text` said. Raises Invalid for a text that is blank or too long."""
        ...

    async def interrupt(self, session_id: str) -> RoomCommand | None:
        """Stop talking: done (None), or by this command of the browser's."""
        ...

    async def keep_alive(self, session_id: str) -> None: ...

    async def stop(self, session_id: str, reason: StopReason) -> None:
        """End the session; one that is over or unknown is fine."""
        ...

    async def erase(self, session_id: str) -> bool:
        """Delete what the vendor kept of a stopped session. False: the vendor offers no way to."""
        ...


class Refused(ProviderError):
    """The avatar service refused."""

    def __init__(
        self, message: str, *, http_status: int, retryable: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after_s=retry_after_s)
        self.http_status = http_status


class LeftOpen(ProviderError):
    """The avatar could not be opened, and what was begun could not be stopped."""

    def __init__(self, session_id: str, cause: ProviderError) -> None:
        super().__init__(cause.message, retryable=cause.retryable, retry_after_s=cause.retry_after_s)
        self.session_id = session_id


def refusal(status: int, headers: Mapping[str, str], provider: str, vendor_code: object = None) -> Refused:
    """The error for a vendor's answer; 408, 429 and 5xx may pass. Only numbers of the vendor's are logged."""
    known = vendor_code if isinstance(vendor_code, int) else None
    logger.bind(provider=provider, status=status, vendor_code=known).info("the avatar service refused")
    return Refused(
        _REFUSALS.get(status, "The avatar service is not available."),
        http_status=status,
        retryable=status in (408, 429) or status >= 500,
        retry_after_s=_retry_after(headers),
    )


def unreadable() -> ProviderError:
    return ProviderError("The avatar service sent something unreadable.", retryable=True)


def checked_id(value: object) -> str:
    """A vendor's session id: it goes into paths and logs. Raises ProviderError."""
    if not isinstance(value, str) or not _ID.fullmatch(value) or not value.strip("."):
        raise unreadable()
    return value


def checked_room(url: object, token: object) -> tuple[str, str]:
    """The LiveKit address and token a browser is sent to. Raises ProviderError."""
    if not isinstance(url, str) or not _ROOM.fullmatch(url):
        raise unreadable()
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_CHARS:
        raise unreadable()
    return url, token


def seconds(value: object) -> int | None:
    """A vendor's duration in seconds, None where it told none that makes sense."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 7 * 86_400:
        return None
    return int(value)


def speakable(text: str) -> str:
    """`text` on one line, without what cannot be said or encoded."""
    said = _UNSPEAKABLE.sub(" ", text).strip()
    if not said:
        raise Invalid("There is nothing to say.", field="text")
    if len(said) > MAX_TEXT_CHARS:
        raise Invalid(f"The avatar says at most {MAX_TEXT_CHARS} characters at once.", field="text")
    return said


@asynccontextmanager
async def stopped_on_failure(avatar: Avatar, session_id: str) -> AsyncIterator[None]:
    """Stop the session when the body fails or is cancelled. Raises LeftOpen when that fails as well."""
    try:
        yield
    except BaseException as error:
        try:
            await avatar.stop(session_id, StopReason.FAILED)
        except ProviderError:
            logger.bind(provider=avatar.name, avatar_session=session_id).error("an avatar session stays open")
            if isinstance(error, ProviderError):
                raise LeftOpen(session_id, error) from error
        raise


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header; its date form is rare at these vendors and left out."""
    value = headers.get("Retry-After", "")
    return float(value) if _SECONDS.fullmatch(value) else None
