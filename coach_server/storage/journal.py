"""Group commit: what is put while a commit runs, and for a few milliseconds after it, shares the next one.

A word is acknowledged only when its future here is done (trust.md G1): SQLite syncs at each commit,
PostgreSQL commits synchronously, so kill -9 and power cuts lose nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from loguru import logger

from coach_server.errors import StorageFailed
from coach_server.storage.crypto import seal_row
from coach_server.storage.database import Database
from coach_server.storage.statements import Kind, prepare
from coach_server.storage.writers import Group, Poison, Writer, open_writer

# A commit of this many rows takes some 50 ms; more would make the first of them wait for the last.
COMMIT_ROWS = 2_000
_RETRY_FIRST_S = 0.05
_RETRY_LAST_S = 0.8


class Unstorable(StorageFailed):
    """The server could not store this; nothing was changed."""

    # The database took other rows and refuses these: trying again is no use to whoever holds them.


@dataclass(frozen=True, slots=True)
class Write:
    """One row for one prepared statement (`statements.py`); made by the modules that own the tables."""

    table: str
    kind: str
    row: dict[str, Any]


T = TypeVar("T")
_UNWRITABLE = (TypeError, ValueError, KeyError, OverflowError)


@dataclass(frozen=True, slots=True)
class _Put:
    rows: list[tuple[Kind, tuple[Any, ...]]]
    stored: asyncio.Future[None]


class Journal:
    """Owned by one task (`run`); anybody may `put`."""

    def __init__(
        self,
        database: Database,
        *,
        window_s: float = 0.004,
        max_pending: int = 50_000,
        retry_s: float = 5.0,
        writer: Writer | None = None,
    ) -> None:
        self._database = database
        self._window_s = window_s
        self._max_pending = max_pending
        self._retry_s = retry_s
        self._statements = prepare(database.sql_dialect)
        self._rank = {kind: rank for rank, kind in enumerate(self._statements)}
        self._writer = writer or open_writer(database)
        self._waiting: deque[_Put] = deque()
        self._rows_waiting = 0
        self._rested_at = 0.0
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._turn = asyncio.Lock()
        self._running = False
        self.commits = 0
        self.rows_stored = 0
        self.puts_failed = 0

    @property
    def pending(self) -> int:
        """Rows not yet on disk."""
        return self._rows_waiting

    def put(self, *writes: Write) -> asyncio.Future[None]:
        """Store all of `writes` or none. The future is done when they are on disk, or fails with
        `StorageFailed`; cancelling it (or whoever awaits it) does not take the rows back. Without writes it
        is done when all that was put before is settled."""
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        if self._rows_waiting + len(writes) > self._max_pending:
            self._fail([_Put([], stored)], StorageFailed("too many rows wait"))
            return stored
        try:
            rows = [self._bound(write) for write in writes]
        except _UNWRITABLE as error:
            self._fail([_Put([], stored)], error)
            return stored
        if not self._waiting:
            self._arrived.set()
        self._waiting.append(_Put(rows, stored))
        self._rows_waiting += len(rows)
        if self._rows_waiting >= COMMIT_ROWS:
            self._enough.set()
        return stored

    async def run(self) -> None:
        """Write what is put, for ever. When cancelled, what was put by then is still written."""
        self._running = True
        try:
            while True:
                await self._arrived.wait()
                await self._gather()
                await self._write_some()
        finally:
            self._running = False
            await _finish(self.drain())

    async def drain(self) -> None:
        """Write what is left, also without `run`; give up on all of it when the database is gone."""
        while self._waiting:
            if not await self._write_some():
                self._fail(self._take(len(self._waiting)), None)
        async with self._turn:
            if not self._running:
                await self._writer.close()

    def _bound(self, write: Write) -> tuple[Kind, tuple[Any, ...]]:
        kind = (write.table, write.kind)
        row = seal_row(self._database.cipher, write.table, write.row)
        return kind, self._statements[kind].bind(row)

    async def _gather(self) -> None:
        """Let rows come together, unless there was no commit for a while: then nobody has to wait."""
        if asyncio.get_running_loop().time() >= self._rested_at:
            return
        try:
            async with asyncio.timeout_at(self._rested_at):
                await self._enough.wait()
        except TimeoutError:
            return

    async def _write_some(self) -> bool:
        """One commit. False when the database could not be reached."""
        async with self._turn:
            puts = self._take(COMMIT_ROWS)
            try:
                return await _finish(self._commit(puts))
            finally:
                self._rested_at = asyncio.get_running_loop().time() + self._window_s

    def _take(self, most: int) -> list[_Put]:
        taken: list[_Put] = []
        rows = 0
        while self._waiting and (rows < most or not taken):
            taken.append(self._waiting.popleft())
            rows += len(taken[-1].rows)
        self._enough.clear()
        if not self._waiting:
            self._arrived.clear()
        return taken

    async def _commit(self, puts: list[_Put]) -> bool:
        """Halves the batch until the put that cannot be stored stands alone; the others are stored."""
        if not puts:
            return True
        try:
            await self._insist(self._grouped(puts))
        except Poison as error:
            if len(puts) == 1:
                self._fail(puts, error)
                return True
            middle = len(puts) // 2
            first = await self._commit(puts[:middle])
            return await self._commit(puts[middle:]) and first
        except Exception as error:
            self._fail(puts, error)
            return False
        self._succeed(puts)
        return True

    def _grouped(self, puts: list[_Put]) -> list[Group]:
        groups: dict[Kind, list[tuple[Any, ...]]] = {}
        for put in puts:
            for kind, row in put.rows:
                groups.setdefault(kind, []).append(row)
        return [
            (self._statements[kind].sql, groups[kind]) for kind in sorted(groups, key=self._rank.__getitem__)
        ]

    async def _insist(self, groups: list[Group]) -> None:
        """A lock held by others and a lost connection pass; each statement may run twice without harm."""
        delay = _RETRY_FIRST_S
        try:
            async with asyncio.timeout(self._retry_s):
                while True:
                    try:
                        return await self._writer.write(groups)
                    except Poison:
                        raise
                    except Exception as error:
                        # Broad on purpose: drivers throw more than their own family, and without its
                        # journal the server could acknowledge nothing any more.
                        logger.bind(error=type(error).__name__).warning("journal: trying again")
                    await self._writer.close()
                    await self._database.clock.sleep_until(self._database.clock.now() + delay)
                    delay = min(2 * delay, _RETRY_LAST_S)
        except TimeoutError:
            await self._writer.close()
            raise

    def _succeed(self, puts: list[_Put]) -> None:
        self.commits += 1
        for put in puts:
            self.rows_stored += len(put.rows)
            self._rows_waiting -= len(put.rows)
            if not put.stored.done():
                put.stored.set_result(None)

    def _fail(self, puts: list[_Put], cause: BaseException | None) -> None:
        """Told here too, as nobody may be waiting; by name only, as drivers quote what people said."""
        name = type(cause.__cause__ if isinstance(cause, Poison) else cause).__name__
        refused = isinstance(cause, (Poison, *_UNWRITABLE))
        logger.bind(puts=len(puts), error=name).error("journal: not stored")
        for put in puts:
            self.puts_failed += 1
            self._rows_waiting -= len(put.rows)
            if put.stored.done():
                continue
            put.stored.set_exception(Unstorable() if refused else StorageFailed())
            put.stored.exception()


async def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when cancelled meanwhile, then let the cancellation go on."""
    task = asyncio.create_task(work, name="journal commit")
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
