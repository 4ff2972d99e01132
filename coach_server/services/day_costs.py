"""What the models cost today, in the database: a restart opens no new purse, and instances share one."""

from __future__ import annotations

from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import StorageFailed
from coach_server.services.costs import PICO_PER_MICRO, CostGovernor, Spent
from coach_server.storage import clockwork
from coach_server.storage.database import Database

SCOPE = "all"


class DayCosts:
    """`sync` adds what this process spent since the last time and learns what everybody spent."""

    def __init__(self, database: Database, governor: CostGovernor, clock: Clock) -> None:
        self._database = database
        self._governor = governor
        self._clock = clock
        self._day = ""
        self._told = Spent()

    async def sync(self) -> None:
        """Skipped with a warning while the database is away."""
        day, today = clockwork.day_of(self._clock.now()), self._governor.today
        if day != self._day:
            self._day, self._told = day, Spent()
        told = Spent(
            today.calls, today.input_tokens, today.cached_tokens, today.output_tokens, today.pico_usd
        )
        try:
            async with self._database.transaction() as conn:
                if told.calls > self._told.calls:
                    await clockwork.add_daily_cost(
                        conn,
                        day=day,
                        scope=SCOPE,
                        micro_usd=told.micro_usd - self._told.micro_usd,
                        input_tokens=told.input_tokens - self._told.input_tokens,
                        cached_tokens=told.cached_tokens - self._told.cached_tokens,
                        output_tokens=told.output_tokens - self._told.output_tokens,
                    )
                total = await clockwork.daily_cost(conn, day=day, scope=SCOPE)
        except StorageFailed:
            logger.warning("The costs of the day could not be shared")
            return
        self._told = told
        elsewhere = max(0, total.micro_usd - told.micro_usd)
        self._governor.elsewhere_pico_usd = elsewhere * PICO_PER_MICRO
