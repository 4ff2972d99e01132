"""What every test may ask for: a fresh database on either engine, a real Valkey, and a loop nobody blocks."""

from __future__ import annotations

import gc
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from coach_server.clock import SystemClock
from coach_server.storage.database import Database, normalise_url
from coach_server.storage.migrate import migrate
from coach_server.storage.tables import metadata
from tests.engines import servers

NOT_TESTED = "NOT TESTED"
# What was read once and stays (catalog, heads) is looked through by each collection: fewer of them.
gc.set_threshold(50_000, 20, 100)

MAY_BLOCK = [
    # Reads every data file once, before anything is served.
    ("coach_server/app.py", {"build_app"}),
    # Migrations have a thread and a loop of their own.
    ("coach_server/storage/migrate.py", {"upgrade"}),
    # Looks for ~/.pgpass and certificates when a connection is made.
    ("asyncpg/connect_utils.py", {"_parse_connect_arguments"}),
    # Makes the path of the file absolute, once.
    ("sqlalchemy/dialects/sqlite/pysqlite.py", {"create_connect_args"}),
    # Asks for the current directory when it formats a traceback.
    ("loguru/_better_exceptions.py", {"_is_file_mine"}),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for an engine's address carries its marker."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "postgres_url" in names or "empty_postgres_url" in names:
            item.add_marker(pytest.mark.postgres)
        if "redis_url" in names:
            item.add_marker(pytest.mark.redis)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A missing engine must not pass for a green run."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for engine in ("PostgreSQL", "Valkey", "Chromium", "espeak-ng"):
        if missed := [reason for reason in reasons if f"{NOT_TESTED}: no {engine}" in reason]:
            terminalreporter.write_line(
                f"{NOT_TESTED} on {engine}: {len(missed)} tests. {missed[0]}", red=True
            )


@pytest.fixture(autouse=True)
def nobody_blocks_the_loop() -> Iterator[BlockBuster]:
    """Fails what our code does to hold up the event loop."""
    with blockbuster_ctx("coach_server") as guard:
        for function in guard.functions.values():
            for file, functions in MAY_BLOCK:
                function.can_block_in(file, functions)
        yield guard


@pytest.fixture(scope="session")
def _postgres_server(worker_id: str) -> Iterator[str]:
    try:
        with servers.postgres_server() as url:
            yield url
    except servers.NotAvailable as error:
        pytest.skip(f"{NOT_TESTED}: {error}")


@pytest.fixture(scope="session")
def _migrated_postgres(_postgres_server: str, worker_id: str) -> Iterator[str]:
    name = f"coach_test_{worker_id}"
    url = servers.create_database(_postgres_server, name)
    migrate_now(url)
    yield url
    servers.drop_database(_postgres_server, name)


@pytest.fixture
def postgres_url(_migrated_postgres: str) -> str:
    """A migrated PostgreSQL database without a row."""
    # Of a few rows, DELETE is four times as fast as TRUNCATE.
    tables = [table.name for table in reversed(metadata.sorted_tables)]
    servers.execute(_migrated_postgres, "; ".join(f'DELETE FROM "{table}"' for table in tables))
    return _migrated_postgres


@pytest.fixture
def empty_postgres_url(_postgres_server: str, worker_id: str) -> Iterator[str]:
    """A PostgreSQL database without a table."""
    name = f"coach_empty_{worker_id}_{uuid.uuid4().hex[:8]}"
    yield servers.create_database(_postgres_server, name)
    servers.drop_database(_postgres_server, name)


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate_now(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(_migrated_sqlite: Path, tmp_path: Path) -> str:
    """A migrated SQLite file without a row."""
    return f"sqlite:///{shutil.copy(_migrated_sqlite, tmp_path / 'coach.db')}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database without a row, on either engine in turn."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that no migration has seen, on either engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'coach.db'}"
    return str(request.getfixturevalue("empty_postgres_url"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A started database on either engine in turn."""
    database = Database(database_url, clock=SystemClock())
    await database.start()
    yield database
    await database.close()


@pytest.fixture(scope="session")
def _valkey_server() -> Iterator[str]:
    try:
        with servers.valkey_server() as url:
            yield url
    except servers.NotAvailable as error:
        pytest.skip(f"{NOT_TESTED}: {error}")


@pytest.fixture
def redis_url(_valkey_server: str, worker_id: str) -> str:
    """A Valkey (or Redis) database without a key; one of its own for each worker."""
    from redis import Redis

    url = servers.numbered(_valkey_server, int(worker_id.removeprefix("gw")) if worker_id != "master" else 0)
    with Redis.from_url(url) as client:
        client.flushdb()
    return url


def migrate_now(url: str) -> None:
    from sqlalchemy import make_url

    migrate(make_url(normalise_url(url)))
