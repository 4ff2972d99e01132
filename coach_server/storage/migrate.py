"""Bring a database to the newest schema, in a thread of its own: alembic reads files and waits for locks."""

from __future__ import annotations

import asyncio

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coach_server.errors import ConfigError
from coach_server.paths import bundled
from coach_server.storage.engine import MIGRATION_TIMEOUT_S, make_migration_engine

# Any constant will do, as long as every instance asks for the same.
_LOCK = 0x636F616368


def migrate(url: URL) -> None:
    asyncio.run(_migrate(make_migration_engine(url)))


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, made here instead of in a file; it leaves our logging alone."""
    config = Config()
    config.set_main_option("script_location", str(bundled("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


async def _migrate(engine: AsyncEngine) -> None:
    try:
        async with engine.connect() as connection, connection.begin():
            await _lock(connection)
            await connection.run_sync(upgrade)
    except CommandError as error:
        raise ConfigError(
            "DATABASE_URL leads to a database that a newer version of this server made",
            field="DATABASE_URL",
        ) from error
    finally:
        await engine.dispose()


async def _lock(connection: AsyncConnection) -> None:
    """On SQLite the BEGIN IMMEDIATE of this transaction is the lock."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SET LOCAL lock_timeout = '{round(MIGRATION_TIMEOUT_S)}s'"))
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def upgrade(connection: Connection) -> None:
    command.upgrade(configuration(connection), "head")
