"""A process that begins a job, says so, and never ends it.

Usage: python -m tests.engines.working <database url> <owner>
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from coach_server.clock import SystemClock
from coach_server.services.jobs import JobRunner
from coach_server.storage import analyses
from coach_server.storage.database import Database


async def main(url: str, owner: str) -> None:
    clock = SystemClock()
    database = Database(url, clock=clock)
    await database.start()

    async def work(payload: dict[str, Any]) -> None:
        if payload["stored before the crash"]:
            async with database.transaction() as conn:
                await analyses.save(conn, "c1", {"by": "the first run"}, 1, clock.now())
        os.write(1, b"begun\n")
        await asyncio.Event().wait()

    await JobRunner(database, {"analysis": work}, clock, owner).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
