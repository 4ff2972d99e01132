"""What a trainee said in simulations: to hand out (GDPR Art. 15, 20), to erase (Art. 17), to let grow old."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from coach_server.providers.bus import Bus
from coach_server.services.simulation.archive import SimulationArchive
from coach_server.services.simulation.desk import EXPORT
from coach_server.services.simulation.sessions import FORGET, SCORE
from coach_server.storage import simulation_privacy
from coach_server.storage.crypto import Unreadable
from coach_server.storage.database import Database

BATCH = 20
ROUNDS = 10_000
PAGE = 100


class SimulationPrivacy:
    """`forget` lets go of sessions that run on this instance; `delete_files` deletes a session's files."""

    def __init__(
        self,
        database: Database,
        archive: SimulationArchive,
        bus: Bus,
        forget: Callable[[Sequence[str]], Awaitable[None]],
        delete_files: Callable[[str], Awaitable[None]],
    ) -> None:
        self._database = database
        self._archive = archive
        self._bus = bus
        self._forget = forget
        self._delete_files = delete_files

    async def pieces(self, key: str, user_id: str) -> AsyncIterator[bytes]:
        """`"simulations":[…]`, the inside of an object, one piece a session. What cannot be decrypted is
        named: `{sessionId, unreadable: true}`."""
        yield b'"simulations":['
        comma, after = b"", None
        while True:
            async with self._database.read() as conn:
                page = await simulation_privacy.ids_after(conn, key, user_id, after, PAGE)
            for after in page:
                if (one := await self._one(after[1])) is not None:
                    yield comma + orjson.dumps(one)
                    comma = b","
            if len(page) < PAGE:
                break
        yield b"]"

    async def _one(self, session_id: str) -> dict[str, Any] | None:
        try:
            return await self._archive.whole(session_id)
        except Unreadable:
            return {"sessionId": session_id, "unreadable": True}

    async def erase(self, principal_key: str, user_id: str) -> Counter[str]:
        """Everything of this trainee: rows, files, jobs. One that goes on meanwhile is erased again."""
        gone: Counter[str] = Counter()
        for _ in range(ROUNDS):
            async with self._database.read() as conn:
                ids = await simulation_privacy.of_trainee(conn, principal_key, user_id, BATCH)
            if not ids:
                break
            await self._forget(ids)
            await self._bus.publish(None, {"type": FORGET, "sessions": ids})
            async with self._database.transaction() as conn:
                gone += await simulation_privacy.erase(conn, ids, (SCORE, EXPORT))
            for session_id in ids:
                await self._delete_files(session_id)
        return gone

    async def hear(self, message: Mapping[str, Any]) -> None:
        """Another instance erases or deletes words: its disk is not this one's."""
        if message.get("type") == FORGET:
            for session_id in message.get("sessions") or ():
                await self._delete_files(str(session_id))

    async def redact(self, before: float, now: float) -> Counter[str]:
        """Delete the words of sessions nobody was in since `before`, and their files, in batches."""
        gone: Counter[str] = Counter()
        while True:
            async with self._database.read() as conn:
                ids = await simulation_privacy.with_old_words(conn, before, BATCH)
            if not ids:
                return gone
            await self._forget(ids)
            await self._bus.publish(None, {"type": FORGET, "sessions": ids})
            for session_id in ids:
                await self._delete_files(session_id)
            async with self._database.transaction() as conn:
                gone += await simulation_privacy.delete_words(conn, ids, without_words, now)


def without_words(document: dict[str, Any]) -> dict[str, Any]:
    """A score without quotes and sentences; figures, checks and steps stay."""
    compliance = document.get("complianceDetails") or {}
    words = [{**one, "quote": None} for one in compliance.get("forbiddenWords", ())]
    return {
        **document,
        "highlights": [],
        "improvements": [],
        "summary": "",
        "fails": [],
        "remarks": [],
        "steps": [{**step, "quote": None} for step in document.get("steps", ())],
        "complianceDetails": {**compliance, "forbiddenWords": words},
    }
