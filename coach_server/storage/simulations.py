"""Simulations: their rows, and what happened in them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.domain.simulation.effects import LogEntry
from coach_server.domain.simulation.talk import Direction, EventType, Mood, Role, SessionEvent, Utterance
from coach_server.storage.crypto import SIM_EVENTS, SIM_UTTERANCES, SIMULATIONS, cipher_of
from coach_server.storage.tables import counters, insert_into
from coach_server.storage.tables import simulation_events as event_rows
from coach_server.storage.tables import simulation_moods as mood_rows
from coach_server.storage.tables import simulation_utterances as utterance_rows
from coach_server.storage.tables import simulations as t

Document = dict[str, Any]
# The type of a row that is no event but an entry of the supervisor's trail.
LOG = "LOG"


@dataclass(frozen=True, slots=True)
class Simulation:
    """A row of `simulations`. Times are seconds since the epoch. `ticket_digest`: of the one-time token in
    `wsUrl`, None once it was used. `state`: the machine."""

    id: str
    principal: str
    trainee_id: str
    team_id: str | None
    scenario_id: str
    persona_id: str
    persona_name: str
    language: str
    created_at: float
    last_seen_at: float
    store_transcript: bool
    status: str = "created"
    outcome: str | None = None
    end_trigger: str | None = None
    client: str | None = None
    metadata: Document = field(default_factory=dict)
    started_at: float | None = None
    ended_at: float | None = None
    duration_ms: int | None = None
    exchanges: int = 0
    final_attitude: int | None = None
    overall_score: int | None = None
    state: Document = field(default_factory=dict)
    ticket_digest: str | None = field(default=None, repr=False)
    owner: str | None = None
    lease_until: float | None = None
    usage: Document = field(default_factory=dict)
    analysis_status: str = "none"
    data_files_written: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list shows of a simulation."""

    id: str
    trainee_id: str
    team_id: str | None
    scenario_id: str
    persona_id: str
    persona_name: str
    language: str
    status: str
    outcome: str | None
    overall_score: int | None
    final_attitude: int | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which simulations: whose (`principal`, and the user or team a viewer is bound to), and filters. `since`
    and `until` are seconds since the epoch, of the creation."""

    principal: str
    trainee_id: str | None = None
    team_id: str | None = None
    trainee: str | None = None
    persona: str | None = None
    scenario: str | None = None
    outcome: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """`conversions`: of the ended ones, how many were converted. `average` is None without a score."""

    total: int
    ended: int
    scored: int
    average: float | None
    conversions: int
    duration_ms: int
    outcomes: dict[str, int]


SORTS = {
    "id": t.c.id,
    "trainee": t.c.trainee_id,
    "persona": t.c.persona_name,
    "outcome": t.c.outcome,
    "score": t.c.overall_score,
    "date": t.c.created_at,
    "duration": t.c.duration_ms,
}
_ROW = tuple(one.name for one in fields(Simulation))
_LISTED = tuple(one.name for one in fields(Listed))


# --- rows


async def next_number(conn: AsyncConnection, name: str) -> int:
    """Counts up from 1, one for each caller on however many instances."""
    new = insert_into(counters, conn.dialect.name).values(name=name, value=1)
    counted = await conn.execute(
        new.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1}).returning(
            counters.c.value
        )
    )
    return int(counted.scalar_one())


async def insert(conn: AsyncConnection, one: Simulation) -> None:
    values = asdict(one) | {"updated_at": one.created_at, "words_deleted_at": None}
    await conn.execute(t.insert().values(SIMULATIONS.seal(cipher_of(conn), values)))


async def load(conn: AsyncConnection, session_id: str, *, to_change: bool = False) -> Simulation | None:
    wanted = select(*(t.c[name] for name in _ROW)).where(t.c.id == session_id)
    if to_change:
        wanted = wanted.with_for_update()
    row = (await conn.execute(wanted)).one_or_none()
    return None if row is None else Simulation(**SIMULATIONS.open(cipher_of(conn), row._mapping))


async def save(conn: AsyncConnection, one: Simulation, now: float) -> None:
    """Write what may have changed by the talk; ticket and lease have writers of their own."""
    fixed = ("principal", "trainee_id", "team_id", "created_at", "ticket_digest", "owner", "lease_until")
    values = {name: value for name, value in asdict(one).items() if name not in fixed}
    sealed = SIMULATIONS.seal(cipher_of(conn), values)
    sealed.pop("id")
    await conn.execute(update(t).where(t.c.id == one.id).values(**sealed, updated_at=now))


async def change(conn: AsyncConnection, session_id: str, **values: Any) -> bool:
    """Set plain columns; False when there is no such row."""
    return (await conn.execute(update(t).where(t.c.id == session_id).values(**values))).rowcount == 1


async def claim(conn: AsyncConnection, session_id: str, *, owner: str, now: float, lease_s: float) -> bool:
    """Become the instance whose task owns the session; False while another one is."""
    free = or_(t.c.owner.is_(None), t.c.owner == owner, t.c.lease_until.is_(None), t.c.lease_until < now)
    claimed = await conn.execute(
        update(t)
        .where(t.c.id == session_id, t.c.status != "ended", free)
        .values(owner=owner, lease_until=now + lease_s)
    )
    return claimed.rowcount == 1


async def renew(
    conn: AsyncConnection, ids: Sequence[str], *, owner: str, now: float, lease_s: float
) -> set[str]:
    """Prolong the leases; answers which are still ours."""
    if not ids:
        return set()
    renewed = await conn.execute(
        update(t)
        .where(t.c.id.in_(sorted(ids)), t.c.owner == owner)
        .values(lease_until=now + lease_s)
        .returning(t.c.id)
    )
    return set(renewed.scalars())


async def release(conn: AsyncConnection, session_id: str, *, owner: str) -> None:
    await conn.execute(
        update(t).where(t.c.id == session_id, t.c.owner == owner).values(owner=None, lease_until=None)
    )


async def stale(
    conn: AsyncConnection, *, seen_before: float, made_before: float, now: float, limit: int
) -> list[str]:
    """Sessions that no instance holds: those that began, are not over, and nobody was seen in since; and
    those made long ago to which nobody came."""
    active = and_(t.c.status == "active", t.c.last_seen_at < seen_before)
    unused = and_(t.c.status == "created", t.c.created_at < made_before)
    free = or_(t.c.owner.is_(None), t.c.lease_until.is_(None), t.c.lease_until < now)
    wanted = select(t.c.id).where(or_(active, unused), free).order_by(t.c.last_seen_at).limit(limit)
    return list((await conn.execute(wanted)).scalars())


# --- lists and figures


async def ended_after(conn: AsyncConnection, after: str, limit: int) -> list[str]:
    """Ids of sessions that are over and have their words, by id, those behind `after`."""
    wanted = (
        select(t.c.id)
        .where(t.c.status == "ended", t.c.words_deleted_at.is_(None), t.c.id > after)
        .order_by(t.c.id)
        .limit(limit)
    )
    return list((await conn.execute(wanted)).scalars())


async def listing(
    conn: AsyncConnection, wanted: Wanted, *, limit: int, offset: int, sort: str, descending: bool
) -> tuple[list[Listed], int]:
    """A page and how many there are in all. `sort`: a key of SORTS."""
    where = _where(wanted)
    column = SORTS[sort]
    order = column.desc().nulls_last() if descending else column.asc().nulls_last()
    rows = await conn.execute(
        select(*(t.c[name] for name in _LISTED))
        .where(where)
        .order_by(order, t.c.id)
        .limit(limit)
        .offset(offset)
    )
    total = (await conn.execute(select(func.count()).select_from(t).where(where))).scalar_one()
    return [Listed(**row._mapping) for row in rows], int(total)


async def stats(conn: AsyncConnection, wanted: Wanted) -> Stats:
    where = _where(wanted)
    ended = case((t.c.status == "ended", 1), else_=0)
    figures = (
        await conn.execute(
            select(
                func.count(),
                func.coalesce(func.sum(ended), 0),
                func.count(t.c.overall_score),
                func.avg(t.c.overall_score),
                func.coalesce(func.sum(t.c.duration_ms), 0),
            ).where(where)
        )
    ).one()
    counted = await conn.execute(
        select(t.c.outcome, func.count()).where(where, t.c.outcome.is_not(None)).group_by(t.c.outcome)
    )
    outcomes = {str(row[0]): int(row[1]) for row in counted}
    average = None if figures[3] is None else float(figures[3])
    return Stats(
        int(figures[0]),
        int(figures[1]),
        int(figures[2]),
        average,
        outcomes.get("converted", 0),
        int(figures[4]),
        outcomes,
    )


async def choices(conn: AsyncConnection, wanted: Wanted) -> tuple[list[str], list[tuple[str, str]]]:
    """Trainees, and (id, name) of personas, that a viewer's simulations have."""
    where = _where(wanted)
    trainees = await conn.execute(select(t.c.trainee_id).where(where).distinct().order_by(t.c.trainee_id))
    personas = await conn.execute(
        select(t.c.persona_id, func.min(t.c.persona_name)).where(where).group_by(t.c.persona_id)
    )
    return list(trainees.scalars()), sorted((str(row[0]), str(row[1])) for row in personas)


def _where(wanted: Wanted) -> ColumnElement[bool]:
    same = {
        t.c.trainee_id: wanted.trainee_id,
        t.c.team_id: wanted.team_id,
        t.c.persona_id: wanted.persona,
        t.c.scenario_id: wanted.scenario,
        t.c.outcome: wanted.outcome,
        t.c.status: wanted.status,
    }
    where = [t.c.principal == wanted.principal]
    where += [column == value for column, value in same.items() if value is not None]
    if wanted.trainee is not None:
        where.append(t.c.trainee_id == wanted.trainee)
    if wanted.since is not None:
        where.append(t.c.created_at >= wanted.since)
    if wanted.until is not None:
        where.append(t.c.created_at < wanted.until)
    return and_(*where)


# --- what happened


async def add_utterances(conn: AsyncConnection, session_id: str, said: Sequence[Utterance]) -> None:
    """Those that are there already are left as they are."""
    cipher = cipher_of(conn)
    rows = [
        SIM_UTTERANCES.seal(
            cipher,
            {
                "session_id": session_id,
                "sequence": one.sequence,
                "role": one.role.value,
                "text": one.text,
                "start_s": one.start,
                "end_s": one.end,
                "item_id": one.item_id,
            },
        )
        for one in said
    ]
    if rows:
        new = insert_into(utterance_rows, conn.dialect.name).values(rows)
        await conn.execute(new.on_conflict_do_nothing(index_elements=["session_id", "sequence"]))


async def utterances(conn: AsyncConnection, session_id: str) -> list[Utterance]:
    wanted = (
        select(utterance_rows)
        .where(utterance_rows.c.session_id == session_id)
        .order_by(utterance_rows.c.sequence)
    )
    cipher = cipher_of(conn)
    opened = [SIM_UTTERANCES.open(cipher, row._mapping) for row in await conn.execute(wanted)]
    return [
        Utterance(
            row["sequence"], Role(row["role"]), row["text"], row["start_s"], row["end_s"], row["item_id"]
        )
        for row in opened
    ]


async def replace_utterance(conn: AsyncConnection, session_id: str, heard: Utterance) -> None:
    """What was told was not heard to its end."""
    key = {"session_id": session_id, "sequence": heard.sequence}
    sealed = SIM_UTTERANCES.seal(cipher_of(conn), {**key, "text": heard.text})
    u = utterance_rows
    await conn.execute(
        update(u)
        .where(u.c.session_id == session_id, u.c.sequence == heard.sequence)
        .values(text=sealed["text"], end_s=heard.end)
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """An event, or an entry of the supervisor's trail, under an id that makes writing it twice harmless."""

    id: str
    record: SessionEvent | LogEntry

    @classmethod
    def new(cls, record: SessionEvent | LogEntry) -> Kept:
        return cls(str(uuid.uuid4()), record)


async def add_events(conn: AsyncConnection, session_id: str, kept: Sequence[Kept]) -> list[str]:
    """Append what is not there yet, in this order; answers the ids that were new. The session's row is held,
    so that two writers do not number alike."""
    await conn.execute(select(t.c.id).where(t.c.id == session_id).with_for_update())
    e = event_rows
    wanted = [one.id for one in kept]
    known = set(
        (
            await conn.execute(
                select(e.c.event_id).where(e.c.session_id == session_id, e.c.event_id.in_(wanted))
            )
        ).scalars()
    )
    last = (
        await conn.execute(select(func.max(e.c.sequence)).where(e.c.session_id == session_id))
    ).scalar_one()
    new = [one for one in {one.id: one for one in kept}.values() if one.id not in known]
    cipher = cipher_of(conn)
    rows = [
        SIM_EVENTS.seal(cipher, _event_row(session_id, number, one))
        for number, one in enumerate(new, (last or 0) + 1)
    ]
    if rows:
        await conn.execute(e.insert().values(rows))
    return [one.id for one in new]


def _event_row(session_id: str, number: int, kept: Kept) -> Document:
    record = kept.record
    if isinstance(record, LogEntry):
        kind, data = LOG, {"kind": record.kind.value, **record.data}
    else:
        kind, data = record.type.value, record.data
    return {
        "session_id": session_id,
        "sequence": number,
        "event_id": kept.id,
        "time_s": record.time,
        "type": kind,
        "data": {"value": data},
    }


async def events(conn: AsyncConnection, session_id: str) -> list[SessionEvent]:
    """By their time, and in the order they were kept where that is the same."""
    rows = await _events(conn, session_id, event_rows.c.type != LOG)
    return [SessionEvent(row["time_s"], EventType(row["type"]), row["data"]["value"]) for row in rows]


async def logs(conn: AsyncConnection, session_id: str) -> list[Document]:
    """The supervisor's trail: `{time, kind, …}`, in order."""
    rows = await _events(conn, session_id, event_rows.c.type == LOG)
    return [{"time": row["time_s"], **row["data"]["value"]} for row in rows]


async def _events(conn: AsyncConnection, session_id: str, which: ColumnElement[bool]) -> list[Document]:
    e = event_rows
    wanted = select(e).where(e.c.session_id == session_id, which).order_by(e.c.time_s, e.c.sequence)
    cipher = cipher_of(conn)
    return [SIM_EVENTS.open(cipher, row._mapping) for row in await conn.execute(wanted)]


async def add_mood(conn: AsyncConnection, session_id: str, sequence: int, mood: Mood) -> None:
    new = insert_into(mood_rows, conn.dialect.name).values(
        session_id=session_id,
        sequence=sequence,
        time_s=mood.time,
        value=mood.value,
        direction=mood.direction.value,
    )
    await conn.execute(new.on_conflict_do_nothing(index_elements=["session_id", "sequence"]))


async def moods(conn: AsyncConnection, session_id: str) -> list[Mood]:
    wanted = select(mood_rows).where(mood_rows.c.session_id == session_id).order_by(mood_rows.c.sequence)
    return [Mood(row.time_s, row.value, Direction(row.direction)) for row in await conn.execute(wanted)]
