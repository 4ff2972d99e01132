from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from coach_server.clock import SystemClock
from coach_server.services.jobs import JobRunner
from coach_server.storage import analyses, call_events, jobs, transcripts
from coach_server.storage.database import Database
from tests.storage.samples import start, until

ROUNDS = 5


@pytest.mark.crash
async def test_what_was_acknowledged_outlives_kill_9(database_url: str) -> None:
    """Each round another moment of death, on the database that the round before left behind."""
    for round in range(ROUNDS):
        acknowledged = await acknowledged_until_killed(
            database_url, first=1 + round * 1_000_000, after=40 + 211 * round
        )
        assert len(acknowledged) >= 40
        words, events = await stored(database_url)
        assert acknowledged <= words
        assert words == events, "a put was stored in part"


async def acknowledged_until_killed(url: str, *, first: int, after: int) -> set[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.engines.journalling",
        url,
        "c1",
        str(first),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(after)]
    process.kill()
    # What it told before it died, though nobody had read it yet, was promised too.
    lines += (await process.stdout.read()).splitlines(keepends=True)
    assert await process.wait() == -9
    return {int(line) for line in lines if line.endswith(b"\n")}


async def stored(url: str) -> tuple[set[int], set[int]]:
    database = Database(url, clock=SystemClock())
    await database.start()
    async with database.read() as conn:
        words = await transcripts.all(conn, "c1")
        events = await call_events.since(conn, "c1", 0, limit=10_000_000)
    await database.close()
    assert all(u.text == f"words {u.sequence}" for u in words)
    return {u.sequence for u in words}, {seq for seq, _, _ in events}


@pytest.mark.crash
@pytest.mark.parametrize("stored_before", [False, True], ids=["before its effect", "after its effect"])
async def test_a_job_cut_off_by_kill_9_runs_again_and_takes_effect_once(
    database: Database, stored_before: bool
) -> None:
    clock = SystemClock()
    await start(database)
    async with database.transaction() as conn:
        payload = {"stored before the crash": stored_before}
        await jobs.enqueue(conn, "analysis", "c1", payload, clock.now())
    await killed_at_work(database.url.render_as_string(hide_password=False), "node-1")

    effects: list[bool] = []

    async def work(payload: dict[str, Any]) -> None:
        async with database.transaction() as conn:
            effects.append(await analyses.save(conn, "c1", {"by": "the second run"}, 1, clock.now()))

    runner = JobRunner(database, {"analysis": work}, clock, "node-1")
    running = asyncio.create_task(runner.run())
    restarted = clock.now()

    async def done() -> bool:
        return (await runner.counts())["done"] == 1

    await until(done)
    assert clock.now() - restarted < 5, "its lease would have run out by itself only after 20 s"
    await runner.drain()
    await running
    assert effects == [not stored_before]
    async with database.read() as conn:
        kept = await analyses.load(conn, "c1")
    assert kept is not None
    assert kept.document == {"by": "the first run" if stored_before else "the second run"}


async def killed_at_work(url: str, owner: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.engines.working", url, owner, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    process.kill()
    assert await process.wait() == -9
