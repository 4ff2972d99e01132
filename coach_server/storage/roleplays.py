"""Practice sessions: their rows, their turns, and the steps taken in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import MESSAGES, SESSIONS, STEPS, cipher_of
from coach_server.storage.tables import insert_into
from coach_server.storage.tables import roleplay_sessions as t
from coach_server.storage.tables import roleplay_step_progress as step_rows
from coach_server.storage.tables import roleplay_transcripts as message_rows


@dataclass(frozen=True, slots=True)
class Session:
    """A row of `roleplay_sessions`. Times are seconds since the epoch. `completed_at` is None while anything
    can still happen. `heygen_*`: of whatever avatar vendor it is."""

    id: str
    principal: str
    user_id: str
    team_id: str | None
    kind: str
    scenario_id: str
    drill_id: str | None
    methodology: str
    methodology_version: int
    language: str
    status: str
    current_phase_id: int
    current_step_id: str
    started_at: float
    last_seen_at: float
    store_transcript: bool
    state: dict[str, Any]
    avatar_provider: str = "off"
    heygen_session_id: str | None = None
    heygen_access_token: str | None = field(default=None, repr=False)
    avatar_expires_at: float | None = None
    avatar_stopped_at: float | None = None
    completed_at: float | None = None
    duration_seconds: int | None = None
    overall_score: int | None = None
    last_sequence: int = 0
    consent: dict[str, Any] | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    analysis_status: str = "none"
    idempotency_key: str | None = None

    @property
    def is_over(self) -> bool:
        return self.completed_at is not None


@dataclass(frozen=True, slots=True)
class Message:
    """A row of `roleplay_transcripts`: one turn. `speaker` user or hugo; `reading`: what the method made of
    it; `message` is empty where the session keeps no words."""

    session_id: str
    sequence_number: int
    id: str
    message_id: str
    speaker: str
    message: str
    timestamp: float
    reading: dict[str, Any]
    created_at: float
    duration_ms: int | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class StepRow:
    """A row of `roleplay_step_progress`."""

    session_id: str
    step_id: str
    phase_id: int
    status: str
    manual: bool
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    duration_seconds: int | None = None
    technique_score: int | None = None
    technique_used: bool = False
    feedback: str | None = None


_SESSION = tuple(one.name for one in fields(Session))
_MESSAGE = tuple(one.name for one in fields(Message))
_STEP = tuple(one.name for one in fields(StepRow))
_LIVE = ("idle", "recording")


# --- sessions


async def insert(conn: AsyncConnection, session: Session, now: float) -> bool:
    """False when this user's idempotency key has a session already."""
    values = asdict(session) | {"created_at": now, "updated_at": now, "words_deleted_at": None}
    sealed = SESSIONS.seal(cipher_of(conn), values)
    new = insert_into(t, conn.dialect.name).values(sealed).on_conflict_do_nothing()
    return (await conn.execute(new)).rowcount == 1


async def load(conn: AsyncConnection, session_id: str, *, to_change: bool = False) -> Session | None:
    """`to_change` holds the row until the transaction ends, so that events of one session are applied one
    after the other on however many instances."""
    wanted = select(*(t.c[name] for name in _SESSION)).where(t.c.id == session_id)
    if to_change:
        wanted = wanted.with_for_update()
    row = (await conn.execute(wanted)).one_or_none()
    return None if row is None else Session(**SESSIONS.open(cipher_of(conn), row._mapping))


async def find_by_idempotency(
    conn: AsyncConnection, principal: str, user_id: str, key: str
) -> Session | None:
    wanted = select(t.c.id).where(
        t.c.principal == principal, t.c.user_id == user_id, t.c.idempotency_key == key
    )
    found = (await conn.execute(wanted)).scalar_one_or_none()
    return None if found is None else await load(conn, found)


async def save(conn: AsyncConnection, session: Session, now: float) -> None:
    """Write what may have changed."""
    values = {name: getattr(session, name) for name in _SESSION if name not in ("id", "principal", "user_id")}
    sealed = SESSIONS.seal(cipher_of(conn), {"id": session.id, **values})
    sealed.pop("id")
    await conn.execute(update(t).where(t.c.id == session.id).values(**sealed, updated_at=now))


async def change(conn: AsyncConnection, session_id: str, **values: Any) -> bool:
    """Set plain columns of a session; False when there is none."""
    changed = await conn.execute(update(t).where(t.c.id == session_id).values(**values))
    return changed.rowcount == 1


async def touch(conn: AsyncConnection, session_id: str, now: float) -> None:
    await conn.execute(update(t).where(t.c.id == session_id, t.c.last_seen_at < now).values(last_seen_at=now))


async def stale(conn: AsyncConnection, *, seen_before: float, began_before: float, limit: int) -> list[str]:
    """Sessions that time alone may move: not over, and not seen since `seen_before`, or begun before
    `began_before`. Those that were abandoned come too."""
    due = or_(t.c.last_seen_at < seen_before, t.c.started_at < began_before, t.c.kind == "drill")
    wanted = select(t.c.id).where(t.c.completed_at.is_(None), due).order_by(t.c.last_seen_at).limit(limit)
    return list((await conn.execute(wanted)).scalars())


async def with_old_tokens(conn: AsyncConnection, before: float, limit: int) -> list[str]:
    """Sessions that run and whose avatar token expires before this moment."""
    wanted = (
        select(t.c.id)
        .where(t.c.status.in_(_LIVE), t.c.avatar_stopped_at.is_(None), t.c.avatar_expires_at < before)
        .limit(limit)
    )
    return list((await conn.execute(wanted)).scalars())


async def with_open_avatars(conn: AsyncConnection, seen_after: float, limit: int) -> list[Session]:
    """Sessions that run, were seen lately and have an avatar at a vendor."""
    wanted = (
        select(*(t.c[name] for name in _SESSION))
        .where(
            t.c.status == "recording",
            t.c.last_seen_at >= seen_after,
            t.c.heygen_session_id.is_not(None),
            t.c.avatar_stopped_at.is_(None),
        )
        .limit(limit)
    )
    cipher = cipher_of(conn)
    return [Session(**SESSIONS.open(cipher, row._mapping)) for row in await conn.execute(wanted)]


async def of_user(
    conn: AsyncConnection, principal: str, user_id: str, *, limit: int, kind: str = "practice"
) -> list[Session]:
    """Newest first."""
    wanted = (
        select(*(t.c[name] for name in _SESSION))
        .where(t.c.principal == principal, t.c.user_id == user_id, t.c.kind == kind)
        .order_by(t.c.created_at.desc(), t.c.id)
        .limit(limit)
    )
    cipher = cipher_of(conn)
    return [Session(**SESSIONS.open(cipher, row._mapping)) for row in await conn.execute(wanted)]


async def ids_of_user(conn: AsyncConnection, principal: str, user_id: str) -> list[str]:
    """Every session and drill session of a user, newest first, whether it can be decrypted or not."""
    mine = and_(t.c.principal == principal, t.c.user_id == user_id)
    wanted = select(t.c.id).where(mine).order_by(t.c.created_at.desc(), t.c.id)
    return list((await conn.execute(wanted)).scalars())


async def active(conn: AsyncConnection) -> int:
    counted = select(func.count()).where(and_(t.c.status.in_(_LIVE), t.c.completed_at.is_(None)))
    return int((await conn.execute(counted)).scalar_one())


# --- turns


async def append(conn: AsyncConnection, message: Message) -> None:
    await conn.execute(message_rows.insert().values(MESSAGES.seal(cipher_of(conn), asdict(message))))


async def find_message(conn: AsyncConnection, session_id: str, message_id: str) -> Message | None:
    m = message_rows
    found = await _messages(conn, and_(m.c.session_id == session_id, m.c.message_id == message_id), 1)
    return found[0] if found else None


async def last_messages(conn: AsyncConnection, session_id: str, count: int) -> list[Message]:
    """The last ones, oldest first."""
    found = await _messages(conn, message_rows.c.session_id == session_id, count, newest=True)
    return found[::-1]


async def all_messages(conn: AsyncConnection, session_id: str) -> list[Message]:
    """Oldest first."""
    return await _messages(conn, message_rows.c.session_id == session_id, None)


async def reread(
    conn: AsyncConnection, session_id: str, sequence_number: int, reading: Mapping[str, Any]
) -> None:
    """Replace what the method made of a turn."""
    m = message_rows
    key = {"session_id": session_id, "sequence_number": sequence_number}
    sealed = MESSAGES.seal(cipher_of(conn), {**key, "reading": dict(reading), "message": None})
    await conn.execute(
        update(m)
        .where(m.c.session_id == session_id, m.c.sequence_number == sequence_number)
        .values(reading=sealed["reading"])
    )


async def _messages(
    conn: AsyncConnection, where: Any, limit: int | None, *, newest: bool = False
) -> list[Message]:
    m = message_rows
    order = m.c.sequence_number.desc() if newest else m.c.sequence_number
    wanted = select(*(m.c[name] for name in _MESSAGE)).where(where).order_by(order).limit(limit)
    cipher = cipher_of(conn)
    return [Message(**MESSAGES.open(cipher, row._mapping)) for row in await conn.execute(wanted)]


# --- steps


async def save_steps(conn: AsyncConnection, rows: Sequence[StepRow]) -> None:
    """Insert or replace; a score or a feedback that is there stays when the new row has none."""
    if not rows:
        return
    cipher = cipher_of(conn)
    new = insert_into(step_rows, conn.dialect.name).values([STEPS.seal(cipher, asdict(row)) for row in rows])
    kept = {name: func.coalesce(new.excluded[name], step_rows.c[name]) for name in _KEPT}
    fresh = {name: new.excluded[name] for name in _FRESH}
    await conn.execute(new.on_conflict_do_update(index_elements=["session_id", "step_id"], set_=fresh | kept))


_KEPT = ("technique_score", "feedback")
_FRESH = tuple(
    name for name in _STEP if name not in (*_KEPT, "session_id", "step_id", "created_at", "phase_id")
)


async def steps(conn: AsyncConnection, session_id: str) -> list[StepRow]:
    wanted = select(*(step_rows.c[name] for name in _STEP)).where(step_rows.c.session_id == session_id)
    cipher = cipher_of(conn)
    return [StepRow(**STEPS.open(cipher, row._mapping)) for row in await conn.execute(wanted)]
