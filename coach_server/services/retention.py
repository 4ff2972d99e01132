"""The daily deletion of words that are too old (trust.md G27); what remains of a conversation are figures."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from loguru import logger

from coach_server.clock import Clock, millis
from coach_server.errors import StorageFailed
from coach_server.services.analysis import without_words
from coach_server.services.practice.feedback import without_words as scores_only
from coach_server.services.privacy import BATCH, Letters, scrub
from coach_server.storage import clockwork, practice_privacy, privacy
from coach_server.storage.database import Database
from coach_server.storage.privacy import Sweep

DAY_S = 86_400.0
KIND = "transcripts"
SHOWN_SWEEPS = 100
_TICK = "old words"


class OldSimulations(Protocol):
    async def redact(self, before: float, now: float) -> Counter[str]:
        """Delete the words of those nobody was in since `before`."""
        ...


class Retention:
    """`days` 0: everything is kept. `owner` names this instance."""

    def __init__(
        self,
        database: Database,
        simulated: OldSimulations,
        letters: Letters,
        clock: Clock,
        *,
        days: int,
        owner: str,
    ) -> None:
        self._database = database
        self._simulated = simulated
        self._letters = letters
        self._clock = clock
        self._days = days
        self._owner = owner

    async def tick(self) -> None:
        """Sweep if no instance did so for a day; to be called more often than that. A sweep that breaks off
        is due again at the next call."""
        if not self._days:
            return
        try:
            async with self._database.transaction() as conn:
                mine = await clockwork.claim_tick(
                    conn, _TICK, owner=self._owner, now=self._clock.now(), every_s=DAY_S
                )
        except StorageFailed:
            logger.warning("The sweep of old words was skipped: no database")
            return
        try:
            if mine:
                await self.sweep()
            else:
                # Each instance has an outbox of its own.
                await self._letters.delete_before(self._clock.now() - self._days * DAY_S)
        except StorageFailed:
            logger.error("The sweep of old words broke off and will go on")
            if mine:
                await self._give_back()

    async def sweep(self) -> Sweep:
        """Delete what ended before the limit, in batches; leaves a row of evidence. Raises StorageFailed."""
        now = self._clock.now()
        before = now - self._days * DAY_S
        async with self._database.transaction() as conn:
            gone = Counter(ended=await privacy.end_unseen(conn, before, now))
            gone["jobs"] = await privacy.delete_finished_jobs(conn, before)
        while ids := await self._next(before):
            async with self._database.transaction() as conn:
                gone += await privacy.delete_words(conn, ids, without_words, now)
                gone += await practice_privacy.redact_calls(conn, ids, scores_only)
        while ids := await self._next_practised(before):
            async with self._database.transaction() as conn:
                gone += await practice_privacy.delete_words(conn, ids, scores_only, now)
        gone += await self._simulated.redact(before, now)
        gone["letters"] = await self._letters.delete_before(before)
        sweep = Sweep(KIND, now, before, privacy.plain(gone))
        async with self._database.transaction() as conn:
            await privacy.keep_sweep(conn, sweep)
        await scrub(self._database)
        logger.bind(**sweep.counts).info("Old words were deleted", days=self._days)
        return sweep

    async def sweeps(self) -> dict[str, Any]:
        """`{retentionDays, sweeps: [{kind, at, before, counts}]}`, newest first."""
        async with self._database.read() as conn:
            found = await privacy.last_sweeps(conn, SHOWN_SWEEPS)
        told = [
            {"kind": one.kind, "at": millis(one.at), "before": millis(one.before), "counts": one.counts}
            for one in found
        ]
        return {"retentionDays": self._days, "sweeps": told}

    async def _next(self, before: float) -> list[str]:
        async with self._database.read() as conn:
            return await privacy.with_old_words(conn, before, BATCH)

    async def _next_practised(self, before: float) -> list[str]:
        async with self._database.read() as conn:
            return await practice_privacy.with_old_words(conn, before, BATCH)

    async def _give_back(self) -> None:
        try:
            async with self._database.transaction() as conn:
                await clockwork.give_back_tick(conn, _TICK, owner=self._owner)
        except StorageFailed:
            logger.warning("The sweep of old words will go on tomorrow")
