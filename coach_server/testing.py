"""Doubles that ship with the server, for its own tests and for those who extend it."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class ManualClock:
    """A clock that stands still until `advance` moves it. `sleep_until` wakes in order of due time."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._count = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    async def sleep_until(self, when: float) -> None:
        if when <= self._now:
            await asyncio.sleep(0)
            return
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (when, next(self._count), waker))
        await waker

    async def advance(self, seconds: float) -> None:
        """Move time forward, waking each sleeper at its own moment and letting it run before going on."""
        end = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, waker = heapq.heappop(self._sleepers)
            self._now = max(self._now, when)
            if not waker.done():
                waker.set_result(None)
            await settle()
        self._now = end
        await settle()


async def settle(rounds: int = 50) -> None:
    """Let every task that can run do so."""
    for _ in range(rounds):
        await asyncio.sleep(0)
