"""The engine: one SQLite file or a PostgreSQL server, migrated at start, spoken to in transactions.

Whatever the driver throws leaves here as `StorageFailed`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Dialect, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.clock import Clock
from coach_server.errors import ConfigError, StorageFailed
from coach_server.storage.crypto import Cipher, NoCipher
from coach_server.storage.engine import BUSY_TIMEOUT_S, DRIVER_ERRORS, WRITES, make_engine, prepare_sqlite
from coach_server.storage.migrate import migrate

# A reader of several tables sees them all at one moment; on SQLite every transaction does.
_ONE_SNAPSHOT: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
HEALTHY_WITHIN_S = 1.0
SCRUB_TRIES = 20
SCRUB_PAUSE_S = 0.25
SCRUB_BUSY_S = 0.1
_POSTGRES = {"postgres", "postgresql", "postgresql+asyncpg"}
_SQLITE = {"sqlite", "sqlite+aiosqlite"}
_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
# What libpq takes and asyncpg neither takes nor needs.
_DROPPED = {"channel_binding", "gssencmode", "sslcompression", "sslnegotiation", "options"}
_KEPT = {"ssl", "sslrootcert", "host", "port", "application_name", "connect_timeout", "target_session_attrs"}


def normalise_url(url: str) -> str:
    """The address as SQLAlchemy and the async drivers want it.

    Takes `sqlite:///path`, `postgres://` and `postgresql://` in the forms that hosts hand out. Errors name
    DATABASE_URL and never repeat it: it holds a password.
    """
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):
        raise ConfigError(
            "DATABASE_URL is not an address: expected sqlite:///path/to/file or "
            "postgresql://user:password@host:5432/name",
            field="DATABASE_URL",
        ) from None
    if parsed.drivername in _SQLITE:
        return _sqlite_url(parsed).render_as_string(hide_password=False)
    if parsed.drivername in _POSTGRES:
        return _postgres_url(parsed).render_as_string(hide_password=False)
    raise ConfigError(
        f"DATABASE_URL starts with {parsed.drivername}: expected sqlite or postgresql", field="DATABASE_URL"
    )


def _sqlite_url(parsed: URL) -> URL:
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise ConfigError(
            "DATABASE_URL must name a file and nothing else, as in sqlite:///data/coach.db",
            field="DATABASE_URL",
        )
    return parsed.set(drivername="sqlite+aiosqlite")


def _postgres_url(parsed: URL) -> URL:
    query = {name: value for name, value in parsed.query.items() if name not in _DROPPED}
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    if unknown := sorted(set(query) - _KEPT):
        raise ConfigError(f"DATABASE_URL has an unknown option: {unknown[0]}", field="DATABASE_URL")
    if query.get("ssl", "prefer") not in _SSL_MODES:
        raise ConfigError(
            f"DATABASE_URL: sslmode must be one of {', '.join(sorted(_SSL_MODES))}", field="DATABASE_URL"
        )
    if not parsed.database:
        raise ConfigError("DATABASE_URL does not name a database after the host", field="DATABASE_URL")
    return parsed.set(drivername="postgresql+asyncpg", query=query)


class Database:
    """One per process. `transaction` writes, `read` sees one consistent state; both give a connection."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        pool_size: int = 10,
        busy_s: float = BUSY_TIMEOUT_S,
        cipher: Cipher | None = None,
    ) -> None:
        self.url = make_url(normalise_url(url))
        self.clock = clock
        self._busy_s = busy_s
        self.cipher = cipher or NoCipher()
        self.engine = make_engine(self.url, pool_size, self.cipher)
        self.dialect: str = self.engine.dialect.name
        # SQLite has one writer: those of this process queue here, in order, instead of polling the lock.
        self._writer = asyncio.Lock() if self.dialect == "sqlite" else None
        self._check: asyncio.Task[bool] | None = None

    @property
    def sql_dialect(self) -> Dialect:
        return self.engine.sync_engine.dialect

    async def start(self) -> None:
        """Make or migrate the schema. Safe to call again, and in two processes at the same time."""
        with _storage("DATABASE_URL: the database could not be opened or migrated.", OSError):
            if self.dialect == "sqlite":
                await asyncio.to_thread(_make_folder, self.url)
            await asyncio.to_thread(migrate, self.url)
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        if self._check is not None:
            self._check.cancel()
            await asyncio.gather(self._check, return_exceptions=True)
        await self.engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Commits when the block ends, rolls back when it raises."""
        with _storage("The server could not store this; nothing was changed."):
            async with self.writing(), self._connected() as connection:
                await connection.execution_options(**{WRITES: True})
                async with connection.begin():
                    yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with _storage("The server could not read this now."):
            async with self._connected() as connection:
                if self.dialect == "postgresql":
                    await connection.execution_options(**_ONE_SNAPSHOT)
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """The turn to write; on PostgreSQL everybody has it."""
        if self._writer is None:
            yield
            return
        try:
            async with asyncio.timeout(self._busy_s):
                await self._writer.acquire()
        except TimeoutError as error:
            raise StorageFailed from error
        try:
            yield
        finally:
            self._writer.release()

    async def healthy(self) -> bool:
        """Whether the database answers within a second. Never raises; a check that hangs is not repeated."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._answers(), name="database health")
        done, _ = await asyncio.wait({self._check}, timeout=HEALTHY_WITHIN_S)
        if not done:
            self._check.cancel()
            return False
        return not self._check.cancelled() and self._check.exception() is None and self._check.result()

    async def scrub(self) -> bool:
        """Empty SQLite's write-ahead log, which still holds what was deleted or overwritten in the file
        itself. False while a reader keeps it in use. On PostgreSQL there is nothing that a client can do."""
        if self.dialect != "sqlite":
            return True
        with _storage("The write-ahead log could not be emptied."):
            for _ in range(SCRUB_TRIES):
                async with self.writing():
                    if await asyncio.to_thread(_empty_wal, self.url.database or ""):
                        return True
                # Not while we hold the turn: whoever writes must not wait for whoever reads.
                await self.clock.sleep_until(self.clock.now() + SCRUB_PAUSE_S)
            return False

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        with _storage("The database does not answer.", OSError):
            connection = await self.engine.connect()
        try:
            yield connection
        finally:
            # To the pool also when we are cancelled meanwhile.
            await asyncio.shield(asyncio.create_task(connection.close(), name="give back connection"))

    async def _answers(self) -> bool:
        # A SQLite file that can be read may still be locked, or not be ours to write.
        asked = self.transaction if self.dialect == "sqlite" else self.read
        try:
            async with asked() as connection:
                # A constant would not touch the file.
                await connection.execute(text("SELECT version_num FROM alembic_version"))
        except StorageFailed:
            return False
        return True


def _make_folder(url: URL) -> None:
    Path(url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)


def _empty_wal(path: str) -> bool:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        prepare_sqlite(connection, timeout_s=SCRUB_BUSY_S)
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.close()
    return not busy


@contextmanager
def _storage(message: str, *also: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (*DRIVER_ERRORS, *also) as error:
        raise StorageFailed(message) from error
