"""What a user has practised: the one place where progress is worked out, kept and read again.

Progress is a function of what was scored (`domain/method/progress.py`). It is worked out whenever something
new is scored and kept in the user's row in the same transaction; what is read often is remembered here
until then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.clock import Clock
from coach_server.domain.method.methodology import Methodology, SubScore
from coach_server.domain.method.progress import Practice as Practised
from coach_server.domain.method.progress import PracticeKind, Progress, progress_document, progress_of
from coach_server.errors import Invalid
from coach_server.providers.bus import Bus
from coach_server.providers.mail import is_address
from coach_server.services.access import Principal
from coach_server.services.practice.access import acting_user, require_reader
from coach_server.storage import practice
from coach_server.storage.database import Database
from coach_server.storage.practice import ProgressRow, User
from coach_server.storage.roleplays import Session

REMEMBERED = 2000
# A step grows stale by time alone, and another instance may be cut off from the bus.
FRESH_S = 300.0
FORGET = "progress"

Key = tuple[str, str, str]


class Practice:
    def __init__(self, database: Database, clock: Clock, bus: Bus) -> None:
        self._database = database
        self._clock = clock
        self._bus = bus
        self._known: OrderedDict[Key, tuple[float, Progress]] = OrderedDict()

    # --- progress

    async def progress(self, principal: str, user_id: str, method: Methodology) -> Progress:
        """Of this user of the API key named `principal`."""
        key = (principal, user_id, method.stamp)
        known = self._known.get(key)
        if known is not None and self._clock.now() - known[0] < FRESH_S:
            self._known.move_to_end(key)
            return known[1]
        now = self._clock.now()
        async with self._database.read() as conn:
            found = await self._worked_out(conn, principal, user_id, method)
        self._known[key] = (now, found)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    async def document(
        self, principal: Principal, user_id: str, method: Methodology, language: str
    ) -> dict[str, Any]:
        """`GET users/{userId}/progress`. Raises Forbidden."""
        user = await self._stored(principal.key, user_id)
        require_reader(principal, user_id, user.team_id if user else None)
        progress = await self.progress(principal.key, user_id, method)
        return progress_document(progress, method, language, user_id)

    async def keep(
        self, conn: AsyncConnection, principal: str, user_id: str, method: Methodology
    ) -> Progress:
        """Work it out anew and keep it, in the transaction that changed it. Call `forget` after that."""
        found = await self._worked_out(conn, principal, user_id, method)
        await practice.keep_progress(conn, _row(found, principal, user_id, method, self._clock.now()))
        return found

    async def forget(self, principal: str, user_id: str) -> None:
        """Something new was scored, or erased: read it again, here and elsewhere."""
        self._forget_here(principal, user_id)
        await self._bus.publish(None, {"type": FORGET, "principal": principal, "user": user_id})

    async def session_over(self, session: Session) -> None:
        """A session counts from its end on, and so do the steps ticked off in it, scored or not."""
        await self.forget(session.principal, session.user_id)

    async def hear(self, message: Mapping[str, Any]) -> None:
        """A message from another instance."""
        if message.get("type") == FORGET:
            self._forget_here(str(message.get("principal")), str(message.get("user")))

    def _forget_here(self, principal: str, user_id: str) -> None:
        for key in [key for key in self._known if key[:2] == (principal, user_id)]:
            del self._known[key]

    async def _worked_out(
        self, conn: AsyncConnection, principal: str, user_id: str, method: Methodology
    ) -> Progress:
        rows = await practice.practised(conn, principal, user_id, method.id)
        return progress_of([_practised(row) for row in rows], method, self._clock.now())

    # --- users

    async def user(self, principal: Principal, user_id: str) -> User:
        """The user's row, made when it is first needed."""
        known = await self._stored(principal.key, user_id)
        if known is not None and (principal.team_id is None or known.team_id == principal.team_id):
            return known
        now = self._clock.now()
        new = known or User(principal.key, user_id, None, created_at=now, updated_at=now)
        if principal.user_id == user_id and principal.team_id is not None:
            new = replace(new, team_id=principal.team_id, updated_at=now)
        async with self._database.transaction() as conn:
            await practice.keep_user(conn, new)
        return new

    async def settings(self, principal: Principal, user_id: str) -> dict[str, Any]:
        """What the user chose. Raises Forbidden."""
        acting_user(principal, user_id)
        return _chosen(await self.user(principal, user_id))

    async def choose(
        self,
        principal: Principal,
        user_id: str,
        *,
        store_transcripts: bool | None = None,
        feedback_email: str | None = None,
        consent: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Change what is given; an empty address ends the mails. Raises Invalid, Forbidden."""
        acting_user(principal, user_id)
        if feedback_email and not is_address(feedback_email):
            raise Invalid("feedbackEmail is not an e-mail address.", field="feedbackEmail")
        before = await self.user(principal, user_id)
        changed = replace(
            before,
            store_transcripts=before.store_transcripts if store_transcripts is None else store_transcripts,
            feedback_email=before.feedback_email if feedback_email is None else (feedback_email or None),
            consent=before.consent if consent is None else dict(consent),
            updated_at=self._clock.now(),
        )
        async with self._database.transaction() as conn:
            await practice.keep_user(conn, changed)
        return _chosen(changed)

    async def _stored(self, principal: str, user_id: str) -> User | None:
        async with self._database.read() as conn:
            return await practice.user(conn, principal, user_id)


def _chosen(user: User) -> dict[str, Any]:
    return {
        "userId": user.user_id,
        "teamId": user.team_id,
        "storeTranscripts": user.store_transcripts,
        "feedbackEmail": user.feedback_email,
        "consent": user.consent,
    }


def _practised(row: practice.Practised) -> Practised:
    known = set(SubScore)
    return Practised(
        session_id=row.session_id,
        kind=PracticeKind(row.kind),
        completed_at=row.completed_at,
        overall=row.overall_score,
        technique_scores=row.technique_scores,
        manual_steps=row.manual,
        duration_s=row.duration_seconds,
        sub_scores={SubScore(n): s for n, s in row.sub_scores.items() if n in known and s is not None},
    )


def _row(progress: Progress, principal: str, user_id: str, method: Methodology, now: float) -> ProgressRow:
    """As seed 000's table keeps it."""
    stats = {
        id: {"attempts": step.attempts, "bestScore": step.best, "avgScore": step.average}
        for id, step in progress.steps.items()
        if step.attempts
    }
    return ProgressRow(
        principal=principal,
        user_id=user_id,
        methodology=method.id,
        current_phase_id=progress.current_phase,
        current_step_id=progress.current_step,
        unlocked_phases=list(progress.unlocked_phases),
        unlocked_steps=list(progress.unlocked_steps),
        total_sessions=progress.total_sessions,
        average_score=progress.average_score,
        best_score=progress.best_score,
        total_duration_seconds=round(progress.total_duration_s),
        step_stats=stats,
        last_session_at=progress.last_session_at,
        updated_at=now,
    )
