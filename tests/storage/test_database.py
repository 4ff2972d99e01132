from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.clock import SystemClock
from coach_server.errors import ConfigError, Conflict, StorageFailed
from coach_server.storage import conversations
from coach_server.storage.database import Database, normalise_url
from coach_server.storage.tables import jobs
from tests.storage.samples import NOW, start, store, utterance

SECRET = "hunter2-secret"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("sqlite:///data/coach.db", "sqlite+aiosqlite:///data/coach.db"),
        ("sqlite:////var/lib/coach.db", "sqlite+aiosqlite:////var/lib/coach.db"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("postgres://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("  postgresql://u:p@h/d\n", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://u:p@h/d?sslmode=require", "postgresql+asyncpg://u:p@h/d?ssl=require"),
        (
            "postgres://u:p@h/d?sslmode=verify-full&channel_binding=require",
            "postgresql+asyncpg://u:p@h/d?ssl=verify-full",
        ),
        ("postgresql://postgres:@/d?host=/run/pg", "postgresql+asyncpg://postgres:@/d?host=%2Frun%2Fpg"),
        ("postgres://u:p%40ss%2Fword@h/d", "postgresql+asyncpg://u:p%40ss%2Fword@h/d"),
    ],
)
def test_addresses_are_taken_in_the_forms_that_hosts_hand_out(given: str, wanted: str) -> None:
    assert normalise_url(given) == wanted


@pytest.mark.parametrize(
    "given",
    [
        "",
        "coach.db",
        f"mysql://u:{SECRET}@h/d",
        f"postgresql+psycopg2://u:{SECRET}@h/d",
        f"postgres://u:{SECRET}@h",
        f"postgres://u:{SECRET}@h:notaport/d",
        f"postgres://u:{SECRET}@h/d?sslmode=maybe",
        f"postgres://u:{SECRET}@h/d?sslpassword={SECRET}",
        f"://{SECRET}",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x.db?mode=ro",
    ],
)
def test_an_address_that_cannot_work_is_refused_without_repeating_it(given: str) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL") as refusal:
        normalise_url(given)
    told = [refusal.value, refusal.value.__cause__, refusal.value.__context__]
    shown = [str(e) for e in told[:2] if e is not None]
    if not refusal.value.__suppress_context__:
        shown.append(str(told[2]))
    assert not any(SECRET in words for words in shown)


def test_a_root_certificate_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    broken = tmp_path / "root.pem"
    broken.write_text("not a certificate")
    for certificate in (broken, tmp_path / "missing.pem"):
        url = f"postgres://u@h/d?sslmode=verify-full&sslrootcert={certificate}"
        with pytest.raises(ConfigError, match="sslrootcert"):
            Database(url, clock=SystemClock())


async def test_sqlite_keeps_what_it_committed_through_a_power_cut(sqlite_url: str) -> None:
    """WAL with synchronous=FULL (2) syncs at each commit; NORMAL (1) does not."""
    database = Database(sqlite_url, clock=SystemClock())
    await database.start()
    async with database.read() as conn:
        told = {
            name: (await conn.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
        }
    assert told == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "secure_delete": 1,
    }
    await database.close()


async def test_postgresql_keeps_what_it_committed_whatever_its_default(postgres_url: str) -> None:
    database = Database(postgres_url, clock=SystemClock())
    await database.start()
    async with database.read() as conn:
        assert (await conn.execute(text("SHOW synchronous_commit"))).scalar() == "on"
        assert (await conn.execute(text("SHOW statement_timeout"))).scalar() == "20s"
    await database.close()


async def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(Conflict):
        async with database.transaction() as conn:
            await insert_job(conn, "a")
            raise Conflict
    async with database.transaction() as conn:
        await insert_job(conn, "b")
    async with database.read() as conn:
        assert list((await conn.execute(text("SELECT key FROM jobs"))).scalars()) == ["b"]


async def test_what_the_driver_throws_comes_out_as_storage_failed(database: Database) -> None:
    with pytest.raises(StorageFailed) as failure:
        async with database.transaction() as conn:
            await insert_job(conn, "a")
            await insert_job(conn, "a")
    assert isinstance(failure.value.__cause__, IntegrityError)
    with pytest.raises(StorageFailed):
        async with database.read() as conn:
            await conn.execute(text("SELECT nothing FROM nowhere"))
    assert await database.healthy()


async def test_transactions_at_the_same_time_all_commit(database: Database) -> None:
    async def one(n: int) -> None:
        async with database.transaction() as conn:
            held = (await conn.execute(text("SELECT count(*) FROM jobs"))).scalar()
            assert held is not None
            await insert_job(conn, f"key {n}")

    await asyncio.gather(*(one(n) for n in range(30)))
    async with database.read() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM jobs"))).scalar() == 30


async def test_a_cancelled_transaction_leaves_nothing_and_blocks_nobody(database: Database) -> None:
    begun = asyncio.Event()

    async def slow(n: int) -> None:
        async with database.transaction() as conn:
            await insert_job(conn, f"cancelled {n}")
            begun.set()
            await asyncio.Event().wait()

    for n in range(12):
        begun.clear()
        task = asyncio.create_task(slow(n))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    # Cancelled at any other step of the way, the pool and the turn to write come back too.
    for steps in range(60):
        task = asyncio.create_task(slow(100 + steps))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with database.transaction() as conn:
        await insert_job(conn, "after")
    async with database.read() as conn:
        assert list((await conn.execute(text("SELECT key FROM jobs"))).scalars()) == ["after"]


async def test_a_transaction_inside_another_fails_instead_of_waiting_for_ever(sqlite_url: str) -> None:
    database = Database(sqlite_url, clock=SystemClock(), busy_s=0.1)
    await database.start()
    with pytest.raises(StorageFailed):
        async with database.transaction(), database.transaction():
            raise AssertionError("not reached")
    await start(database)
    await database.close()


async def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    async with database.read() as conn:
        before = (await conn.execute(text("SELECT count(*) FROM conversations"))).scalar()
        await start(database, "c1", "c2")
        after = (await conn.execute(text("SELECT count(*) FROM conversations"))).scalar()
    assert before == after == 0
    async with database.read() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM conversations"))).scalar() == 2


async def test_processes_that_read_and_then_write_wait_for_each_other(database_url: str) -> None:
    """Two engines stand for two processes. A transaction that takes SQLite's lock only at its first write
    would fail here instead of waiting."""
    both = [Database(database_url, clock=SystemClock()) for _ in range(2)]

    async def one(database: Database, n: int) -> None:
        async with database.transaction() as conn:
            await conn.execute(text("SELECT count(*) FROM jobs"))
            await insert_job(conn, f"key {n}")

    await asyncio.gather(*(one(both[n % 2], n) for n in range(20)))
    async with both[0].read() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM jobs"))).scalar() == 20
    for database in both:
        await database.close()


async def test_deleting_a_conversation_deletes_all_that_belongs_to_it(database: Database) -> None:
    from coach_server.storage import analyses, call_events, tips, transcripts
    from coach_server.storage.tables import metadata
    from tests.storage.samples import shown_tip

    await start(database)
    await store(
        database,
        transcripts.insert("c1", utterance(1)),
        call_events.insert("c1", 1, "X", {}, NOW),
        tips.insert("c1", 2, shown_tip(), None),
    )
    async with database.transaction() as conn:
        await tips.outcomes_insert(conn, [tips.TipOutcome("r1", "c1", taken=True)])
        await analyses.save(conn, "c1", {}, 1, NOW)
    async with database.transaction() as conn:
        await conn.execute(text("DELETE FROM conversations"))
    async with database.read() as conn:
        for name, table in metadata.tables.items():
            if "conversation_id" in table.c:
                assert (await conn.execute(text(f"SELECT count(*) FROM {name}"))).scalar() == 0, name


async def test_a_database_that_is_gone_is_not_healthy(empty_postgres_url: str) -> None:
    database = Database(empty_postgres_url.replace("coach_empty", "no_such"), clock=SystemClock())
    assert not await database.healthy()
    with pytest.raises(StorageFailed):
        await database.start()
    with pytest.raises(StorageFailed):
        async with database.transaction():
            raise AssertionError("not reached")
    await database.close()


async def test_a_server_that_does_not_answer_is_not_healthy_within_a_second() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    database = Database(f"postgres://u:p@127.0.0.1:{port}/d?sslmode=disable", clock=SystemClock())
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert not await database.healthy()
    assert loop.time() - begun < 1.5
    await database.close()
    server.close()
    await server.wait_closed()


async def test_the_folder_of_the_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "coach.db"
    database = Database(f"sqlite:///{path}", clock=SystemClock())
    await database.start()
    await database.close()
    assert path.exists()


async def test_a_file_that_is_no_database_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "coach.db"
    path.write_text("This is a letter, not a database. " * 50)
    database = Database(f"sqlite:///{path}", clock=SystemClock())
    with pytest.raises(StorageFailed):
        await database.start()
    await database.close()


async def test_erased_words_are_not_left_in_the_file(sqlite_url: str) -> None:
    """secure_delete overwrites; the WAL is emptied by a checkpoint (trust.md G28)."""
    from coach_server.storage import transcripts

    canary = "canary-5f1e-said"
    database = Database(sqlite_url, clock=SystemClock())
    await database.start()
    await start(database)
    await store(database, *(transcripts.insert("c1", utterance(n, canary)) for n in range(1, 200)))
    async with database.transaction() as conn:
        await conn.execute(text("DELETE FROM conversations"))
    await database.close()
    path = database.url.database or ""
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.close()
    for suffix in ("", "-wal"):
        kept = Path(path + suffix)
        assert not kept.exists() or canary.encode() not in kept.read_bytes()


async def test_a_closed_database_can_be_started_again(database: Database) -> None:
    await start(database)
    await database.close()
    await database.start()
    async with database.read() as conn:
        assert await conversations.load(conn, "c1") is not None


async def insert_job(conn: AsyncConnection, key: str) -> None:
    row = {
        "kind": "k",
        "key": key,
        "payload": {},
        "status": "queued",
        "attempts": 0,
        "run_at": NOW,
        "created_at": NOW,
    }
    await conn.execute(jobs.insert(), row)
