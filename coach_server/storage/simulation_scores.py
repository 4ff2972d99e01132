"""What a simulation came to, and where it was sent; personas and scenarios made by API."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Table, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import SIM_SCORES, cipher_of
from coach_server.storage.tables import (
    insert_into,
    simulation_exports,
    simulation_personas,
    simulation_scenarios,
    simulation_scores,
    simulations,
)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Score:
    """`document`: the seed's score with our additions. `judgement`: the model's part of it."""

    session_id: str
    overall_score: int | None
    categories: Document
    document: Document
    content_hash: str
    judgement: Document | None
    provisional: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class Export:
    """An upload to the outside API. `status`: pending, sent or failed."""

    id: str
    session_id: str
    created_at: float
    status: str = "pending"
    attempts: int = 0
    error_code: str | None = None
    sent_at: float | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """A persona or scenario of an API key."""

    id: str
    principal: str
    document: Document
    created_at: float
    updated_at: float


async def keep(conn: AsyncConnection, one: Score) -> bool:
    """True for the first score of a session; a later one replaces it."""
    sealed = SIM_SCORES.seal(cipher_of(conn), asdict(one))
    t = simulation_scores
    new = insert_into(t, conn.dialect.name).values(sealed)
    first = await conn.execute(new.on_conflict_do_nothing(index_elements=["session_id"]))
    if first.rowcount != 1:
        sealed.pop("session_id")
        await conn.execute(update(t).where(t.c.session_id == one.session_id).values(**sealed))
    await conn.execute(
        update(simulations)
        .where(simulations.c.id == one.session_id)
        .values(analysis_status="done", overall_score=one.overall_score)
    )
    return first.rowcount == 1


async def load(conn: AsyncConnection, session_id: str) -> Score | None:
    t = simulation_scores
    row = (await conn.execute(select(t).where(t.c.session_id == session_id))).one_or_none()
    return None if row is None else Score(**SIM_SCORES.open(cipher_of(conn), row._mapping))


async def judgement_of(
    conn: AsyncConnection, principal: str, trainee_id: str, content_hash: str
) -> Document | None:
    """What the model said of the same content of the same trainee before."""
    t, s = simulation_scores, simulations
    wanted = (
        select(t)
        .join(s, s.c.id == t.c.session_id)
        .where(
            s.c.principal == principal,
            s.c.trainee_id == trainee_id,
            t.c.content_hash == content_hash,
            t.c.judgement.is_not(None),
        )
        .order_by(t.c.created_at)
        .limit(1)
    )
    row = (await conn.execute(wanted)).one_or_none()
    if row is None:
        return None
    opened: Document | None = SIM_SCORES.open(cipher_of(conn), row._mapping)["judgement"]
    return opened


# --- exports


async def add_export(conn: AsyncConnection, one: Export) -> None:
    await conn.execute(simulation_exports.insert().values(asdict(one)))


async def export(conn: AsyncConnection, export_id: str) -> Export | None:
    t = simulation_exports
    row = (await conn.execute(select(t).where(t.c.id == export_id))).one_or_none()
    return None if row is None else Export(**row._mapping)


async def exports_of(conn: AsyncConnection, session_id: str) -> list[Export]:
    """Oldest first."""
    t = simulation_exports
    rows = await conn.execute(select(t).where(t.c.session_id == session_id).order_by(t.c.created_at, t.c.id))
    return [Export(**row._mapping) for row in rows]


async def set_export(
    conn: AsyncConnection,
    export_id: str,
    *,
    status: str,
    error_code: str | None,
    sent_at: float | None,
    tried: bool = True,
) -> None:
    """`tried`: one more try was made, and this came of it."""
    t = simulation_exports
    await conn.execute(
        update(t)
        .where(t.c.id == export_id)
        .values(status=status, error_code=error_code, sent_at=sent_at, attempts=t.c.attempts + int(tried))
    )


# --- personas and scenarios


async def own(conn: AsyncConnection, kind: str, principal: str, id: str) -> Own | None:
    """`kind`: persona or scenario."""
    t = _TABLES[kind]
    row = (await conn.execute(select(t).where(t.c.id == id, t.c.principal == principal))).one_or_none()
    return None if row is None else Own(**row._mapping)


async def all_own(conn: AsyncConnection, kind: str, principal: str, limit: int) -> list[Own]:
    t = _TABLES[kind]
    rows = await conn.execute(select(t).where(t.c.principal == principal).order_by(t.c.id).limit(limit))
    return [Own(**row._mapping) for row in rows]


async def keep_own(conn: AsyncConnection, kind: str, one: Own) -> None:
    new = insert_into(_TABLES[kind], conn.dialect.name).values(asdict(one))
    changed = {name: new.excluded[name] for name in ("document", "updated_at")}
    await conn.execute(new.on_conflict_do_update(index_elements=["id", "principal"], set_=changed))


async def delete_own(conn: AsyncConnection, kind: str, principal: str, id: str) -> bool:
    t = _TABLES[kind]
    gone = await conn.execute(delete(t).where(and_(t.c.id == id, t.c.principal == principal)))
    return gone.rowcount == 1


_TABLES: dict[str, Table] = {"persona": simulation_personas, "scenario": simulation_scenarios}
