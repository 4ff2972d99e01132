"""What a user practised, to hand out (GDPR Art. 15 and 20) and to erase (Art. 17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import orjson

from coach_server.clock import Clock
from coach_server.providers.bus import Bus
from coach_server.services.feedback_mail import MAIL_FEEDBACK
from coach_server.services.methodologies import Methodologies
from coach_server.services.practice import Practice
from coach_server.services.roleplay_messages import drill_told, iso
from coach_server.services.roleplay_store import ANALYSE, STOP_AVATAR
from coach_server.storage import jobs, practice, practice_privacy, roleplays
from coach_server.storage.crypto import Unreadable
from coach_server.storage.database import Database
from coach_server.storage.roleplays import Session

BATCH = 20
ROUNDS = 10_000
ALL = 10_000
ERASE_AVATAR = "erase_avatar"
FORGET = "forget_practice"


class PracticeExport:
    def __init__(self, database: Database, methods: Methodologies) -> None:
        self._database = database
        self._methods = methods

    async def pieces(self, key: str, user_id: str) -> AsyncIterator[bytes]:
        """`"settings":…,"drills":[…],"sessions":[…]`, the inside of an object."""
        async with self._database.read() as conn:
            user = await practice.user(conn, key, user_id)
            drills = await practice.drills_of(conn, key, user_id, status=None, limit=ALL)
            sessions = [
                *await roleplays.of_user(conn, key, user_id, limit=ALL),
                *await roleplays.of_user(conn, key, user_id, limit=ALL, kind="drill"),
            ]
        yield b'"settings":' + orjson.dumps(_settings(user))
        told = [drill_told(one, self._methods.get(one.methodology), one.language) for one in drills]
        yield b',"drills":' + orjson.dumps(told) + b',"sessions":['
        comma = b""
        for session in sessions:
            yield comma + orjson.dumps(await self._session(session))
            comma = b","
        yield b"]"

    async def _session(self, session: Session) -> dict[str, Any]:
        try:
            async with self._database.read() as conn:
                messages = await roleplays.all_messages(conn, session.id)
                steps = await roleplays.steps(conn, session.id)
                found = await practice.feedback(conn, session.id)
        except Unreadable:
            return {"sessionId": session.id, "unreadable": True}
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


def _settings(user: practice.User | None) -> dict[str, Any] | None:
    if user is None:
        return None
    return {
        "storeTranscripts": user.store_transcripts,
        "feedbackEmail": user.feedback_email,
        "consent": user.consent,
        "createdAt": iso(user.created_at),
    }
