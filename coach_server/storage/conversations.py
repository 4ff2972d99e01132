"""Conversations: who holds one, what it was when last saved, and which there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.errors import Invalid
from coach_server.storage.crypto import CONVERSATIONS, Cipher, cipher_of
from coach_server.storage.journal import Write
from coach_server.storage.tables import conversations as t


@dataclass(frozen=True, slots=True)
class NewConversation:
    """`resume_digest` is a digest of the resume token, never the token. Times are seconds since the epoch."""

    id: str
    principal: str
    mode: str
    language: str
    started_at: float
    resume_digest: str
    user_id: str | None = None
    team_id: str | None = None
    agent_id: str | None = None
    playbook: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    consent: dict[str, Any] | None = None
    store_transcript: bool = True
    state: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    owner: str | None = None
    lease_until: float | None = None


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """`state` covers the utterances up to `state_sequence`; `last_seq` and `last_sequence` are the highest
    event and utterance numbers given out when it was saved (the tables may hold later ones)."""

    id: str
    principal: str
    user_id: str | None
    team_id: str | None
    agent_id: str | None
    mode: str
    language: str
    playbook: str | None
    status: str
    started_at: float
    ended_at: float | None
    last_seen_at: float
    resume_digest: str
    idempotency_key: str | None
    metadata: dict[str, Any]
    consent: dict[str, Any] | None
    store_transcript: bool
    state: dict[str, Any]
    state_sequence: int
    last_seq: int
    last_sequence: int
    owner: str | None
    lease_until: float | None
    usage: dict[str, Any]
    analysis_status: str


@dataclass(frozen=True, slots=True)
class ListedConversation:
    """What a list shows of a conversation. `cursor` asks for those after it."""

    id: str
    principal: str
    user_id: str | None
    team_id: str | None
    agent_id: str | None
    mode: str
    language: str
    playbook: str | None
    status: str
    started_at: float
    ended_at: float | None
    metadata: dict[str, Any]
    usage: dict[str, Any]
    analysis_status: str

    @property
    def cursor(self) -> str:
        return _cursor(self.started_at, self.id)


@dataclass(frozen=True, slots=True)
class Whose:
    principal: str
    user_id: str | None
    team_id: str | None


_STORED = tuple(StoredConversation.__dataclass_fields__)
_LISTED = tuple(ListedConversation.__dataclass_fields__)


def insert(row: NewConversation) -> Write:
    values = {name: getattr(row, name) for name in NewConversation.__dataclass_fields__}
    values |= {
        "user_id": row.user_id or "",
        "status": "active",
        "ended_at": None,
        "last_seen_at": row.started_at,
        "state_sequence": 0,
        "last_seq": 0,
        "last_sequence": 0,
        "analysis_status": "none",
        "words_deleted_at": None,
    }
    return Write("conversations", "insert", values)


def save_state(
    id: str,
    state: dict[str, Any],
    *,
    state_sequence: int,
    last_seq: int,
    last_sequence: int,
    last_seen_at: float,
    usage: dict[str, Any],
) -> Write:
    """Ignored when the conversation has ended, or when a later state is already there (a former owner that
    does not know yet that it lost its lease must not turn the conversation back)."""
    return Write(
        "conversations",
        "save_state",
        {
            "id": id,
            "state": state,
            "state_sequence": state_sequence,
            "last_seq": last_seq,
            "last_sequence": last_sequence,
            "last_seen_at": last_seen_at,
            "usage": usage,
        },
    )


async def load(conn: AsyncConnection, id: str) -> StoredConversation | None:
    found = await conn.execute(_select(_STORED).where(t.c.id == id))
    return _stored(found.one_or_none(), cipher_of(conn))


async def whose(conn: AsyncConnection, id: str) -> Whose | None:
    """Whom a conversation belongs to; also of one whose content cannot be read."""
    found = await conn.execute(select(t.c.principal, t.c.user_id, t.c.team_id).where(t.c.id == id))
    row = found.one_or_none()
    return None if row is None else Whose(row.principal, row.user_id or None, row.team_id)


async def claim(conn: AsyncConnection, id: str, *, owner: str, now: float, lease_s: float) -> bool:
    """Take an active conversation that is free, already ours, or whose owner let its lease run out."""
    takeable = or_(t.c.owner.is_(None), t.c.owner == owner, _lease_over(now))
    taken = await conn.execute(
        update(t)
        .where(t.c.id == id, t.c.status == "active", takeable)
        .values(owner=owner, lease_until=now + lease_s)
    )
    return taken.rowcount == 1


async def renew(
    conn: AsyncConnection, ids: Sequence[str], *, owner: str, now: float, lease_s: float
) -> set[str]:
    """Prolong the leases we hold; answers which of `ids` are still ours."""
    if not ids:
        return set()
    renewed = await conn.execute(
        update(t)
        .where(t.c.id.in_(sorted(ids)), t.c.owner == owner, t.c.status == "active")
        .values(lease_until=now + lease_s)
        .returning(t.c.id)
    )
    return set(renewed.scalars())


async def release(conn: AsyncConnection, id: str, *, owner: str) -> bool:
    released = await conn.execute(
        update(t).where(t.c.id == id, t.c.owner == owner).values(owner=None, lease_until=None)
    )
    return released.rowcount == 1


async def end(
    conn: AsyncConnection,
    id: str,
    *,
    status: str,
    now: float,
    state: dict[str, Any],
    usage: dict[str, Any],
    analysis: bool,
) -> bool:
    """End an active conversation and free it. True only for the call that ended it, so that what follows
    (the analysis job, in this same transaction) happens once."""
    sealed = CONVERSATIONS.seal(cipher_of(conn), {"id": id, "state": state})
    ended = await conn.execute(
        update(t)
        .where(t.c.id == id, t.c.status == "active")
        .values(
            status=status,
            ended_at=now,
            last_seen_at=now,
            state=sealed["state"],
            usage=usage,
            analysis_status="pending" if analysis else "none",
            owner=None,
            lease_until=None,
        )
    )
    return ended.rowcount == 1


async def fail_analysis(conn: AsyncConnection, id: str) -> None:
    """Say that a pending analysis will not come; one that is done stays done."""
    await conn.execute(
        update(t).where(t.c.id == id, t.c.analysis_status == "pending").values(analysis_status="failed")
    )


async def find_by_idempotency(
    conn: AsyncConnection, principal: str, user_id: str | None, key: str
) -> StoredConversation | None:
    found = await conn.execute(
        _select(_STORED).where(
            t.c.principal == principal, t.c.user_id == (user_id or ""), t.c.idempotency_key == key
        )
    )
    return _stored(found.one_or_none(), cipher_of(conn))


async def stale(conn: AsyncConnection, *, before: float, now: float, limit: int) -> list[str]:
    """Ids of active conversations that nobody holds and nobody was seen in since `before`, oldest first."""
    found = await conn.execute(
        select(t.c.id)
        .where(t.c.status == "active", t.c.last_seen_at < before, or_(t.c.owner.is_(None), _lease_over(now)))
        .order_by(t.c.last_seen_at)
        .limit(limit)
    )
    return list(found.scalars())


async def pending_analyses(conn: AsyncConnection, *, limit: int) -> list[str]:
    """Ids of ended conversations whose analysis is still to come."""
    found = await conn.execute(
        select(t.c.id).where(t.c.analysis_status == "pending").order_by(t.c.ended_at).limit(limit)
    )
    return list(found.scalars())


async def listing(
    conn: AsyncConnection,
    *,
    principal: str | None = None,
    user_id: str | None = None,
    team_id: str | None = None,
    everyone: bool = False,
    status: str | None = None,
    agent_id: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> list[ListedConversation]:
    """Newest first. The viewer is told by `principal`, `user_id`, `team_id` (all that are given must match)
    or, on purpose only, `everyone`. `cursor` is that of the last row of the page before."""
    viewer = {"principal": principal, "user_id": user_id, "team_id": team_id}
    if not everyone and all(value is None for value in viewer.values()):
        raise ValueError("a list needs a viewer: principal, user_id, team_id or everyone=True")
    wanted = viewer | {"status": status, "agent_id": agent_id}
    where = [t.c[name] == value for name, value in wanted.items() if value is not None]
    if cursor is not None:
        where.append(_after(cursor))
    found = await conn.execute(
        _select(_LISTED).where(and_(True, *where)).order_by(t.c.started_at.desc(), t.c.id.desc()).limit(limit)
    )
    cipher = cipher_of(conn)
    return [ListedConversation(**_named(row, cipher)) for row in found]


async def ids_of_user(
    conn: AsyncConnection, principal: str, user_id: str, *, limit: int, cursor: str | None = None
) -> list[tuple[str, str]]:
    """(id, cursor) of a user's conversations, newest first, whether or not their content can be read."""
    wanted = select(t.c.id, t.c.started_at).where(t.c.principal == principal, t.c.user_id == user_id)
    if cursor is not None:
        wanted = wanted.where(_after(cursor))
    found = await conn.execute(wanted.order_by(t.c.started_at.desc(), t.c.id.desc()).limit(limit))
    return [(row.id, _cursor(row.started_at, row.id)) for row in found]


def _cursor(started_at: float, id: str) -> str:
    return f"{round(started_at * 1000)}.{id}"


def _lease_over(now: float) -> ColumnElement[bool]:
    return or_(t.c.lease_until.is_(None), t.c.lease_until < now)


def _after(cursor: str) -> ColumnElement[bool]:
    at, _, id = cursor.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) <= 15 and id):
        raise Invalid("cursor is not one that a list gave", field="cursor")
    return tuple_(t.c.started_at, t.c.id) < (int(at) / 1000, id)


def _select(names: tuple[str, ...]) -> Any:
    return select(*(t.c[name] for name in names))


def _stored(row: Row[Any] | None, cipher: Cipher) -> StoredConversation | None:
    return None if row is None else StoredConversation(**_named(row, cipher))


def _named(row: Row[Any], cipher: Cipher) -> dict[str, Any]:
    named = CONVERSATIONS.open(cipher, row._mapping)
    named["user_id"] = named["user_id"] or None
    return named
