from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coach_server.storage import jobs
from coach_server.storage.database import Database
from coach_server.storage.jobs import Job
from tests.storage.samples import NOW


async def enqueue(database: Database, *keys: str, run_at: float = NOW, kind: str = "analysis") -> None:
    async with database.transaction() as conn:
        for key in keys:
            await jobs.enqueue(conn, kind, key, {"of": key}, run_at)


async def claim(database: Database, **changes: Any) -> list[Job]:
    values: dict[str, Any] = {"owner": "me", "now": NOW, "lease_s": 20.0, "limit": 10}
    async with database.transaction() as conn:
        return await jobs.claim(conn, **(values | changes))


async def counts(database: Database) -> dict[str, int]:
    async with database.read() as conn:
        return await jobs.counts(conn)


async def test_a_key_is_enqueued_once_even_after_it_is_done(database: Database) -> None:
    await enqueue(database, "c1", "c1")
    (job,) = await claim(database)
    async with database.transaction() as conn:
        assert await jobs.finish(conn, job.id, owner="me", now=NOW)
    await enqueue(database, "c1")
    assert await claim(database) == []
    assert await counts(database) == {"queued": 0, "running": 0, "done": 1, "dead": 0}


async def test_a_job_is_enqueued_only_when_its_transaction_commits(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as conn:
            await jobs.enqueue(conn, "analysis", "c1", {}, NOW)
            raise RuntimeError
    assert await claim(database) == []


async def test_due_jobs_are_claimed_oldest_first(database: Database) -> None:
    await enqueue(database, "later", run_at=NOW - 1)
    await enqueue(database, "first", run_at=NOW - 2)
    await enqueue(database, "not yet", run_at=NOW + 0.001)
    got = await claim(database)
    assert [(job.key, job.kind, job.payload, job.attempts) for job in got] == [
        ("first", "analysis", {"of": "first"}, 1),
        ("later", "analysis", {"of": "later"}, 1),
    ]
    assert await claim(database) == []


async def test_no_more_jobs_are_claimed_than_asked_for(database: Database) -> None:
    await enqueue(database, *(f"c{n}" for n in range(5)))
    assert [len(await claim(database, limit=2)) for _ in range(4)] == [2, 2, 1, 0]


async def test_racing_claimers_share_the_jobs_without_doubling_one(database: Database) -> None:
    await enqueue(database, *(f"c{n}" for n in range(20)))
    shares = await asyncio.gather(*(claim(database, owner=f"node-{n}", limit=4) for n in range(8)))
    got = [job.key for share in shares for job in share]
    assert len(got) == len(set(got))
    got += [job.key for job in await claim(database, limit=20)]
    assert sorted(got) == sorted(f"c{n}" for n in range(20))


async def test_a_job_whose_owner_vanished_is_claimed_again_when_its_lease_is_over(
    database: Database,
) -> None:
    await enqueue(database, "c1")
    (first,) = await claim(database, owner="gone")
    assert await claim(database, now=NOW + 20) == []
    (again,) = await claim(database, now=NOW + 20.001)
    assert (again.id, again.attempts) == (first.id, 2)
    async with database.transaction() as conn:
        assert not await jobs.finish(conn, first.id, owner="gone", now=NOW + 21)
        assert not await jobs.retry(conn, first.id, owner="gone", run_at=NOW, error_code="X")
        assert not await jobs.bury(conn, first.id, owner="gone", now=NOW, error_code="X")
        assert await jobs.renew(conn, [first.id], owner="gone", now=NOW + 21, lease_s=20) == set()
        assert await jobs.renew(conn, [first.id], owner="me", now=NOW + 21, lease_s=20) == {first.id}
    assert await claim(database, owner="third", now=NOW + 41) == []


async def test_a_retried_job_waits_for_its_time(database: Database) -> None:
    await enqueue(database, "c1")
    (job,) = await claim(database)
    async with database.transaction() as conn:
        assert await jobs.retry(conn, job.id, owner="me", run_at=NOW + 8, error_code="PROVIDER_FAILED")
    assert await claim(database, now=NOW + 7.9) == []
    (again,) = await claim(database, now=NOW + 8)
    assert again.attempts == 2


async def test_a_dead_job_stays_and_is_never_claimed(database: Database) -> None:
    await enqueue(database, "c1")
    (job,) = await claim(database)
    async with database.transaction() as conn:
        assert await jobs.bury(conn, job.id, owner="me", now=NOW, error_code="INVALID")
    assert await claim(database, now=NOW + 1e6) == []
    assert await counts(database) == {"queued": 0, "running": 0, "done": 0, "dead": 1}


async def test_releasing_an_owner_puts_its_jobs_back_at_once(database: Database) -> None:
    await enqueue(database, "mine", "also mine")
    await claim(database, owner="crashed")
    await enqueue(database, "theirs")
    await claim(database, owner="alive")
    async with database.transaction() as conn:
        assert await jobs.release_owner(conn, "crashed") == 2
    got = await claim(database)
    assert [(job.key, job.attempts) for job in got] == [("mine", 2), ("also mine", 2)]
    async with database.transaction() as conn:
        assert await jobs.release_owner(conn, "me", forgive=True) == 2
    assert [job.attempts for job in await claim(database)] == [2, 2]


async def test_the_next_due_time_is_that_of_a_job_or_of_a_lease(database: Database) -> None:
    async def next_due() -> float | None:
        async with database.read() as conn:
            return await jobs.next_due(conn)

    assert await next_due() is None
    await enqueue(database, "late", run_at=NOW + 50)
    assert await next_due() == NOW + 50
    await enqueue(database, "c1")
    await claim(database, lease_s=20)
    assert await next_due() == NOW + 20
