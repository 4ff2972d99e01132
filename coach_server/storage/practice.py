"""What practising left behind: feedback, progress, drills; and users and scenarios as rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.storage.crypto import CALL_FEEDBACK, DRILLS, FEEDBACK, USERS, cipher_of
from coach_server.storage.roleplays import Session
from coach_server.storage.tables import (
    call_feedback,
    conversations,
    drills,
    insert_into,
    roleplay_feedback,
    roleplay_sessions,
    roleplay_step_progress,
    scenarios,
    user_progress,
    users,
)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class User:
    """What a user of an API key chose. `feedback_email`: where feedback goes, None for nowhere."""

    principal: str
    user_id: str
    team_id: str | None
    created_at: float
    updated_at: float
    store_transcripts: bool = True
    feedback_email: str | None = field(default=None, repr=False)
    consent: Document | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """A row of `roleplay_feedback`. `judgement`: the model's part of the score, to be used again for the same
    content; None when rules alone scored."""

    session_id: str
    overall_score: int | None
    sub_scores: Document
    techniques_used: list[str]
    technique_scores: dict[str, int]
    next_step_suggestion: str | None
    delta: int | None
    document: Document
    method: str
    content_hash: str
    judgement: Document | None
    provisional: bool
    openai_model: str | None
    openai_tokens_used: int
    analysis_duration_ms: int
    created_at: float


@dataclass(frozen=True, slots=True)
class CallFeedback:
    conversation_id: str
    overall_score: int | None
    sub_scores: Document
    technique_scores: dict[str, int]
    document: Document
    method: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Practised:
    """One scored session or call of a user, for the progress. `kind`: roleplay, drill or call. `manual`:
    steps completed by hand."""

    session_id: str
    kind: str
    completed_at: float
    overall_score: int | None
    sub_scores: Document
    technique_scores: dict[str, int]
    duration_seconds: int
    manual: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgressRow:
    principal: str
    user_id: str
    methodology: str
    current_phase_id: int
    current_step_id: str
    unlocked_phases: list[int]
    unlocked_steps: list[str]
    total_sessions: int
    average_score: float | None
    best_score: int | None
    total_duration_seconds: int
    step_stats: Document
    last_session_at: float | None
    updated_at: float


@dataclass(frozen=True, slots=True)
class Drill:
    """A lost moment to play again. `document`: the words it is made of."""

    id: str
    principal: str
    user_id: str
    source_kind: str
    source_id: str
    number: int
    methodology: str
    moment: str
    technique_id: str
    language: str
    document: Document
    created_at: float
    status: str = "open"
    attempts: int = 0
    best_quality: str | None = None
    closed_at: float | None = None


@dataclass(frozen=True, slots=True)
class StoredScenario:
    """A scenario that was made by API. `principal`: the API key it belongs to."""

    id: str
    principal: str
    methodology: str
    document: Document
    created_at: float
    updated_at: float


def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind))


# --- users


async def user(conn: AsyncConnection, principal: str, user_id: str) -> User | None:
    wanted = select(users).where(users.c.principal == principal, users.c.user_id == user_id)
    row = (await conn.execute(wanted)).one_or_none()
    return None if row is None else User(**USERS.open(cipher_of(conn), row._mapping))


async def keep_user(conn: AsyncConnection, one: User) -> None:
    """Insert or replace; when the user was first seen stays."""
    new = insert_into(users, conn.dialect.name).values(USERS.seal(cipher_of(conn), asdict(one)))
    changed = {name: new.excluded[name] for name in _names(User) if name != "created_at"}
    await conn.execute(new.on_conflict_do_update(index_elements=["principal", "user_id"], set_=changed))


# --- feedback


async def keep_feedback(conn: AsyncConnection, one: Feedback) -> bool:
    """True for the first feedback of a session; a later one replaces it and answers False. A session whose
    words were deleted keeps what it has: nothing is left to score, and no word may come back."""
    if await _is_wordless(conn, one.session_id):
        return False
    sealed = FEEDBACK.seal(cipher_of(conn), asdict(one))
    new = insert_into(roleplay_feedback, conn.dialect.name).values(sealed)
    first = await conn.execute(new.on_conflict_do_nothing(index_elements=["session_id"]))
    if first.rowcount != 1:
        sealed.pop("session_id")
        mine = roleplay_feedback.c.session_id == one.session_id
        await conn.execute(update(roleplay_feedback).where(mine).values(**sealed))
    await conn.execute(
        update(roleplay_sessions)
        .where(roleplay_sessions.c.id == one.session_id)
        .values(analysis_status="done", overall_score=one.overall_score)
    )
    return first.rowcount == 1


async def _is_wordless(conn: AsyncConnection, session_id: str) -> bool:
    wanted = select(roleplay_sessions.c.words_deleted_at).where(roleplay_sessions.c.id == session_id)
    return (await conn.execute(wanted.with_for_update())).scalar_one_or_none() is not None


async def feedback(conn: AsyncConnection, session_id: str) -> Feedback | None:
    wanted = select(roleplay_feedback).where(roleplay_feedback.c.session_id == session_id)
    row = (await conn.execute(wanted)).one_or_none()
    return None if row is None else Feedback(**FEEDBACK.open(cipher_of(conn), row._mapping))


async def previous_scores(conn: AsyncConnection, session: Session) -> Feedback | None:
    """The feedback of the last session of this user and method, before this one, that has a score."""
    f, s = roleplay_feedback, roleplay_sessions
    wanted = (
        select(f)
        .join(s, s.c.id == f.c.session_id)
        .where(
            s.c.principal == session.principal,
            s.c.user_id == session.user_id,
            s.c.methodology == session.methodology,
            s.c.kind == session.kind,
            s.c.completed_at < session.completed_at,
            f.c.overall_score.is_not(None),
        )
        .order_by(s.c.completed_at.desc())
        .limit(1)
    )
    row = (await conn.execute(wanted)).one_or_none()
    return None if row is None else Feedback(**FEEDBACK.open(cipher_of(conn), row._mapping))


async def judgement_of(
    conn: AsyncConnection, principal: str, user_id: str, content_hash: str
) -> Document | None:
    """What the model said of the same content of the same user before."""
    f, s = roleplay_feedback, roleplay_sessions
    wanted = (
        select(f)
        .join(s, s.c.id == f.c.session_id)
        .where(
            s.c.principal == principal,
            s.c.user_id == user_id,
            f.c.content_hash == content_hash,
            f.c.judgement.is_not(None),
        )
        .order_by(f.c.created_at)
        .limit(1)
    )
    row = (await conn.execute(wanted)).one_or_none()
    if row is None:
        return None
    opened: Document | None = FEEDBACK.open(cipher_of(conn), row._mapping)["judgement"]
    return opened


async def keep_call_feedback(conn: AsyncConnection, one: CallFeedback) -> bool:
    """True for the first one; a later one replaces it."""
    sealed = CALL_FEEDBACK.seal(cipher_of(conn), asdict(one))
    new = insert_into(call_feedback, conn.dialect.name).values(sealed)
    first = await conn.execute(new.on_conflict_do_nothing(index_elements=["conversation_id"]))
    if first.rowcount != 1:
        mine = call_feedback.c.conversation_id == sealed.pop("conversation_id")
        await conn.execute(update(call_feedback).where(mine).values(**sealed))
    return first.rowcount == 1


async def call_feedback_of(conn: AsyncConnection, conversation_id: str) -> CallFeedback | None:
    wanted = select(call_feedback).where(call_feedback.c.conversation_id == conversation_id)
    row = (await conn.execute(wanted)).one_or_none()
    return None if row is None else CallFeedback(**CALL_FEEDBACK.open(cipher_of(conn), row._mapping))


# --- progress


async def practised(conn: AsyncConnection, principal: str, user_id: str, methodology: str) -> list[Practised]:
    """Everything scored of a user, oldest first: sessions, drills and live calls."""
    found = [
        *await _sessions_practised(conn, principal, user_id, methodology),
        *await _calls_practised(conn, principal, user_id, methodology),
    ]
    return sorted(found, key=lambda one: (one.completed_at, one.session_id))


async def _sessions_practised(
    conn: AsyncConnection, principal: str, user_id: str, methodology: str
) -> list[Practised]:
    s, f = roleplay_sessions, roleplay_feedback
    wanted = (
        select(
            s.c.id,
            s.c.kind,
            s.c.completed_at,
            s.c.duration_seconds,
            f.c.overall_score,
            f.c.sub_scores,
            f.c.technique_scores,
        )
        .outerjoin(f, f.c.session_id == s.c.id)
        .where(
            s.c.principal == principal,
            s.c.user_id == user_id,
            s.c.methodology == methodology,
            s.c.completed_at.is_not(None),
        )
    )
    rows = (await conn.execute(wanted)).all()
    by_hand = await _manual(conn, principal, user_id, methodology)
    return [
        Practised(
            session_id=row.id,
            kind="drill" if row.kind == "drill" else "roleplay",
            completed_at=row.completed_at,
            overall_score=row.overall_score,
            sub_scores=row.sub_scores or {},
            technique_scores=row.technique_scores or {},
            duration_seconds=row.duration_seconds or 0,
            manual=tuple(by_hand.get(row.id, ())),
        )
        for row in rows
    ]


async def _manual(
    conn: AsyncConnection, principal: str, user_id: str, methodology: str
) -> dict[str, list[str]]:
    s, p = roleplay_sessions, roleplay_step_progress
    wanted = (
        select(p.c.session_id, p.c.step_id)
        .join(s, s.c.id == p.c.session_id)
        .where(
            s.c.principal == principal,
            s.c.user_id == user_id,
            s.c.methodology == methodology,
            p.c.manual,
            p.c.status == "completed",
        )
        .order_by(p.c.step_id)
    )
    found: dict[str, list[str]] = {}
    for row in await conn.execute(wanted):
        found.setdefault(row.session_id, []).append(row.step_id)
    return found


async def _calls_practised(
    conn: AsyncConnection, principal: str, user_id: str, methodology: str
) -> list[Practised]:
    c, f = conversations, call_feedback
    whose = or_(c.c.user_id == user_id, and_(c.c.user_id == "", c.c.agent_id == user_id))
    wanted = (
        select(c.c.id, c.c.started_at, c.c.ended_at, f.c.overall_score, f.c.sub_scores, f.c.technique_scores)
        .join(f, f.c.conversation_id == c.c.id)
        .where(c.c.principal == principal, whose, f.c.method.like(f"{methodology}@%"))
    )
    return [
        Practised(
            session_id=row.id,
            kind="call",
            completed_at=row.ended_at or row.started_at,
            overall_score=row.overall_score,
            sub_scores=row.sub_scores,
            technique_scores=row.technique_scores,
            duration_seconds=round((row.ended_at or row.started_at) - row.started_at),
        )
        for row in await conn.execute(wanted)
    ]


async def keep_progress(conn: AsyncConnection, row: ProgressRow) -> None:
    new = insert_into(user_progress, conn.dialect.name).values(asdict(row))
    keys = ("principal", "user_id", "methodology")
    changed = {name: new.excluded[name] for name in _names(ProgressRow) if name not in keys}
    await conn.execute(new.on_conflict_do_update(index_elements=list(keys), set_=changed))


async def progress_of(conn: AsyncConnection, principal: str, user_id: str) -> list[ProgressRow]:
    """A row a method."""
    t = user_progress
    wanted = select(*(t.c[name] for name in _names(ProgressRow)))
    mine = and_(t.c.principal == principal, t.c.user_id == user_id)
    return [
        ProgressRow(**row._mapping) for row in await conn.execute(wanted.where(mine).order_by("methodology"))
    ]


# --- drills


async def keep_drills(conn: AsyncConnection, new: list[Drill]) -> None:
    """Those of a source that is known already are left as they are."""
    if not new:
        return
    cipher = cipher_of(conn)
    await conn.execute(
        insert_into(drills, conn.dialect.name)
        .values([DRILLS.seal(cipher, asdict(one)) for one in new])
        .on_conflict_do_nothing(index_elements=["source_kind", "source_id", "number"])
    )


async def drill(conn: AsyncConnection, drill_id: str) -> Drill | None:
    row = (await conn.execute(select(drills).where(drills.c.id == drill_id))).one_or_none()
    return None if row is None else Drill(**DRILLS.open(cipher_of(conn), row._mapping))


async def drills_of(
    conn: AsyncConnection, principal: str, user_id: str, *, status: str | None, limit: int
) -> list[Drill]:
    """Newest first."""
    wanted = select(drills).where(drills.c.principal == principal, drills.c.user_id == user_id)
    if status is not None:
        wanted = wanted.where(drills.c.status == status)
    wanted = wanted.order_by(drills.c.created_at.desc(), drills.c.number).limit(limit)
    cipher = cipher_of(conn)
    return [Drill(**DRILLS.open(cipher, row._mapping)) for row in await conn.execute(wanted)]


async def drill_ids_of(conn: AsyncConnection, principal: str, user_id: str) -> list[str]:
    """Every one, newest first, whether it can be decrypted or not."""
    mine = and_(drills.c.principal == principal, drills.c.user_id == user_id)
    wanted = select(drills.c.id).where(mine).order_by(drills.c.created_at.desc(), drills.c.number)
    return list((await conn.execute(wanted)).scalars())


async def drills_from(conn: AsyncConnection, source_kind: str, source_id: str) -> list[Drill]:
    """In their order."""
    wanted = (
        select(drills)
        .where(drills.c.source_kind == source_kind, drills.c.source_id == source_id)
        .order_by(drills.c.number)
    )
    cipher = cipher_of(conn)
    return [Drill(**DRILLS.open(cipher, row._mapping)) for row in await conn.execute(wanted)]


async def count_attempt(conn: AsyncConnection, drill_id: str) -> None:
    mine = drills.c.id == drill_id
    await conn.execute(update(drills).where(mine).values(attempts=drills.c.attempts + 1))


async def judge_drill(
    conn: AsyncConnection, drill_id: str, *, best_quality: str | None, closed_at: float | None
) -> None:
    """`closed_at` closes it; one that is closed stays so."""
    values: dict[str, Any] = {"best_quality": best_quality}
    if closed_at is not None:
        values |= {"status": "closed", "closed_at": closed_at}
    await conn.execute(
        update(drills).where(drills.c.id == drill_id, drills.c.status == "open").values(**values)
    )


# --- scenarios


async def scenario(conn: AsyncConnection, principal: str, scenario_id: str) -> StoredScenario | None:
    wanted = select(scenarios).where(scenarios.c.id == scenario_id, scenarios.c.principal == principal)
    row = (await conn.execute(wanted)).one_or_none()
    return None if row is None else StoredScenario(**row._mapping)


async def scenarios_of(conn: AsyncConnection, principal: str, limit: int) -> list[StoredScenario]:
    wanted = select(scenarios).where(scenarios.c.principal == principal).order_by(scenarios.c.id).limit(limit)
    return [StoredScenario(**row._mapping) for row in await conn.execute(wanted)]


async def keep_scenario(conn: AsyncConnection, one: StoredScenario) -> None:
    new = insert_into(scenarios, conn.dialect.name).values(asdict(one))
    changed = {name: new.excluded[name] for name in ("methodology", "document", "updated_at")}
    await conn.execute(new.on_conflict_do_update(index_elements=["id", "principal"], set_=changed))


async def delete_scenario(conn: AsyncConnection, principal: str, scenario_id: str) -> bool:
    mine = and_(scenarios.c.id == scenario_id, scenarios.c.principal == principal)
    return (await conn.execute(delete(scenarios).where(mine))).rowcount == 1
