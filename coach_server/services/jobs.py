"""Runs the durable jobs: claims what is due, keeps its lease, tries again, gives up visibly.

A job may run more than once (a crash between its work and its end), so each handler makes its effect in one
transaction that a second run finds done. What a handler raises is told by code only; its words stay out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from coach_server.clock import Clock
from coach_server.storage.database import Database

Handler = Callable[[dict[str, Any]], Awaitable[None]]


class JobRunner:
    """One per process. `owner` is this instance's stable name: what it held when it crashed is put back at once
    when it starts again; what others held comes back when their lease is over."""

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, Handler],
        clock: Clock,
        owner: str,
        concurrency: int = 2,
        *,
        lease_s: float = 30.0,
        poll_s: float = 5.0,
        max_attempts: int = 6,
        first_retry_s: float = 2.0,
        last_retry_s: float = 600.0,
    ) -> None:
        self._database = database
        self._handlers = dict(handlers)
        self._clock = clock
        self._owner = owner
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._max_attempts = max_attempts
        self._first_retry_s = first_retry_s
        self._last_retry_s = last_retry_s
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something was enqueued: look now instead of at the next poll."""
        self._woken.set()

    async def run(self) -> None:
        """The owner task: works until cancelled."""
        raise NotImplementedError

    async def drain(self, within_s: float = 10.0) -> None:
        """Claim nothing more, give what runs `within_s` seconds, then put back what is not done."""
        raise NotImplementedError
