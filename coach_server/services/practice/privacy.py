"""What a user practised, to hand out (GDPR Art. 15 and 20) and to erase (Art. 17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import orjson

from coach_server.clock import Clock
from coach_server.providers.bus import Bus
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.feedback_mail import MAIL_FEEDBACK
from coach_server.services.practice.messages import drill_told, iso
from coach_server.services.practice.progress import Practice
from coach_server.services.practice.store import ANALYSE, STOP_AVATAR
from coach_server.storage import jobs, practice, practice_privacy, roleplays
from coach_server.storage.crypto import Unreadable
from coach_server.storage.database import Database

BATCH = 20
ROUNDS = 10_000
ERASE_AVATAR = "erase_avatar"
FORGET = "forget_practice"


class PracticeExport:
    def __init__(self, database: Database, methods: Methodologies) -> None:
        self._database = database
        self._methods = methods

    async def pieces(self, key: str, user_id: str) -> AsyncIterator[bytes]:
        """`"settings":…,"progress":[…],"drills":[…],"sessions":[…]`, the inside of an object. What cannot be
        decrypted is named: `{…Id, unreadable: true}`."""
        async with self._database.read() as conn:
            progress = await practice.progress_of(conn, key, user_id)
            drills = await practice.drill_ids_of(conn, key, user_id)
            sessions = await roleplays.ids_of_user(conn, key, user_id)
        yield b'"settings":' + orjson.dumps(await self._settings(key, user_id))
        yield b',"progress":' + orjson.dumps([_progress(row) for row in progress])
        for name, ids, told in (("drills", drills, self._drill), ("sessions", sessions, self._session)):
            yield f',"{name}":['.encode()
            comma = b""
            for id in ids:
                if (one := await told(id)) is not None:
                    yield comma + orjson.dumps(one)
                    comma = b","
            yield b"]"

    async def _settings(self, key: str, user_id: str) -> dict[str, Any] | None:
        try:
            async with self._database.read() as conn:
                user = await practice.user(conn, key, user_id)
        except Unreadable:
            return {"userId": user_id, "unreadable": True}
        return None if user is None else _chosen(user)

    async def _drill(self, drill_id: str) -> dict[str, Any] | None:
        try:
            async with self._database.read() as conn:
                drill = await practice.drill(conn, drill_id)
        except Unreadable:
            return {"drillId": drill_id, "unreadable": True}
        if drill is None:
            return None
        return drill_told(drill, self._methods.get(drill.methodology), drill.language)

    async def _session(self, session_id: str) -> dict[str, Any] | None:
        try:
            async with self._database.read() as conn:
                session = await roleplays.load(conn, session_id)
                messages = await roleplays.all_messages(conn, session_id)
                steps = await roleplays.steps(conn, session_id)
                found = await practice.feedback(conn, session_id)
        except Unreadable:
            return {"sessionId": session_id, "unreadable": True}
        if session is None:
            return None  # erased meanwhile
        return {
            "sessionId": session.id,
            "kind": session.kind,
            "scenarioId": session.scenario_id,
            "methodology": session.methodology,
            "methodologyVersion": session.methodology_version,
            "language": session.language,
            "status": session.status,
            "startedAt": iso(session.started_at),
            "completedAt": iso(session.completed_at),
            "storeTranscript": session.store_transcript,
            "consent": session.consent,
            "transcript": [
                {
                    "sequenceNumber": one.sequence_number,
                    "speaker": one.speaker,
                    "message": one.message,
                    "timestamp": iso(one.timestamp),
                }
                for one in messages
            ],
            "steps": [
                {
                    "stepId": one.step_id,
                    "status": one.status,
                    "techniqueScore": one.technique_score,
                    "completedAt": iso(one.completed_at),
                }
                for one in steps
            ],
            "feedback": found.document if found is not None else None,
        }


class PracticeErasure:
    """Erases what a user practised (services.privacy.PractisedThings). `forget` drops what this process
    remembers of sessions."""

    def __init__(
        self,
        database: Database,
        practised: Practice,
        bus: Bus,
        clock: Clock,
        forget: Callable[[Sequence[str]], None],
    ) -> None:
        self._database = database
        self._practised = practised
        self._bus = bus
        self._clock = clock
        self._forget = forget

    async def erase(self, principal_key: str, user_id: str) -> tuple[Counter[str], list[str]]:
        """A user who goes on practising while being erased is erased again. What an avatar vendor keeps is
        erased by a job that holds the vendor's id and nothing of the user."""
        gone: Counter[str] = Counter()
        erased: list[str] = []
        for _ in range(ROUNDS):
            async with self._database.read() as conn:
                found = await practice_privacy.sessions_of_user(conn, principal_key, user_id, BATCH)
            if not found:
                break
            gone += await self._erase(found)
            erased += [id for id, _, _ in found]
        async with self._database.transaction() as conn:
            gone += await practice_privacy.erase_user(conn, principal_key, user_id)
        await self._practised.forget(principal_key, user_id)
        return gone, erased

    async def _erase(self, found: Sequence[tuple[str, str, str | None]]) -> Counter[str]:
        ids = [id for id, _, _ in found]
        vendor = [(provider, vendor_id) for _, provider, vendor_id in found if vendor_id is not None]
        keys = [f"{STOP_AVATAR}:{vendor_id}" for _, vendor_id in vendor]
        async with self._database.transaction() as conn:
            gone = await practice_privacy.erase_sessions(conn, ids, keys, (ANALYSE, MAIL_FEEDBACK))
            for provider, vendor_id in vendor:
                payload = {"provider": provider, "vendorId": vendor_id}
                key = f"{ERASE_AVATAR}:{vendor_id}"
                await jobs.enqueue(conn, ERASE_AVATAR, key, payload, self._clock.now())
        self._forget(ids)
        await self._bus.publish(None, {"type": FORGET, "sessions": ids})
        return gone


def _chosen(user: practice.User) -> dict[str, Any]:
    return {
        "storeTranscripts": user.store_transcripts,
        "feedbackEmail": user.feedback_email,
        "teamId": user.team_id,
        "consent": user.consent,
        "createdAt": iso(user.created_at),
    }


def _progress(row: practice.ProgressRow) -> dict[str, Any]:
    return {
        "methodology": row.methodology,
        "currentPhaseId": row.current_phase_id,
        "currentStepId": row.current_step_id,
        "unlockedPhases": row.unlocked_phases,
        "unlockedSteps": row.unlocked_steps,
        "totalSessions": row.total_sessions,
        "averageScore": row.average_score,
        "bestScore": row.best_score,
        "totalDurationSeconds": row.total_duration_seconds,
        "stepStats": row.step_stats,
        "lastSessionAt": iso(row.last_session_at),
    }
