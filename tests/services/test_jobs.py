from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from coach_server.errors import Invalid, ProviderError, Unavailable
from coach_server.services.jobs import Handler, JobRunner
from coach_server.storage import jobs
from coach_server.storage.database import Database
from coach_server.storage.tables import jobs as table
from coach_server.testing import ManualClock
from tests.storage.samples import until


class Work:
    """A handler that counts its runs, fails as told, and can be held up."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.begun: list[str] = []
        self.done: list[str] = []
        self.changed = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, payload: dict[str, Any]) -> None:
        await self._note(self.begun, payload["of"])
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        await self._note(self.done, payload["of"])

    async def until(self, held: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(held)

    async def _note(self, notes: list[str], of: str) -> None:
        async with self.changed:
            notes.append(of)
            self.changed.notify_all()


@asynccontextmanager
async def runner(
    database: Database, clock: ManualClock, work: Handler, owner: str = "me", **options: Any
) -> AsyncIterator[JobRunner]:
    runner = JobRunner(database, {"analysis": work}, clock, owner, **options)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def enqueue(database: Database, clock: ManualClock, *keys: str, kind: str = "analysis") -> None:
    async with database.transaction() as conn:
        for key in keys:
            await jobs.enqueue(conn, kind, key, {"of": key}, clock.now())


async def row(database: Database, key: str = "c1") -> Any:
    async with database.read() as conn:
        return (await conn.execute(table.select().where(table.c.key == key))).one()


async def status_is(database: Database, status: str, key: str = "c1") -> None:
    async def reached() -> bool:
        return bool((await row(database, key)).status == status)

    await until(reached)


async def test_an_enqueued_job_runs_when_the_runner_is_woken(database: Database) -> None:
    clock, work = ManualClock(), Work()
    async with runner(database, clock, work) as running:
        await enqueue(database, clock, "c1")
        running.wake()
        await status_is(database, "done")
        assert await running.counts() == {"queued": 0, "running": 0, "done": 1, "dead": 0}
    assert work.done == ["c1"]
    assert (await row(database)).finished_at == clock.now()


async def test_a_job_that_another_instance_enqueued_is_found_by_polling(database: Database) -> None:
    clock, work = ManualClock(), Work()
    async with runner(database, clock, work, poll_s=5.0):
        await enqueue(database, clock, "c1")

        async def ran() -> bool:
            await clock.advance(5)
            return bool(work.done)

        await until(ran)


async def test_a_failed_job_is_tried_again_later_and_later(database: Database) -> None:
    clock, work = ManualClock(), Work(*(ProviderError(retryable=True) for _ in range(3)))
    await enqueue(database, clock, "c1")
    waited = []
    async with runner(database, clock, work, first_retry_s=2.0, last_retry_s=5.0) as running:
        for run in range(1, 4):
            await work.until(lambda run=run: len(work.begun) == run)  # type: ignore[misc]
            await status_is(database, "queued")
            waited.append((await row(database)).run_at - clock.now())
            await clock.advance(waited[-1])
            running.wake()
        await status_is(database, "done")
    assert waited == [2.0, 4.0, 5.0]
    assert (await row(database)).attempts == 4


async def test_a_vendor_that_names_a_time_is_not_asked_before(database: Database) -> None:
    clock, work = ManualClock(), Work(Unavailable(retry_after_s=90.0))
    await enqueue(database, clock, "c1")
    async with runner(database, clock, work):
        await work.until(lambda: bool(work.begun))
        await status_is(database, "queued")
    kept = await row(database)
    assert (kept.run_at, kept.error_code) == (clock.now() + 90.0, "SERVICE_UNAVAILABLE")


async def test_what_cannot_succeed_is_given_up_at_once_and_told(database: Database) -> None:
    clock, work = ManualClock(), Work(Invalid("what somebody said"))
    told: list[dict[str, Any]] = []

    async def given_up(payload: dict[str, Any]) -> None:
        told.append(payload)

    async def of_others(payload: dict[str, Any]) -> None:
        raise AssertionError("a job of another kind")

    await enqueue(database, clock, "c1")
    on_dead = {"analysis": given_up, "another kind": of_others}
    async with runner(database, clock, work, on_dead=on_dead):
        await status_is(database, "dead")
        await until(lambda: _true(bool(told)))
    assert (await row(database)).error_code == "INVALID"
    assert told == [{"of": "c1"}]
    assert len(work.begun) == 1


async def test_a_job_that_always_fails_becomes_a_dead_letter(database: Database) -> None:
    clock, work = ManualClock(), Work(*(ZeroDivisionError() for _ in range(9)))
    await enqueue(database, clock, "c1")
    async with runner(database, clock, work, max_attempts=3) as running:

        async def dead() -> bool:
            await clock.advance(60)
            running.wake()
            return bool((await row(database)).status == "dead")

        await until(dead)
    assert len(work.begun) == 3
    assert (await row(database)).error_code == "INTERNAL"


async def test_a_job_of_an_unknown_kind_becomes_a_dead_letter(database: Database) -> None:
    clock = ManualClock()
    await enqueue(database, clock, "c1", kind="of another version")
    async with runner(database, clock, Work()):
        await status_is(database, "dead")
    assert (await row(database)).error_code == "UNKNOWN_KIND"


async def test_a_job_that_takes_the_process_down_each_time_is_not_begun_for_ever(
    database: Database,
) -> None:
    clock, work = ManualClock(), Work()
    await enqueue(database, clock, "c1")
    for _ in range(3):
        async with database.transaction() as conn:
            await jobs.claim(conn, owner="me", now=clock.now(), lease_s=20, limit=1)
            await jobs.release_owner(conn, "me")
    async with runner(database, clock, work, max_attempts=3):
        await status_is(database, "dead")
    assert (work.begun, (await row(database)).error_code) == ([], "CRASHED")


async def test_what_this_instance_held_when_it_crashed_is_back_in_work_at_once(database: Database) -> None:
    clock, work = ManualClock(), Work()
    await enqueue(database, clock, "c1")
    async with database.transaction() as conn:
        await jobs.claim(conn, owner="me", now=clock.now(), lease_s=3600, limit=1)
    async with runner(database, clock, work):
        await status_is(database, "done")


async def test_what_another_instance_held_comes_back_when_its_lease_is_over(database: Database) -> None:
    clock, work = ManualClock(), Work()
    await enqueue(database, clock, "c1")
    async with database.transaction() as conn:
        await jobs.claim(conn, owner="crashed", now=clock.now(), lease_s=20, limit=1)
    start = clock.now()
    async with runner(database, clock, work):

        async def ran() -> bool:
            await clock.advance(1)
            return bool(work.done)

        await until(ran)
    assert 20 < clock.now() - start


async def test_no_more_jobs_run_at_a_time_than_allowed(database: Database) -> None:
    clock, work = ManualClock(), Work()
    work.gate.clear()
    await enqueue(database, clock, *(f"c{n}" for n in range(5)))
    async with runner(database, clock, work, concurrency=2):
        await work.until(lambda: len(work.begun) == 2)
        assert (await row(database, "c2")).status == "queued"
        work.gate.set()
        await work.until(lambda: len(work.done) == 5)


async def test_a_long_job_keeps_its_lease(database: Database) -> None:
    clock, work, rival = ManualClock(), Work(), Work()
    work.gate.clear()
    await enqueue(database, clock, "c1")
    async with runner(database, clock, work, lease_s=20):
        await work.until(lambda: bool(work.begun))
        async with runner(database, clock, rival, owner="other"):
            for _ in range(20):
                due = clock.now()
                await clock.advance(6.7)
                await until(lambda due=due: _renewed(database, due + 20))  # type: ignore[misc]
            work.gate.set()
            await status_is(database, "done")
    assert (work.done, rival.begun) == (["c1"], [])


async def test_a_job_whose_lease_was_lost_is_stopped(database: Database) -> None:
    clock, work = ManualClock(), Work()
    work.gate.clear()
    await enqueue(database, clock, "c1")
    async with runner(database, clock, work, lease_s=20) as running:
        await work.until(lambda: bool(work.begun))
        async with database.transaction() as conn:
            await jobs.release_owner(conn, "me")
            await jobs.claim(conn, owner="other", now=clock.now(), lease_s=3600, limit=1)

        async def stopped() -> bool:
            await clock.advance(7)
            return not running.busy

        await until(stopped)
    assert work.done == []
    assert (await row(database)).owner == "other"


async def test_a_drain_lets_jobs_finish_and_begins_none(database: Database) -> None:
    clock, work = ManualClock(), Work()
    work.gate.clear()
    await enqueue(database, clock, "c1", "c2")
    async with runner(database, clock, work, concurrency=1) as running:
        await work.until(lambda: bool(work.begun))
        draining = asyncio.create_task(running.drain())
        await asyncio.sleep(0)
        work.gate.set()
        await draining
    assert work.done == ["c1"]
    assert ((await row(database, "c1")).status, (await row(database, "c2")).status) == ("done", "queued")


async def test_a_drain_puts_back_what_does_not_finish_without_counting_it(database: Database) -> None:
    clock, work = ManualClock(), Work()
    work.gate.clear()
    await enqueue(database, clock, "c1")
    async with runner(database, clock, work) as running:
        await work.until(lambda: bool(work.begun))
        await running.drain(within_s=0.01)
    kept = await row(database)
    assert (kept.status, kept.attempts, kept.owner) == ("queued", 0, None)


async def test_cancelling_the_owner_puts_its_jobs_back(database: Database) -> None:
    clock, work = ManualClock(), Work()
    work.gate.clear()
    await enqueue(database, clock, "c1")
    async with runner(database, clock, work):
        await work.until(lambda: bool(work.begun))
    assert (await row(database)).status == "queued"


async def test_two_runners_run_each_job_once(database: Database) -> None:
    clock, one, other = ManualClock(), Work(), Work()
    keys = [f"c{n}" for n in range(12)]
    async with runner(database, clock, one, "one") as a, runner(database, clock, other, "other") as b:
        await enqueue(database, clock, *keys)
        a.wake()
        b.wake()

        async def all_done() -> bool:
            return (await a.counts())["done"] == len(keys)

        await until(all_done)
    assert sorted(one.done + other.done) == sorted(keys)


async def test_a_database_that_is_gone_for_a_while_does_not_stop_the_runner(sqlite_url: str) -> None:
    clock, work = ManualClock(), Work()
    database = Database(sqlite_url, clock=clock, busy_s=0.05)
    await database.start()
    async with runner(database, clock, work) as running:
        await enqueue(database, clock, "c1")
        async with database.writing():
            running.wake()
            await until(lambda: _true(running.failed_polls > 0))
        await clock.advance(5)
        await status_is(database, "done")
    await database.close()


async def test_a_dead_letter_hook_that_fails_does_not_stop_the_runner(database: Database) -> None:
    clock, work = ManualClock(), Work(Invalid("no"))

    async def fails(payload: dict[str, Any]) -> None:
        raise RuntimeError

    await enqueue(database, clock, "c1")
    async with runner(database, clock, work, on_dead={"analysis": fails}) as running:
        await status_is(database, "dead")
        await enqueue(database, clock, "c2")
        running.wake()
        await status_is(database, "done", "c2")


async def _true(value: bool) -> bool:
    return value


async def _renewed(database: Database, lease_until: float) -> bool:
    return bool((await row(database)).lease_until > lease_until)
