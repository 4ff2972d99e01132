"""The journal's own connection: many rows, one transaction, one hop to the driver.

`write` raises `Poison` when the rows themselves are to blame (they would fail again); any other error of the
driver means that the database could not take anything now.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.database import Database
from coach_server.storage.engine import DRIVER_ERRORS, prepare_sqlite

Group = tuple[str, list[tuple[Any, ...]]]

# Data exception, integrity violation, no such column or right, over a limit of the program.
_POISON_CLASSES = {"22", "23", "42", "54"}
_POISON_SQLITE = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


class Poison(Exception):
    """These rows cannot be stored, now or later."""


class Writer(Protocol):
    async def write(self, groups: Sequence[Group]) -> None: ...

    async def close(self) -> None:
        """Let go of the connection; the next `write` opens another. Never raises."""
        ...


def open_writer(database: Database) -> Writer:
    if database.dialect == "sqlite":
        return SqliteWriter(database)
    return PostgresWriter(database)


class SqliteWriter:
    """A thread with a connection of its own: one hop a commit; the async driver takes one a statement."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._path = database.url.database or ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._connection: sqlite3.Connection | None = None

    async def write(self, groups: Sequence[Group]) -> None:
        async with self._database.writing():
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, groups)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)

    def _write(self, groups: Sequence[Group]) -> None:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in groups:
                connection.executemany(sql, rows)
            connection.execute("COMMIT")
        except _POISON_SQLITE as error:
            connection.execute("ROLLBACK")
            raise Poison from error
        except (OverflowError, ValueError, TypeError) as error:
            connection.execute("ROLLBACK")
            raise Poison from error
        except BaseException:
            self._close()
            raise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None)
            try:
                prepare_sqlite(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class PostgresWriter:
    """One connection kept out of the pool; a single statement needs no BEGIN, as its rows are one command."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: AsyncConnection | None = None

    async def write(self, groups: Sequence[Group]) -> None:
        driver = await self._connected()
        try:
            if len(groups) == 1:
                await driver.executemany(*groups[0])
                return
            async with driver.transaction():
                for sql, rows in groups:
                    await driver.executemany(sql, rows)
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] in _POISON_CLASSES:
                raise Poison from error
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise Poison from error

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.invalidate()
            await connection.close()
        except DRIVER_ERRORS:
            return

    async def _connected(self) -> Any:
        if self._connection is None:
            self._connection = await self._database.engine.connect()
        return (await self._connection.get_raw_connection()).driver_connection
