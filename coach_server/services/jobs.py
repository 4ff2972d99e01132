"""Runs the durable jobs: claims what is due, keeps its lease, tries again, gives up visibly.

A job may run more than once (a crash between its work and its end), so each handler makes its effect in one
transaction that a second run finds done. What a handler raises is kept by its code only; its words stay out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import CoachError, StorageFailed
from coach_server.storage import jobs
from coach_server.storage.database import Database
from coach_server.storage.jobs import Job

Handler = Callable[[dict[str, Any]], Awaitable[None]]


class JobRunner:
    """One per process, owned by the task of `run`.

    `owner` names this instance. When the name outlives a restart, what the instance held when it crashed is
    back in work at once; what others held comes back when their lease is over. `on_dead` hears, by
    kind, the payload of a job that was given up.
    """

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, Handler],
        clock: Clock,
        owner: str,
        concurrency: int = 2,
        *,
        lease_s: float = 20.0,
        poll_s: float = 5.0,
        max_attempts: int = 6,
        first_retry_s: float = 2.0,
        last_retry_s: float = 600.0,
        on_dead: Mapping[str, Handler] | None = None,
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
        self._on_dead = dict(on_dead or {})
        self._woken = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._draining = False
        self.failed_polls = 0
        self._stopped: asyncio.Event | None = None

    @property
    def busy(self) -> int:
        """How many jobs run now."""
        return len(self._running)

    def wake(self) -> None:
        """Something was enqueued: look now instead of at the next poll."""
        self._woken.set()

    async def run(self) -> None:
        """Work until drained or cancelled; jobs cut off by a cancellation are put back."""
        self._stopped = asyncio.Event()
        try:
            await self._release(forgive=False)
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep_leases(), name="job leases")
                while not self._draining:
                    await self._pause(await self._start_due(group))
                keeper.cancel()
        finally:
            await self._release(forgive=True)
            self._stopped.set()

    async def drain(self, within_s: float = 10.0) -> None:
        """Claim nothing more, give what runs `within_s` seconds, put back what is not done by then."""
        self._draining = True
        self.wake()
        if self._running:
            await asyncio.wait(set(self._running.values()), timeout=within_s)
        for task in self._running.values():
            task.cancel()
        if self._stopped is not None:
            await self._stopped.wait()

    async def counts(self) -> dict[str, int]:
        """How many jobs there are: queued, running, done, dead."""
        async with self._database.read() as conn:
            return await jobs.counts(conn)

    async def _start_due(self, group: asyncio.TaskGroup) -> float:
        """Claim into the free places and answer when to look again, unless woken before."""
        self._woken.clear()
        now = self._clock.now()
        free = self._concurrency - len(self._running)
        if free == 0:
            return now + self._poll_s
        try:
            claimed, next_due = await self._claim(now, free)
        except StorageFailed:
            self.failed_polls += 1
            logger.warning("jobs: cannot look for work")
            return now + self._poll_s
        for job in claimed:
            if job.id in self._running:
                continue  # its lease ran out under us; the work goes on
            self._running[job.id] = group.create_task(self._work(job), name=f"job {job.id} {job.kind}")
        return min(next_due, now + self._poll_s)

    async def _claim(self, now: float, limit: int) -> tuple[list[Job], float]:
        async with self._database.read() as conn:
            due = await jobs.next_due(conn)
        if due is None or due > now:
            return [], math.inf if due is None else due
        async with self._database.transaction() as conn:
            claimed = await jobs.claim(conn, owner=self._owner, now=now, lease_s=self._lease_s, limit=limit)
        return claimed, now if claimed else math.inf

    async def _pause(self, until: float) -> None:
        waits = {
            asyncio.create_task(self._clock.sleep_until(until), name="job poll"),
            asyncio.create_task(self._woken.wait(), name="job wake"),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _work(self, job: Job) -> None:
        try:
            await self._attempt(job)
        except Exception as error:
            # Its end could not be written: the lease runs out and the job runs again.
            logger.bind(job=job.id, kind=job.kind).opt(exception=error).error("jobs: end not stored")
        finally:
            if self._running.get(job.id) is asyncio.current_task():
                del self._running[job.id]
            self.wake()

    async def _attempt(self, job: Job) -> None:
        handler = self._handlers.get(job.kind)
        if handler is None:
            return await self._bury(job, "UNKNOWN_KIND")
        if job.attempts > self._max_attempts:
            # It was claimed that often without an end: it takes the process down each time.
            return await self._bury(job, "CRASHED")
        try:
            await handler(job.payload)
        except Exception as error:
            return await self._failed(job, error)
        async with self._database.transaction() as conn:
            await jobs.finish(conn, job.id, owner=self._owner, now=self._clock.now())

    async def _failed(self, job: Job, error: Exception) -> None:
        """An error that is not ours may pass; one of ours says itself whether another try can help."""
        known = error if isinstance(error, CoachError) else None
        code = known.code if known else "INTERNAL"
        log = logger.bind(job=job.id, kind=job.kind, attempt=job.attempts, code=code).opt(exception=error)
        if (known and not known.retryable) or job.attempts >= self._max_attempts:
            log.error("jobs: given up")
            return await self._bury(job, code)
        log.warning("jobs: will be tried again")
        run_at = self._clock.now() + self._back_off(job, known.retry_after_s if known else None)
        async with self._database.transaction() as conn:
            await jobs.retry(conn, job.id, owner=self._owner, run_at=run_at, error_code=code)

    def _back_off(self, job: Job, asked_s: float | None) -> float:
        wait = min(self._first_retry_s * 2.0 ** (job.attempts - 1), self._last_retry_s)
        return max(wait, asked_s or 0.0)

    async def _bury(self, job: Job, code: str) -> None:
        async with self._database.transaction() as conn:
            ours = await jobs.bury(conn, job.id, owner=self._owner, now=self._clock.now(), error_code=code)
        if ours and (told := self._on_dead.get(job.kind)) is not None:
            await told(job.payload)

    async def _keep_leases(self) -> None:
        due = self._clock.now()
        while True:
            # From the last time it was due, not from when the renewal was written: a slow database must not
            # make the next one late as well.
            due = max(due + self._lease_s / 3, self._clock.now() - self._lease_s)
            await self._clock.sleep_until(due)
            held = list(self._running)
            if not held:
                continue
            try:
                async with self._database.transaction() as conn:
                    ours = await jobs.renew(
                        conn, held, owner=self._owner, now=self._clock.now(), lease_s=self._lease_s
                    )
            except StorageFailed:
                logger.warning("jobs: cannot renew leases")
                continue
            for id in set(held) - ours:
                self._drop(id)

    def _drop(self, id: int) -> None:
        """Another instance has the job by now (we were too slow to renew)."""
        if (task := self._running.get(id)) is not None:
            logger.bind(job=id).warning("jobs: lease lost")
            task.cancel()

    async def _release(self, *, forgive: bool) -> None:
        try:
            async with self._database.transaction() as conn:
                await jobs.release_owner(conn, self._owner, forgive=forgive)
        except StorageFailed:
            logger.warning("jobs: cannot release; their leases will run out")
