"""How both engines are set up: drivers, pools, and what each connection is told first."""

from __future__ import annotations

import sqlite3
import ssl
from typing import Any

import asyncpg
import orjson
from sqlalchemy import URL, Connection, NullPool, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from coach_server.errors import ConfigError
from coach_server.storage.crypto import OPTION, Cipher

BUSY_TIMEOUT_S = 5.0
MIGRATION_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 20.0
# Set on a connection that is about to write: SQLite then takes its lock at BEGIN, where it can wait for it.
WRITES = "coach_writes"
DRIVER_ERRORS = (
    SQLAlchemyError,
    sqlite3.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Not of the family: thrown when the server hangs up between two messages.
    asyncpg.InternalClientError,
    TimeoutError,
    ConnectionError,
)
# synchronous=FULL: a commit that returned survives a power cut, not only a crash (trust.md G1).
# secure_delete: erased words leave no trace in free pages (G28).
PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
)
_QUERY_OF_LIBPQ = {"sslrootcert", "application_name", "connect_timeout"}


def dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


# Parameters hold what people said; SQLAlchemy would repeat them in its errors, and those in logs.
_COMMON: dict[str, Any] = {
    "json_serializer": dumps,
    "json_deserializer": orjson.loads,
    "hide_parameters": True,
}


def make_engine(url: URL, pool_size: int, cipher: Cipher) -> AsyncEngine:
    options = {OPTION: cipher}
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, pool_size=pool_size, execution_options=options)
    return create_async_engine(
        _without_libpq(url),
        connect_args=_postgres_arguments(url, statement_timeout_s=COMMAND_TIMEOUT_S),
        **_COMMON,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        pool_recycle=1800,
        execution_options=options,
    )


def make_migration_engine(url: URL) -> AsyncEngine:
    """Patient, and without foreign keys on SQLite: a migration that rebuilds a table there drops the old one,
    which would otherwise take every row that points at it along."""
    if url.get_backend_name() == "sqlite":
        engine = _sqlite(url, timeout_s=MIGRATION_TIMEOUT_S, foreign_keys=False, poolclass=NullPool)
        return engine.execution_options(**{WRITES: True})
    arguments = _postgres_arguments(url, statement_timeout_s=None)
    return create_async_engine(_without_libpq(url), connect_args=arguments, poolclass=NullPool)


def prepare_sqlite(connection: Any, *, timeout_s: float = BUSY_TIMEOUT_S, foreign_keys: bool = True) -> None:
    """What every SQLite connection is told, whichever module opened it (`sqlite3` or its async shell)."""
    connection.execute(f"PRAGMA busy_timeout = {round(timeout_s * 1000)}")
    for pragma in PRAGMAS:
        connection.execute(pragma)
    if not foreign_keys:
        connection.execute("PRAGMA foreign_keys = OFF")


def _sqlite(
    url: URL, *, timeout_s: float = BUSY_TIMEOUT_S, foreign_keys: bool = True, **options: Any
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        **_COMMON,
        connect_args={"timeout": timeout_s},
        **options,
    )

    def connected(connection: Any, _record: Any) -> None:
        # The module's own BEGIN comes late and only before a write: ours comes when a transaction begins.
        connection.isolation_level = None
        cursor = connection.cursor()
        prepare_sqlite(cursor, timeout_s=timeout_s, foreign_keys=foreign_keys)
        cursor.close()

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
    return engine


def _without_libpq(url: URL) -> URL:
    return url.difference_update_query(_QUERY_OF_LIBPQ)


def _postgres_arguments(url: URL, *, statement_timeout_s: float | None) -> dict[str, Any]:
    settings = {
        "application_name": str(url.query.get("application_name", "coach-server")),
        "timezone": "UTC",
        # An acknowledged word is on disk, whatever the server's default says (trust.md G1).
        "synchronous_commit": "on",
    }
    arguments: dict[str, Any] = {
        "server_settings": settings,
        "timeout": float(str(url.query.get("connect_timeout", CONNECT_TIMEOUT_S))),
    }
    if statement_timeout_s is not None:
        settings["statement_timeout"] = str(round(statement_timeout_s * 1000))
        arguments["command_timeout"] = statement_timeout_s
    if "sslrootcert" in url.query:
        arguments["ssl"] = _verifying(str(url.query["sslrootcert"]), str(url.query.get("ssl", "verify-full")))
    return arguments


def _verifying(root_certificate: str, mode: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=root_certificate)
    except OSError as error:
        raise ConfigError(
            "DATABASE_URL: sslrootcert is no readable certificate", field="DATABASE_URL"
        ) from error
    context.check_hostname = mode == "verify-full"
    return context
