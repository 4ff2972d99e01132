"""All that is stored of a user as one JSON document (GDPR Art. 15 and 20), made piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from coach_server.clock import Clock, millis
from coach_server.services import archive
from coach_server.services.access import Principal
from coach_server.services.practice.privacy import PracticeExport
from coach_server.services.privacy import require_self
from coach_server.services.simulation.privacy import SimulationPrivacy
from coach_server.storage import analyses, conversations, practice, tips, transcripts
from coach_server.storage.crypto import Unreadable
from coach_server.storage.database import Database

FORMAT = 1
PAGE = 100


class Export:
    def __init__(
        self, database: Database, practised: PracticeExport, simulated: SimulationPrivacy, clock: Clock
    ) -> None:
        self._database = database
        self._simulated = simulated
        self._practised = practised
        self._clock = clock

    async def user(self, principal: Principal, user_id: str) -> AsyncIterator[bytes]:
        """`{format, exportedAt, userId, conversations: [{…, transcript, tips, analysis, feedback}], settings,
        drills, sessions: [{…, transcript, steps, feedback}], simulations: [{…}]}` in pieces, one a
        conversation or session. One that cannot be decrypted is `{conversationId, unreadable: true}`.

        Raises Forbidden and StorageFailed before the first piece, where they can still be answered.
        """
        require_self(principal, user_id)
        ids = await self._ids(principal.key, user_id, None)
        return self._pieces(principal.key, user_id, ids)

    async def _pieces(self, key: str, user_id: str, page: list[tuple[str, str]]) -> AsyncIterator[bytes]:
        head = {"format": FORMAT, "exportedAt": millis(self._clock.now()), "userId": user_id}
        yield orjson.dumps(head)[:-1] + b',"conversations":['
        comma = b""
        while page:
            for id, _ in page:
                if (one := await self._one(id)) is not None:
                    yield comma + orjson.dumps(one)
                    comma = b","
            page = await self._ids(key, user_id, page[-1][1]) if len(page) == PAGE else []
        yield b"],"
        async for piece in self._practised.pieces(key, user_id):
            yield piece
        yield b","
        async for piece in self._simulated.pieces(key, user_id):
            yield piece
        yield b"}"

    async def _ids(self, key: str, user_id: str, cursor: str | None) -> list[tuple[str, str]]:
        """(id, cursor) of the next conversations, newest first."""
        async with self._database.read() as conn:
            return await conversations.ids_of_user(conn, key, user_id, limit=PAGE, cursor=cursor)

    async def _one(self, call_id: str) -> dict[str, Any] | None:
        try:
            async with self._database.read() as conn:
                call = await conversations.load(conn, call_id)
                if call is None:
                    return None
                said = await transcripts.all(conn, call_id)
                shown = await tips.of(conn, call_id)
                analysis = await analyses.load(conn, call_id)
                scored = await practice.call_feedback_of(conn, call_id)
        except Unreadable:
            return {"conversationId": call_id, "unreadable": True}
        return {
            **archive.detailed(call),
            "transcript": [archive.segment(one) for one in said],
            "tips": [archive.tip(one) for one in shown],
            "analysis": analysis.document if analysis is not None else None,
            "feedback": scored.document if scored is not None else None,
        }
