"""What happens in a simulation, written as it comes and in its order.

The talk never waits for the database: what cannot be written now is held and tried again until it is, so that
an outage costs nothing that was said. `settle` waits until everything is on disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.clock import Clock
from coach_server.errors import StorageFailed
from coach_server.storage.database import Database

Write = Callable[[AsyncConnection], Awaitable[object]]
RETRY_S = 1.0
PATIENCE_S = 1.0
# Others want to write, too.
MOST_AT_ONCE = 50
TOLD_EVERY = 30


@dataclass(slots=True)
class _Entry:
    write: Write
    then: Callable[[], None] | None

    def tell(self) -> None:
        then, self.then = self.then, None
        if then is not None:
            then()


class Diary:
    """One session's writes. `run` it in a task of the session's owner."""

    def __init__(self, database: Database, clock: Clock, session_id: str) -> None:
        self._database = database
        self._clock = clock
        self._id = session_id
        self._waiting: deque[_Entry] = deque()
        self._arrived = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()
        self._closed = False
        self._is_late = False

    def close(self) -> None:
        """Whoever it was about is erased: nothing of it is written any more."""
        self._closed = True
        self._waiting.clear()
        self._written.set()

    def put(self, write: Write, then: Callable[[], None] | None = None) -> None:
        """`write` must be harmless when run again: after a lost connection nobody knows whether it got
        through. `then` is called when it is on disk; while the database is away it is called all the same,
        after a second at most."""
        if self._closed:
            return
        entry = _Entry(write, then)
        self._waiting.append(entry)
        if self._is_late:
            entry.tell()
        self._written.clear()
        self._arrived.set()

    async def settle(self) -> None:
        """Return once everything that was put is on disk."""
        await self._written.wait()

    async def run(self) -> None:
        failures = 0
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch = list(islice(self._waiting, MOST_AT_ONCE))
                late = asyncio.create_task(self._lose_patience(), name=f"patience of {self._id}")
                try:
                    async with self._database.transaction() as conn:
                        for entry in batch:
                            await entry.write(conn)
                except StorageFailed:
                    self._tell_all()
                    failures += 1
                    if failures % TOLD_EVERY == 1:
                        logger.bind(session=self._id).warning(
                            "What a simulation says could not be stored yet", waiting=len(batch)
                        )
                    await self._clock.sleep_until(self._clock.now() + RETRY_S)
                    continue
                finally:
                    late.cancel()
                    await asyncio.gather(late, return_exceptions=True)
                failures, self._is_late = 0, False
                if not self._closed:
                    for entry in batch:
                        self._waiting.popleft()
                        entry.tell()
            self._written.set()

    async def _lose_patience(self) -> None:
        await self._clock.sleep_until(self._clock.now() + PATIENCE_S)
        self._tell_all()

    def _tell_all(self) -> None:
        self._is_late = True
        for entry in self._waiting:
            entry.tell()
