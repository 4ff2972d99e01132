"""Deleting: a conversation with all that belongs to it, or its words alone; and the evidence of both.

Everything works on ids only, so that what cannot be decrypted any more can still be deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import ANALYSES, Unreadable, cipher_of
from coach_server.storage.tables import (
    analyses,
    call_events,
    call_feedback,
    conversations,
    erasures,
    jobs,
    sweeps,
    tip_outcomes,
    tips,
    utterances,
)

Document = dict[str, Any]
_CHILDREN = (utterances, call_events, tips, tip_outcomes, analyses, call_feedback)
# What of a conversation repeats words; of `analyses` the figures stay.
_WORDS = (utterances, call_events, tips)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did. `digest` tells whom it was for only to whoever asks with the name in hand."""

    id: str
    kind: str
    at: float
    digest: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sweep:
    """`before`: what ended before this moment was swept."""

    kind: str
    at: float
    before: float
    counts: dict[str, int]


async def of_user(conn: AsyncConnection, principal: str, user_id: str, limit: int) -> list[str]:
    """Ids of this user's conversations under this API key, in any order."""
    t = conversations
    found = await conn.execute(
        select(t.c.id).where(t.c.principal == principal, t.c.user_id == user_id).limit(limit)
    )
    return list(found.scalars())


async def erase(conn: AsyncConnection, ids: Sequence[str], job_keys: Sequence[str]) -> Counter[str]:
    """Delete these conversations and all that belongs to them; answers how many rows of each table."""
    gone: Counter[str] = Counter()
    for table in _CHILDREN:
        gone[table.name] = await _delete_of(conn, table, ids)
    gone["jobs"] = (await conn.execute(delete(jobs).where(jobs.c.key.in_(job_keys)))).rowcount
    deleted = await conn.execute(delete(conversations).where(conversations.c.id.in_(ids)))
    gone["conversations"] = deleted.rowcount
    return gone


async def keep_receipt(conn: AsyncConnection, receipt: Receipt) -> None:
    await conn.execute(
        erasures.insert().values(
            id=receipt.id, kind=receipt.kind, at=receipt.at, digest=receipt.digest, counts=receipt.counts
        )
    )


# --- the words of old conversations


async def end_unseen(conn: AsyncConnection, before: float, now: float) -> int:
    """End as abandoned, at the moment they were last seen, the conversations that nobody holds and nobody was
    seen in since `before`: the server was off when they should have ended."""
    t = conversations
    free = or_(t.c.owner.is_(None), t.c.lease_until.is_(None), t.c.lease_until < now)
    ended = await conn.execute(
        update(t)
        .where(t.c.status == "active", t.c.last_seen_at < before, free)
        .values(status="abandoned", ended_at=t.c.last_seen_at, owner=None, lease_until=None)
    )
    return ended.rowcount


async def with_old_words(conn: AsyncConnection, before: float, limit: int) -> list[str]:
    """Ids of conversations that ended before `before` and still have their words."""
    t = conversations
    old = and_(t.c.status.in_(("ended", "abandoned")), t.c.last_seen_at < before)
    found = await conn.execute(
        select(t.c.id).where(old, t.c.words_deleted_at.is_(None)).order_by(t.c.last_seen_at).limit(limit)
    )
    return list(found.scalars())


async def delete_words(
    conn: AsyncConnection, ids: Sequence[str], redact: Callable[[Document], Document], at: float
) -> Counter[str]:
    """Delete what was said and shown in these conversations; the rows and figures stay. `redact` takes the
    words out of an analysis; one that cannot be read is deleted as a whole."""
    gone: Counter[str] = Counter()
    for table in _WORDS:
        gone[table.name] = await _delete_of(conn, table, ids)
    gone["analyses"] = await _redact_analyses(conn, ids, redact)
    t = conversations
    pending = t.c.id.in_(ids) & (t.c.analysis_status == "pending")
    await conn.execute(update(t).where(pending).values(analysis_status="failed"))
    emptied = await conn.execute(
        update(t).where(t.c.id.in_(ids)).values(state={}, metadata={}, words_deleted_at=at)
    )
    gone["conversations"] = emptied.rowcount
    return gone


async def delete_finished_jobs(conn: AsyncConnection, before: float) -> int:
    closed = and_(jobs.c.status.in_(("done", "dead")), jobs.c.finished_at < before)
    return (await conn.execute(delete(jobs).where(closed))).rowcount


async def keep_sweep(conn: AsyncConnection, sweep: Sweep) -> None:
    await conn.execute(
        sweeps.insert().values(kind=sweep.kind, at=sweep.at, before=sweep.before, counts=sweep.counts)
    )


async def last_sweeps(conn: AsyncConnection, limit: int) -> list[Sweep]:
    """Newest first."""
    found = await conn.execute(
        select(sweeps.c.kind, sweeps.c.at, sweeps.c.before, sweeps.c.counts)
        .order_by(sweeps.c.id.desc())
        .limit(limit)
    )
    return [Sweep(**row._mapping) for row in found]


async def _redact_analyses(
    conn: AsyncConnection, ids: Sequence[str], redact: Callable[[Document], Document]
) -> int:
    t, cipher = analyses, cipher_of(conn)
    found = await conn.execute(select(t.c.conversation_id, t.c.document).where(t.c.conversation_id.in_(ids)))
    rows = found.mappings().all()
    for row in rows:
        this = t.c.conversation_id == row["conversation_id"]
        try:
            document = redact(ANALYSES.open(cipher, row)["document"])
        except Unreadable:
            await conn.execute(delete(t).where(this))
            continue
        sealed = ANALYSES.seal(cipher, {**row, "document": document})
        await conn.execute(update(t).where(this).values(document=sealed["document"]))
    return len(rows)


async def _delete_of(conn: AsyncConnection, table: Table, ids: Sequence[str]) -> int:
    return (await conn.execute(delete(table).where(table.c.conversation_id.in_(ids)))).rowcount


def plain(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts in a steady order, without tables that had nothing."""
    return {str(name): counts[name] for name in sorted(counts) if counts[name]}
