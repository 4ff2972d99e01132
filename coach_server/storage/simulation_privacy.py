"""Deleting what was said in simulations: all of a trainee's, or the words of what is old. On ids only, so
that what cannot be decrypted any more can still be deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import SIM_SCORES, SIMULATIONS, cipher_of
from coach_server.storage.practice_privacy import Redact, redact_feedback
from coach_server.storage.tables import (
    jobs,
    simulation_events,
    simulation_exports,
    simulation_moods,
    simulation_scores,
    simulation_utterances,
)
from coach_server.storage.tables import simulations as t

_CHILDREN = (
    simulation_utterances,
    simulation_events,
    simulation_moods,
    simulation_scores,
    simulation_exports,
)


async def of_trainee(conn: AsyncConnection, principal: str, trainee_id: str, limit: int) -> list[str]:
    """Ids of some of a trainee's simulations, oldest first."""
    wanted = (
        select(t.c.id)
        .where(t.c.principal == principal, t.c.trainee_id == trainee_id)
        .order_by(t.c.created_at, t.c.id)
        .limit(limit)
    )
    return list((await conn.execute(wanted)).scalars())


async def ids_after(
    conn: AsyncConnection, principal: str, trainee_id: str, after: tuple[float, str] | None, limit: int
) -> list[tuple[float, str]]:
    """(created_at, id) of the next ones, oldest first."""
    wanted = select(t.c.created_at, t.c.id).where(t.c.principal == principal, t.c.trainee_id == trainee_id)
    if after is not None:
        at, id = after
        wanted = wanted.where(or_(t.c.created_at > at, and_(t.c.created_at == at, t.c.id > id)))
    rows = await conn.execute(wanted.order_by(t.c.created_at, t.c.id).limit(limit))
    return [(row.created_at, row.id) for row in rows]


async def erase(conn: AsyncConnection, ids: Sequence[str], kinds: Sequence[str]) -> Counter[str]:
    """Delete these simulations with all that belongs to them, and their jobs: `kinds` are what their keys
    begin with."""
    gone: Counter[str] = Counter()
    await conn.execute(select(t.c.id).where(t.c.id.in_(ids)).with_for_update())
    exports = list(
        (
            await conn.execute(
                select(simulation_exports.c.id).where(simulation_exports.c.session_id.in_(ids))
            )
        ).scalars()
    )
    for table in _CHILDREN:
        gone[table.name] = (await conn.execute(delete(table).where(table.c.session_id.in_(ids)))).rowcount
    keys = [f"{kind}:{id}" for kind in kinds for id in (*ids, *exports)]
    again = [jobs.c.key.like(f"{kind}:{id}:%") for kind in kinds for id in ids]
    gone["jobs"] = (await conn.execute(delete(jobs).where(or_(jobs.c.key.in_(keys), *again)))).rowcount
    gone["simulations"] = (await conn.execute(delete(t).where(t.c.id.in_(ids)))).rowcount
    return gone


async def with_old_words(conn: AsyncConnection, before: float, limit: int) -> list[str]:
    """Ids of simulations that nobody was seen in since `before` and that still have their words."""
    wanted = (
        select(t.c.id)
        .where(t.c.last_seen_at < before, t.c.words_deleted_at.is_(None))
        .order_by(t.c.last_seen_at)
        .limit(limit)
    )
    return list((await conn.execute(wanted)).scalars())


async def delete_words(conn: AsyncConnection, ids: Sequence[str], redact: Redact, at: float) -> Counter[str]:
    """Delete what was said and uploaded in these simulations; scores, moods and figures stay. One that was
    still open is over: nobody will come back to it."""
    gone: Counter[str] = Counter()
    for table in (simulation_utterances, simulation_events):
        gone[table.name] = (await conn.execute(delete(table).where(table.c.session_id.in_(ids)))).rowcount
    gone["simulation_scores"] = await redact_feedback(
        conn, simulation_scores, SIM_SCORES, "session_id", ids, redact
    )
    open_ = and_(t.c.id.in_(ids), t.c.status != "ended")
    await conn.execute(update(t).where(open_).values(status="ended", ended_at=t.c.last_seen_at))
    pending = and_(t.c.id.in_(ids), t.c.analysis_status == "pending")
    await conn.execute(update(t).where(pending).values(analysis_status="failed"))
    cipher = cipher_of(conn)
    for id in ids:
        emptied = SIMULATIONS.seal(cipher, {"id": id, "metadata": {}, "state": {}})
        values = {"metadata": emptied["metadata"], "state": emptied["state"], "words_deleted_at": at}
        gone["simulations"] += (
            await conn.execute(update(t).where(t.c.id == id).values(**values, ticket_digest=None))
        ).rowcount
    return gone
