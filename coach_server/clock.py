"""Time. The only module that reads the system's clock or sleeps."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch; never goes backwards within a process."""
        ...

    async def sleep_until(self, when: float) -> None:
        """Return once `now() >= when` (seconds since the epoch)."""
        ...


class SystemClock:
    """Wall time at start plus monotonic time since, so that a corrected system clock cannot rush a timer."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()

    async def sleep_until(self, when: float) -> None:
        while (left := when - self.now()) > 0:  # noqa: ASYNC110 - the one place that waits for time
            await asyncio.sleep(left)


def millis(seconds: float) -> int:
    """Integer milliseconds since the epoch, the wire's unit of time (live-coach.md §3)."""
    return int(seconds * 1000)
