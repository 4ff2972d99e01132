from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from blockbuster import BlockBuster
from sqlalchemy import Connection, inspect, text

from coach_server.clock import SystemClock
from coach_server.errors import ConfigError
from coach_server.storage.database import Database
from coach_server.storage.migrate import configuration
from coach_server.storage.tables import metadata

START = """
import asyncio, sys
from coach_server.clock import SystemClock
from coach_server.storage.database import Database

async def main():
    database = Database(sys.argv[1], clock=SystemClock())
    print("ready", flush=True)
    sys.stdin.readline()
    await database.start()
    assert await database.healthy()
    await database.close()

asyncio.run(main())
"""


async def test_the_migrations_build_what_the_tables_say(
    empty_database_url: str, nobody_blocks_the_loop: BlockBuster
) -> None:
    """Built by the migrations and built from `tables.py`, the database describes itself alike."""
    for function in nobody_blocks_the_loop.functions.values():
        function.can_block_in("tests/storage/test_migrations.py", {"_downgrade"})
    async with started(empty_database_url) as database, database.transaction() as conn:
        assert await conn.run_sync(_differences) == []
        migrated = await conn.run_sync(_description)
        await conn.run_sync(_downgrade)
        assert await conn.run_sync(lambda c: inspect(c).get_table_names()) == ["alembic_version"]
        await conn.run_sync(metadata.create_all)
        assert await conn.run_sync(_description) == migrated


async def test_starting_again_changes_nothing(database: Database) -> None:
    await database.start()
    assert await database.healthy()


async def test_a_database_of_a_newer_server_is_refused(database: Database) -> None:
    async with database.transaction() as conn:
        await conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        with pytest.raises(ConfigError, match="newer"):
            await database.start()
    finally:
        async with database.transaction() as conn:
            await conn.execute(text("UPDATE alembic_version SET version_num = '0004'"))


async def test_instances_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    instances = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "error",
            "-c",
            START,
            empty_database_url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for instance in instances:
        assert instance.stdout is not None
        assert await instance.stdout.readline() == b"ready\n"
    told = await asyncio.gather(*(instance.communicate(b"go\n") for instance in instances))
    assert [(instance.returncode, error) for instance, (_, error) in zip(instances, told, strict=True)] == [
        (0, b"")
    ] * 3
    async with started(empty_database_url) as database, database.read() as conn:
        versions = (await conn.execute(text("SELECT version_num FROM alembic_version"))).scalars()
        assert list(versions) == ["0004"]


@asynccontextmanager
async def started(url: str) -> AsyncIterator[Database]:
    database = Database(url, clock=SystemClock())
    try:
        await database.start()
        yield database
    finally:
        await database.close()


def _differences(connection: Connection) -> list[Any]:
    differences: list[Any] = compare_metadata(
        MigrationContext.configure(connection, opts={"compare_type": True}), metadata
    )
    return differences


def _description(connection: Connection) -> dict[str, Any]:
    about = inspect(connection)
    return {
        name: {
            "columns": [
                (c["name"], str(c["type"]), c["nullable"], bool(c.get("default")))
                for c in sorted(about.get_columns(name), key=lambda c: c["name"])
            ],
            "primary key": about.get_pk_constraint(name),
            "foreign keys": about.get_foreign_keys(name),
            "unique": sorted(about.get_unique_constraints(name), key=lambda u: str(u["name"])),
            "checks": sorted(about.get_check_constraints(name), key=lambda c: str(c["name"])),
            "indices": sorted(about.get_indexes(name), key=lambda i: str(i["name"])),
        }
        for name in metadata.tables
    }


def _downgrade(connection: Connection) -> None:
    command.downgrade(configuration(connection), "base")
