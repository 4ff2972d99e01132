"""A practice session between the machine and the tables: opened for one event, changed, written, told.

There is no owner task: a session lives in its row. Whoever handles an event holds the row until the event is
written (and, in this process, a lock, so that events are taken in the order they came in). So any instance
may take any event, a crash loses nothing that was acknowledged, and there is no timer to survive one: time is
looked at whenever a session is opened, and by a sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.clock import Clock
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.roleplay import LOOK_BACK, Effect, Ended, Roleplay, Status, Timing
from coach_server.providers.avatar import StopReason
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.access import unknown
from coach_server.services.practice.memory import dump_machine, load_machine, turns_of
from coach_server.storage import jobs, roleplays
from coach_server.storage.database import Database
from coach_server.storage.roleplays import Message, Session, StepRow

ANALYSE = "analyse_roleplay"
STOP_AVATAR = "stop_avatar"


@dataclass(slots=True)
class Open:
    """A session while one event is applied to it. `effects` are told once the transaction is over."""

    conn: AsyncConnection
    session: Session
    machine: Roleplay
    method: Methodology
    now: float
    effects: list[Effect] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    async def turns(self, count: int = LOOK_BACK) -> list[Turn]:
        """The last turns, oldest first."""
        return turns_of(await roleplays.last_messages(self.conn, self.session.id, count))

    async def append(self, message: Message) -> None:
        await roleplays.append(self.conn, message)
        self.session = replace(self.session, last_sequence=message.sequence_number)


class RoleplayStore:
    def __init__(self, database: Database, methods: Methodologies, clock: Clock, timing: Timing) -> None:
        self._database = database
        self._methods = methods
        self._clock = clock
        self.timing = timing
        self.on_end: Callable[[], None] = lambda: None
        """Called when a session has ended: there is a job to do."""
        self.on_over: Callable[[Session], Awaitable[None]] = _nothing
        """Awaited for each session that has ended: its user has practised more than is remembered."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def database(self) -> Database:
        return self._database

    def lock(self, session_id: str) -> asyncio.Lock:
        """Whoever holds it is the only one in this process who changes the session; first come, first."""
        found = self._locks.get(session_id)
        if found is None:
            found = self._locks[session_id] = asyncio.Lock()
        return found

    async def begin(self, session: Session, machine: Roleplay, first: Message | None = None) -> bool:
        """Keep a new session and its first turn. False when its idempotency key is known."""
        kept = _with_machine(session, machine)
        async with self._database.transaction() as conn:
            if not await roleplays.insert(conn, kept, self._clock.now()):
                return False
            await roleplays.save_steps(conn, _step_rows(kept.id, machine, self.method(kept)))
            if first is not None:
                await roleplays.append(conn, first)
        return True

    def method(self, session: Session) -> Methodology:
        return self._methods.get(session.methodology)

    async def load(self, session_id: str) -> Session:
        """Raises NotFound."""
        async with self._database.read() as conn:
            session = await roleplays.load(conn, session_id)
        if session is None:
            raise unknown()
        return session

    @asynccontextmanager
    async def changing(self, session_id: str) -> AsyncIterator[Open]:
        """Open a session, let the body change it, and write it; what the body raises changes nothing. What
        became of the session by time alone is written first. Raises NotFound, StorageFailed."""
        if await self.pass_time(session_id):
            self.on_end()
        async with self._database.transaction() as conn:
            opened = await self._open(conn, session_id)
            yield opened
            await self._write(opened)
        if _has_ended(opened):
            await self.on_over(opened.session)
            self.on_end()

    async def pass_time(self, session_id: str) -> bool:
        """Abandon or end a session whose time has come; whether it ended now. Raises NotFound."""
        async with self._database.read() as conn:
            session = await roleplays.load(conn, session_id)
        if session is None:
            raise unknown()
        if session.is_over or not self._is_due(session):
            return False
        async with self._database.transaction() as conn:
            opened = await self._open(conn, session_id)
            opened.effects += opened.machine.tick(self.timing, opened.now)
            await self._write(opened)
        if not _has_ended(opened):
            return False
        await self.on_over(opened.session)
        return True

    def _is_due(self, session: Session) -> bool:
        machine = self._machine(session)
        before = machine.status
        machine.tick(self.timing, self._clock.now())
        return machine.status is not before or machine.is_over

    async def _open(self, conn: AsyncConnection, session_id: str) -> Open:
        session = await roleplays.load(conn, session_id, to_change=True)
        if session is None:
            raise unknown()
        machine = self._machine(session)
        return Open(
            conn, session, machine, self.method(session), self._clock.now(), state=dict(session.state)
        )

    def _machine(self, session: Session) -> Roleplay:
        """A sign of life may have been written beside the machine."""
        machine = load_machine(session.state["machine"])
        machine.last_seen_at = max(machine.last_seen_at, session.last_seen_at)
        return machine

    async def _write(self, opened: Open) -> None:
        machine, conn, now = opened.machine, opened.conn, opened.now
        session = _with_machine(replace(opened.session, state=opened.state), machine)
        if _has_ended(opened):
            session = await self._end(conn, session, machine, now)
        await roleplays.save(conn, session, now)
        await roleplays.save_steps(conn, _step_rows(session.id, machine, opened.method))

    async def _end(self, conn: AsyncConnection, session: Session, machine: Roleplay, now: float) -> Session:
        """Order what follows the end in the transaction of the end: the analysis, and the avatar's stop."""
        pending = machine.seller_count > 0
        if pending:
            await order_analysis(conn, session.id, now)
        await self.order_avatar_stop(conn, session, StopReason(machine.status.value), now)
        return replace(
            session,
            completed_at=machine.ended_at,
            duration_seconds=round(machine.duration_s),
            analysis_status="pending" if pending else "none",
        )

    async def order_avatar_stop(
        self,
        conn: AsyncConnection,
        session: Session,
        reason: StopReason,
        now: float,
        *,
        after_s: float = 0.0,
    ) -> None:
        """A vendor bills by the minute: the order to stop is as durable as the end itself."""
        vendor_id = session.heygen_session_id
        if vendor_id is None or session.avatar_stopped_at is not None:
            return
        payload = {
            "sessionId": session.id,
            "provider": session.avatar_provider,
            "vendorId": vendor_id,
            "reason": reason.value,
        }
        key = f"{STOP_AVATAR}:{vendor_id}"
        await jobs.enqueue(conn, STOP_AVATAR, key, payload, now + after_s, now=now)


async def order_analysis(
    conn: AsyncConnection, session_id: str, now: float, *, again: int = 0, after_s: float = 0.0
) -> None:
    """`again` numbers a repeated analysis; the same number is the same order."""
    key = f"{ANALYSE}:{session_id}" + (f":{again}" if again else "")
    payload = {"sessionId": session_id, "again": again}
    await jobs.enqueue(conn, ANALYSE, key, payload, now + after_s, now=now)


async def _nothing(session: Session) -> None:
    """Nobody asked to be told."""


def _has_ended(opened: Open) -> bool:
    return any(isinstance(effect, Ended) for effect in opened.effects)


def _with_machine(session: Session, machine: Roleplay) -> Session:
    return replace(
        session,
        status=machine.status.value,
        current_phase_id=machine.phase,
        current_step_id=machine.step,
        last_seen_at=machine.last_seen_at,
        duration_seconds=round(machine.duration_s) if machine.is_over else session.duration_seconds,
        state={**session.state, "machine": dump_machine(machine)},
    )


def _step_rows(session_id: str, machine: Roleplay, method: Methodology) -> Sequence[StepRow]:
    """The steps something happened to."""
    rows = []
    for step_id, step in machine.steps.items():
        if step.started_at is None and step.quality is None:
            continue
        spent = None
        if step.started_at is not None and step.completed_at is not None:
            spent = max(0, round(step.completed_at - step.started_at))
        rows.append(
            StepRow(
                session_id=session_id,
                step_id=step_id,
                phase_id=method.technique(step_id).phase,
                status=step.status.value,
                manual=step.manual,
                created_at=machine.started_at,
                started_at=step.started_at,
                completed_at=step.completed_at,
                duration_seconds=spent,
                technique_used=step.quality is not None,
            )
        )
    return rows


def is_running(session: Session) -> bool:
    return session.status in (Status.IDLE.value, Status.RECORDING.value)
