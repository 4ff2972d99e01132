"""Durable jobs: rows with a lease. Enqueued in the transaction that makes them necessary.

queued -> running (claimed, leased) -> done | queued again (retry, released, lease over) | dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.tables import insert_into
from coach_server.storage.tables import jobs as t


@dataclass(frozen=True, slots=True)
class Job:
    """`attempts` counts the runs begun, this one included."""

    id: int
    kind: str
    key: str
    payload: dict[str, Any]
    attempts: int


async def enqueue(
    conn: AsyncConnection,
    kind: str,
    key: str,
    payload: dict[str, Any],
    run_at: float,
    *,
    now: float | None = None,
) -> None:
    """Ignored when a job with this key was ever enqueued. `now`, when it is not `run_at`, is kept as the time
    of enqueueing."""
    created_at = run_at if now is None else now
    job = {"kind": kind, "key": key, "payload": payload, "run_at": run_at, "created_at": created_at}
    await conn.execute(
        insert_into(t, conn.dialect.name)
        .values(**job, status="queued", attempts=0)
        .on_conflict_do_nothing(index_elements=["key"])
    )


async def claim(conn: AsyncConnection, *, owner: str, now: float, lease_s: float, limit: int) -> list[Job]:
    """Take up to `limit` due jobs, oldest first; among them those whose owner let the lease run out."""
    # A CTE, because PostgreSQL may run a plain subquery once for each row, and the limit with it.
    due = (
        select(t.c.id)
        .where(_due(now))
        .order_by(t.c.run_at, t.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    claimed = await conn.execute(
        update(t)
        .where(t.c.id.in_(select(due.c.id)))
        .values(status="running", owner=owner, lease_until=now + lease_s, attempts=t.c.attempts + 1)
        .returning(t.c.id, t.c.kind, t.c.key, t.c.payload, t.c.attempts, t.c.run_at)
    )
    rows = sorted(claimed, key=lambda row: (row.run_at, row.id))
    return [Job(row.id, row.kind, row.key, row.payload, row.attempts) for row in rows]


async def finish(conn: AsyncConnection, id: int, *, owner: str, now: float) -> bool:
    """False when the job is no longer ours: its lease ran out and another took it."""
    return await _close(conn, id, owner, status="done", finished_at=now, error_code=None)


async def retry(conn: AsyncConnection, id: int, *, owner: str, run_at: float, error_code: str | None) -> bool:
    return await _close(conn, id, owner, status="queued", run_at=run_at, error_code=error_code)


async def bury(conn: AsyncConnection, id: int, *, owner: str, now: float, error_code: str | None) -> bool:
    """Give up: the job stays as a dead letter for people to look at."""
    return await _close(conn, id, owner, status="dead", finished_at=now, error_code=error_code)


async def renew(
    conn: AsyncConnection, ids: Sequence[int], *, owner: str, now: float, lease_s: float
) -> set[int]:
    """Prolong the leases of running jobs; answers which of `ids` are still ours."""
    if not ids:
        return set()
    renewed = await conn.execute(
        update(t)
        .where(t.c.id.in_(sorted(ids)), t.c.owner == owner, t.c.status == "running")
        .values(lease_until=now + lease_s)
        .returning(t.c.id)
    )
    return set(renewed.scalars())


async def release_owner(conn: AsyncConnection, owner: str, *, forgive: bool = False) -> int:
    """Put back every job that `owner` holds, due at once; answers how many. `forgive` takes back the attempt:
    the job did not fail, its runner was stopped."""
    released = await conn.execute(
        update(t)
        .where(t.c.owner == owner, t.c.status == "running")
        .values(status="queued", owner=None, lease_until=None, attempts=t.c.attempts - (1 if forgive else 0))
    )
    return released.rowcount


async def next_due(conn: AsyncConnection) -> float | None:
    """When the next job becomes due, by its time or by the end of somebody's lease."""
    at = select(func.min(t.c.run_at)).where(t.c.status == "queued").scalar_subquery()
    over = select(func.min(t.c.lease_until)).where(t.c.status == "running").scalar_subquery()
    queued, leased = (await conn.execute(select(at, over))).one()
    return min((moment for moment in (queued, leased) if moment is not None), default=None)


async def counts(conn: AsyncConnection) -> dict[str, int]:
    """How many jobs there are by status: queued, running, done, dead."""
    found = await conn.execute(select(t.c.status, func.count()).group_by(t.c.status))
    return dict.fromkeys(("queued", "running", "done", "dead"), 0) | {row[0]: row[1] for row in found}


def _due(now: float) -> Any:
    return or_(
        and_(t.c.status == "queued", t.c.run_at <= now),
        and_(t.c.status == "running", t.c.lease_until < now),
    )


async def _close(conn: AsyncConnection, id: int, owner: str, **values: Any) -> bool:
    closed = await conn.execute(
        update(t)
        .where(t.c.id == id, t.c.owner == owner, t.c.status == "running")
        .values(owner=None, lease_until=None, **values)
    )
    return closed.rowcount == 1
