"""Databases that go away and come back: PostgreSQL behind a cable, SQLite locked by somebody else."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import make_url

from tests.acceptance.outage import Cable, cable


class Fragile(Protocol):
    """A database that can be taken away."""

    url: str

    async def fail(self) -> None: ...

    async def hang(self) -> None: ...

    async def heal(self) -> None: ...


class CabledPostgres:
    def __init__(self, url: str, line: Cable) -> None:
        self.url = url
        self._line = line

    async def fail(self) -> None:
        await self._line.cut()

    async def hang(self) -> None:
        self._line.freeze()

    async def heal(self) -> None:
        self._line.fresh()
        await self._line.cut()
        await self._line.plug()


class LockableSqlite:
    """Another process holds the one lock of the file: nothing can be written."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._other: sqlite3.Connection | None = None

    async def fail(self) -> None:
        # Not in the loop: the server that is to let go of the lock first lives in it.
        await asyncio.to_thread(self._lock)

    def _lock(self) -> None:
        path = make_url(self.url).database or ""
        other = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        self._other = other

    async def hang(self) -> None:
        await self.fail()

    async def heal(self) -> None:
        if self._other is not None:
            self._other.execute("ROLLBACK")
            self._other.close()
            self._other = None


@asynccontextmanager
async def fragile(url: str) -> AsyncIterator[Fragile]:
    """This database, so that it can be taken away."""
    if not url.startswith("sqlite"):
        async with _postgres(url) as cabled:
            yield cabled
        return
    locked = LockableSqlite(url)
    try:
        yield locked
    finally:
        await locked.heal()


@asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[CabledPostgres]:
    parsed = make_url(url)
    host = str(parsed.query.get("host") or parsed.host)
    target: int | str = parsed.port or 5432
    if Path(host).is_dir():
        target = str(Path(host) / f".s.PGSQL.{target}")
    async with cable(target) as line:
        through = parsed.set(host="127.0.0.1", port=line.port, query={"sslmode": "disable"})
        yield CabledPostgres(through.render_as_string(hide_password=False), line)
