"""The owner of a live session: one task, one inbox, one deadline.

Sockets, REST, timers and finished generations only put things in the inbox, so a session's order is kept and
nothing races; a timer cannot outlive its session, because it is only a number the owner is woken at.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, NoReturn, TypeVar

from loguru import logger

from coach_server.clock import Clock

T = TypeVar("T")


class Alarm:
    """Wakes sessions at their deadlines: one sleeping task for all of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._changed = asyncio.Event()

    def set(self, when: float, wake: Callable[[], None]) -> None:
        """Call `wake` once at `when` (seconds since the epoch). It may be early for a deadline that moved:
        the woken session looks at its machine again."""
        first = not self._heap or when < self._heap[0][0]
        heapq.heappush(self._heap, (when, next(self._count), wake))
        if first:
            self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed.clear()
            if not self._heap:
                await self._changed.wait()
                continue
            when = self._heap[0][0]
            if when <= self._clock.now():
                heapq.heappop(self._heap)[2]()
                continue
            await self._sleep(when)

    async def _sleep(self, when: float) -> None:
        sleeper = asyncio.ensure_future(self._clock.sleep_until(when))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({sleeper, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleeper, changed):
                task.cancel()
            await asyncio.gather(sleeper, changed, return_exceptions=True)


class Inbox(Generic[T]):
    """Unbounded by itself: the wire's rate limits bound what a client can put in."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        self._items.append(item)
        self.nudge()

    def nudge(self) -> None:
        """Wake the owner although nothing came: its deadline may have passed."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> T | None:
        return self._items.popleft() if self._items else None

    async def wait(self) -> None:
        """Return when something was put, or after a nudge."""
        if self._items:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)


async def always(clock: Clock, work: Callable[[], Awaitable[None]], of: str) -> NoReturn:
    """Do `work` for as long as the process lives. One broken helper must not take everything down with it: it
    is logged and starts again. `of`: whose helper it is."""
    while True:
        try:
            await work()
        except Exception as error:
            logger.opt(exception=error).error(f"A helper of the {of} broke and starts again")
        await clock.sleep_until(clock.now() + 1.0)
