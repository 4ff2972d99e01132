"""Deleting what was practised: all of a user's, or the words of what is old. On ids only, so that what cannot
be decrypted any more can still be deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Table, and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import CALL_FEEDBACK, FEEDBACK, SESSIONS, Sealed, Unreadable, cipher_of
from coach_server.storage.tables import (
    call_feedback,
    drills,
    jobs,
    roleplay_feedback,
    roleplay_sessions,
    roleplay_step_progress,
    roleplay_transcripts,
    user_progress,
    users,
)

Document = dict[str, Any]
Redact = Callable[[Document], Document]
_CHILDREN = (roleplay_transcripts, roleplay_step_progress, roleplay_feedback)
_s = roleplay_sessions


async def sessions_of_user(
    conn: AsyncConnection, principal: str, user_id: str, limit: int
) -> list[tuple[str, str, str | None]]:
    """(id, avatar provider, the vendor's id) of some of a user's sessions, in any order."""
    wanted = (
        select(_s.c.id, _s.c.avatar_provider, _s.c.heygen_session_id)
        .where(_s.c.principal == principal, _s.c.user_id == user_id)
        .limit(limit)
    )
    return [(row.id, row.avatar_provider, row.heygen_session_id) for row in await conn.execute(wanted)]


async def erase_sessions(
    conn: AsyncConnection, ids: Sequence[str], job_keys: Sequence[str], kinds: Sequence[str]
) -> Counter[str]:
    """Delete these sessions with all that belongs to them, and their jobs: those of these keys, and those
    whose key begins with one of `kinds` and a session's id."""
    gone: Counter[str] = Counter()
    # Whoever is in the middle of a session holds its row: first of all, so that nothing is added meanwhile.
    await conn.execute(select(_s.c.id).where(_s.c.id.in_(ids)).with_for_update())
    for table in _CHILDREN:
        gone[table.name] = (await conn.execute(delete(table).where(table.c.session_id.in_(ids)))).rowcount
    begins = [jobs.c.key.like(f"{kind}:{id}%") for kind in kinds for id in ids]
    gone["jobs"] = (await conn.execute(delete(jobs).where(or_(jobs.c.key.in_(job_keys), *begins)))).rowcount
    gone["roleplay_sessions"] = (await conn.execute(delete(_s).where(_s.c.id.in_(ids)))).rowcount
    return gone


async def erase_user(conn: AsyncConnection, principal: str, user_id: str) -> Counter[str]:
    """What is kept of a user beside sessions and calls."""
    gone: Counter[str] = Counter()
    for table in (drills, user_progress, users):
        mine = and_(table.c.principal == principal, table.c.user_id == user_id)
        gone[table.name] = (await conn.execute(delete(table).where(mine))).rowcount
    return gone


async def erase_drills_of(conn: AsyncConnection, source_kind: str, ids: Sequence[str]) -> int:
    """Drills hold words of the talk they come from."""
    mine = and_(drills.c.source_kind == source_kind, drills.c.source_id.in_(ids))
    return (await conn.execute(delete(drills).where(mine))).rowcount


# --- the words of what is old


async def with_old_words(conn: AsyncConnection, before: float, limit: int) -> list[str]:
    """Ids of sessions that nobody was seen in since `before` and that still have their words."""
    wanted = (
        select(_s.c.id)
        .where(_s.c.last_seen_at < before, _s.c.words_deleted_at.is_(None))
        .order_by(_s.c.last_seen_at)
        .limit(limit)
    )
    return list((await conn.execute(wanted)).scalars())


async def delete_words(conn: AsyncConnection, ids: Sequence[str], redact: Redact, at: float) -> Counter[str]:
    """Delete what was said in these sessions; scores and figures stay. A session that was still open is over:
    nobody will come back to it."""
    gone: Counter[str] = Counter()
    gone["roleplay_transcripts"] = (
        await conn.execute(delete(roleplay_transcripts).where(roleplay_transcripts.c.session_id.in_(ids)))
    ).rowcount
    gone["roleplay_feedback"] = await redact_feedback(
        conn, roleplay_feedback, FEEDBACK, "session_id", ids, redact
    )
    steps = roleplay_step_progress
    await conn.execute(update(steps).where(steps.c.session_id.in_(ids)).values(feedback=None))
    gone["drills"] = await erase_drills_of(conn, "roleplay", ids)
    unfinished = and_(_s.c.id.in_(ids), _s.c.completed_at.is_(None))
    await conn.execute(
        update(_s).where(unfinished).values(status="abandoned", completed_at=_s.c.last_seen_at)
    )
    pending = and_(_s.c.id.in_(ids), _s.c.analysis_status == "pending")
    await conn.execute(update(_s).where(pending).values(analysis_status="failed"))
    gone["roleplay_sessions"] = await _empty_states(conn, ids, at)
    return gone


async def _empty_states(conn: AsyncConnection, ids: Sequence[str], at: float) -> int:
    """The steps taken stay, so that the session can still be asked for; the customer's memory and the lines
    of a drill go. A state that cannot be read goes whole."""
    cipher = cipher_of(conn)
    wanted = select(_s.c.id, _s.c.state, _s.c.status, _s.c.completed_at).where(_s.c.id.in_(ids))
    rows = (await conn.execute(wanted)).mappings().all()
    for row in rows:
        try:
            machine = SESSIONS.open(cipher, row)["state"].get("machine")
        except Unreadable:
            machine = None
        state = {} if machine is None else {"machine": machine | _ended(row)}
        kept = SESSIONS.seal(cipher, {"id": row["id"], "state": state})
        emptied = {"state": kept["state"], "heygen_access_token": None, "words_deleted_at": at}
        await conn.execute(update(_s).where(_s.c.id == row["id"]).values(**emptied))
    return len(rows)


def _ended(row: Mapping[Any, Any]) -> Document:
    """The machine says what its row says: that it is over."""
    return {"status": row["status"], "ended_at": row["completed_at"]}


async def redact_calls(conn: AsyncConnection, ids: Sequence[str], redact: Redact) -> Counter[str]:
    """The score cards of live calls without words, and no drills of them."""
    redacted = await redact_feedback(conn, call_feedback, CALL_FEEDBACK, "conversation_id", ids, redact)
    return Counter(call_feedback=redacted, drills=await erase_drills_of(conn, "call", ids))


async def redact_feedback(
    conn: AsyncConnection, table: Table, sealed: Sealed, key: str, ids: Sequence[str], redact: Redact
) -> int:
    """A document that cannot be read is deleted as a whole, its figures with it."""
    cipher, of = cipher_of(conn), table.c[key]
    rows = (await conn.execute(select(table).where(of.in_(ids)))).mappings().all()
    for row in rows:
        try:
            document = redact(sealed.open(cipher, row)["document"])
        except Unreadable:
            await conn.execute(delete(table).where(of == row[key]))
            continue
        kept = sealed.seal(cipher, {**row, "document": document, "judgement": None})
        changed = {name: kept[name] for name in ("document", "judgement") if name in table.c}
        await conn.execute(update(table).where(of == row[key]).values(**changed))
    return len(rows)
