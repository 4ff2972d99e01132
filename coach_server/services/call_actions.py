"""What may be asked of a live call from outside, and the answer that is waited for."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

from coach_server.domain.events import AlternativeWanted, ModeSet, NextTipWanted, OptionSelected
from coach_server.domain.transcript import Speaker
from coach_server.errors import CoachError, NotFound, StorageFailed
from coach_server.services.access import Principal

Wish = OptionSelected | NextTipWanted | AlternativeWanted | ModeSet
Reply = asyncio.Future[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from."""

    principal: Principal
    sid: str


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who wants to speak for a call, here or through another instance."""

    principal_key: str
    user_id: str | None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """A segment. `said_at`: seconds since the epoch."""

    speaker: Speaker
    text: str
    is_final: bool
    said_at: float
    segment_id: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Do:
    """A wish that goes to the machine as it is."""

    wish: Wish


@dataclass(frozen=True, slots=True)
class End:
    pass


@dataclass(frozen=True, slots=True)
class Resume:
    token: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class Greet:
    """The same START once more: answer with the call it started."""

    token: str


Action = Say | Do | End | Resume | Greet


@dataclass(slots=True)
class Request:
    origin: Origin
    action: Action
    reply: Reply

    @property
    def contender(self) -> Contender:
        token = self.action.token if isinstance(self.action, Resume | Greet) else None
        return Contender(self.origin.principal.key, self.origin.principal.user_id, token)

    def answer(self, content: dict[str, Any]) -> None:
        if not self.reply.done():
            self.reply.set_result(content)

    def refuse(self, error: CoachError) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)
            self.reply.exception()  # whoever asked for no answer must not make asyncio complain

    def answer_when(self, stored: asyncio.Future[None], content: dict[str, Any]) -> None:
        """Answer once `stored` is done; refuse if it failed."""

        def settle(done: asyncio.Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if done.cancelled() or error is not None:
                self.refuse(error if isinstance(error, CoachError) else StorageFailed())
            else:
                self.answer(content)

        stored.add_done_callback(settle)


def unknown() -> NotFound:
    """The same for ids that do not exist and for other people's."""
    return NotFound("There is no such conversation.", field="conversationId")


def digest(token: str) -> str:
    """What is stored of a resume token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
