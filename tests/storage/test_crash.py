from __future__ import annotations

import asyncio
import sys

import pytest

from coach_server.clock import SystemClock
from coach_server.storage import call_events, transcripts
from coach_server.storage.database import Database

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
