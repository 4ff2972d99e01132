"""All simulations of this instance: made, carried, found again, ended; and the batches clients upload.

One instance at a time owns a session that runs (a lease in its row); it gives it up when it drains, and after
a crash another one takes it when the lease is over or the session is ended by the sweep."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.clock import Clock
from coach_server.domain.simulation.effects import End
from coach_server.domain.simulation.machine import SimulationTalk, TalkTiming
from coach_server.domain.simulation.talk import SessionEvent
from coach_server.errors import Conflict, Invalid, NotFound, StorageFailed, Unavailable
from coach_server.providers.bus import Bus
from coach_server.providers.realtime import Connection
from coach_server.services.access import Principal
from coach_server.services.costs import CostGovernor
from coach_server.services.live import Alarm, always
from coach_server.services.simulation.access import ID, acting_trainee, may_act, unknown
from coach_server.services.simulation.casting import Casting
from coach_server.services.simulation.director import Director
from coach_server.services.simulation.live import (
    OWN,
    Cast,
    Judge,
    LiveSimulation,
    LiveTools,
    load_machine,
)
from coach_server.services.simulation.messages import client_event
from coach_server.services.simulation.steering import Steering, new_tag
from coach_server.services.simulation.voice_events import ClientWire
from coach_server.storage import jobs, simulations
from coach_server.storage.database import Database
from coach_server.storage.simulations import Kept, Simulation

SCORE = "score_simulation"
LEASE_S = 15.0
RENEW_EVERY_S = LEASE_S / 3
TICKET_S = 24 * 3600.0
MAX_BATCH = 1000
BATCH = 100
SCORED = "simulation_scored"
FORGET = "forget_simulations"


@dataclass(frozen=True, slots=True)
class CreateWish:
    """What a client asks for. `metadata`: anything, bounded by the wire."""

    scenario_id: str
    trainee_id: str | None
    persona_id: str | None = None
    language: str | None = None
    client: str | None = None
    metadata: Mapping[str, Any] | None = None
    store_transcript: bool = True


@dataclass(frozen=True, slots=True)
class SimulationDefaults:
    """`prefix`: of session ids (`BAT` in seed 001). `cap_usd`: what a session's models may cost."""

    prefix: str
    language: str
    timing: TalkTiming
    cap_usd: float


class Simulations:
    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        bus: Bus,
        casting: Casting,
        director: Director,
        judge: Judge,
        connect: Callable[[LiveSimulation], Awaitable[Connection]],
        governor: CostGovernor,
        node: str,
        defaults: SimulationDefaults,
        nods: Callable[[str], frozenset[str]],
        on_job: Callable[[], None],
        score_unstored: Callable[[LiveSimulation], Awaitable[None]],
    ) -> None:
        self._database = database
        self._clock = clock
        self._bus = bus
        self._casting = casting
        self._governor = governor
        self._node = node
        self._defaults = defaults
        self.on_job = on_job
        self._score_unstored = score_unstored
        self._alarm = Alarm(clock)
        self._live: dict[str, LiveSimulation] = {}
        # Ended, and a client may still wait for the score.
        self._ending: WeakValueDictionary[str, LiveSimulation] = WeakValueDictionary()
        self._claims: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._group: asyncio.TaskGroup | None = None
        self._draining = False
        self._tools = LiveTools(
            database=database,
            clock=clock,
            alarm=self._alarm,
            judge=judge,
            director=director,
            connect=connect,
            on_end=self._ended,
            on_leave=self._left,
            on_gone=self._gone,
            nods=nods,
        )

    # --- life

    async def run(self, ready: asyncio.Event) -> None:
        """Own every session's task until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(
                always(self._clock, self._alarm.run, "simulations"), name="alarm of the simulations"
            )
            group.create_task(
                always(self._clock, self._keep_leases, "simulations"), name="leases of the simulations"
            )
            ready.set()

    async def drain(self) -> None:
        """Save every session and let go of it: another instance, or this one after its restart, goes on."""
        self._draining = True
        leaving = [*self._live.values()]
        for live in leaving:
            live.leave()
        for live in leaving:
            await live.finished.wait()

    @property
    def active(self) -> int:
        return len(self._live)

    # --- what clients do

    async def create(self, principal: Principal, wish: CreateWish) -> tuple[Simulation, Cast, str]:
        """A new session with its cast, and the one-time ticket of its `wsUrl`. Raises Invalid, NotFound
        (scenario, persona), Forbidden."""
        trainee_id = acting_trainee(principal, wish.trainee_id)
        cast, own = await self._casting.begin(principal.key, wish.scenario_id, wish.persona_id)
        language = _language(cast, wish.language, self._defaults.language)
        ticket, now = secrets.token_urlsafe(24), self._clock.now()
        async with self._database.transaction() as conn:
            number = await simulations.next_number(conn, f"simulation {self._defaults.prefix}")
            row = Simulation(
                id=f"{self._defaults.prefix}-{number:03}",
                principal=principal.key,
                trainee_id=trainee_id,
                team_id=principal.team_id,
                scenario_id=cast.scenario.id,
                persona_id=cast.persona.id,
                persona_name=cast.persona.name,
                language=language,
                created_at=now,
                last_seen_at=now,
                store_transcript=wish.store_transcript,
                client=wish.client,
                metadata=dict(wish.metadata or {}),
                ticket_digest=_digest(ticket),
                state={OWN: own} if own else {},
            )
            await simulations.insert(conn, row)
        logger.bind(session=row.id, key=principal.key).info("Simulation created", scenario=row.scenario_id)
        return row, cast, ticket

    async def admit(self, session_id: str, principal: Principal | None, ticket: str | None) -> str:
        """Whether somebody may open a session's socket: its trainee, the API key, or whoever brings the
        ticket of its `wsUrl`. Each ticket works once; the answer is the next one. Raises NotFound, Conflict
        (it is over)."""
        if not ID.fullmatch(session_id):
            raise unknown()
        following = secrets.token_urlsafe(24)
        async with self._database.transaction() as conn:
            row = await simulations.load(conn, session_id, to_change=True)
            if row is None or not (_may(principal, row) or self._is_ticket(row, ticket)):
                raise unknown()
            if row.status == "ended":
                raise Conflict("This session is over.")
            await simulations.change(conn, session_id, ticket_digest=_digest(following))
        return following

    def _is_ticket(self, row: Simulation, ticket: str | None) -> bool:
        if ticket is None or row.ticket_digest is None or row.created_at + TICKET_S < self._clock.now():
            return False
        return hmac.compare_digest(row.ticket_digest, _digest(ticket))

    @property
    def is_draining(self) -> bool:
        return self._draining

    async def carry(self, session_id: str, wire: ClientWire, next_ticket: str = "") -> None:
        """Serve a client that was admitted, until it is gone or the session is over and scored. Raises
        Conflict (over, or another client came), Unavailable (restarting, or another instance has it),
        NotFound (erased), ProviderError, StorageFailed."""
        if self._draining:
            raise Unavailable("The server is restarting.", retry_after_s=5)
        live = await self._find(session_id)
        await live.carry(wire, next_ticket)

    async def _find(self, session_id: str) -> LiveSimulation:
        """The live session, taken up from its row if need be."""
        claim = self._claims.setdefault(session_id, asyncio.Lock())
        async with claim:
            found = self._live.get(session_id)
            if found is not None and found.parting:
                await found.finished.wait()
                found = None
            return found if found is not None else await self._take_up(session_id)

    async def _take_up(self, session_id: str) -> LiveSimulation:
        if self._group is None:
            raise Unavailable("The server is starting.", retry_after_s=1)
        now = self._clock.now()
        async with self._database.transaction() as conn:
            row = await simulations.load(conn, session_id)
            if row is None:
                raise unknown()
            if row.status == "ended":
                raise Conflict("This session is over.")
            if not await simulations.claim(conn, session_id, owner=self._node, now=now, lease_s=LEASE_S):
                raise Unavailable("Another instance holds this session.", retry_after_s=LEASE_S)
            said = await simulations.utterances(conn, session_id)
            events = await simulations.events(conn, session_id)
            moods = await simulations.moods(conn, session_id)
        cast = await self._casting.of(row)
        live = self._new(replace(row, owner=self._node, lease_until=now + LEASE_S), cast)
        live.utterances, live.events, live.mood_count = said, events, len(moods)
        live.catch_up()
        self._live[session_id] = live
        self._group.create_task(live.run(), name=f"simulation {session_id}")
        return live

    def _new(self, row: Simulation, cast: Cast) -> LiveSimulation:
        meter = self._governor.meter(self._defaults.cap_usd)
        if "machine" in row.state:
            machine = load_machine(row.state["machine"])
            tag = str(row.state["tag"])
            meter.restore(row.usage)
        else:
            now = self._clock.now()
            machine = SimulationTalk.begin(cast.persona, cast.scenario, now, self._defaults.timing)
            tag = new_tag(random.SystemRandom())
        return LiveSimulation(row, cast, machine, Steering(tag), self._tools, meter)

    async def upload(
        self, principal: Principal, session_id: str, items: Sequence[Mapping[str, Any]]
    ) -> dict[str, int]:
        """A batch out of a client's buffer: `{accepted, duplicates}`. Each item is `{type, data, time, id?}`;
        the same item is stored once, however often it is sent, and their order is kept. All of them or none.
        Raises Invalid naming the item and field, NotFound, StorageFailed."""
        if not ID.fullmatch(session_id):
            raise unknown()
        if len(items) > MAX_BATCH:
            raise Invalid(f"At most {MAX_BATCH} events at once.", field="events")
        kept = [_kept(session_id, number, item) for number, item in enumerate(items)]
        async with self._database.transaction() as conn:
            row = await simulations.load(conn, session_id)
            if row is None or not may_act(principal, row):
                raise unknown()
            new = set(await simulations.add_events(conn, session_id, kept))
        live = self._live.get(session_id)
        if live is not None and new:
            fresh = [one.record for one in kept if one.id in new]
            live.uploaded(tuple(one for one in fresh if isinstance(one, SessionEvent)))
        return {"accepted": len(new), "duplicates": len(kept) - len(new)}

    async def announce(self, session_id: str, document: Mapping[str, Any]) -> None:
        """A score is there: tell the client, wherever it is connected."""
        live = self._live.get(session_id) or self._ending.get(session_id)
        if live is not None:
            live.scored(document)
        else:
            await self._bus.publish(None, {"type": SCORED, "session": session_id, "document": dict(document)})

    async def hear(self, message: Mapping[str, Any]) -> None:
        """A message from another instance."""
        if message.get("type") == FORGET:
            await self.forget([str(id) for id in message.get("sessions") or ()])
        if message.get("type") == SCORED:
            session_id = str(message.get("session"))
            live = self._live.get(session_id) or self._ending.get(session_id)
            if live is not None:
                live.scored(dict(message.get("document") or {}))

    async def forget(self, ids: Sequence[str]) -> None:
        """Stop the sessions among these that run here; nothing of them is written any more."""
        for live in [self._live[id] for id in ids if id in self._live]:
            live.forget()
            await live.finished.wait()

    # --- the end

    async def _ended(self, live: LiveSimulation, end: End) -> None:
        """Write the end and order the score, in one transaction; tried until the database takes it."""
        self._ending[live.id] = live
        while True:
            try:
                await self._end_once(live, end)
                break
            except StorageFailed:
                logger.bind(session=live.id).warning("The end of a simulation could not be stored yet")
                await self._clock.sleep_until(self._clock.now() + 1.0)
        if end.is_scored and not live.row.store_transcript:
            await self._score_unstored(live)
        self.on_job()

    async def _end_once(self, live: LiveSimulation, end: End) -> None:
        now = self._clock.now()
        machine, row = live.machine, live.snapshot()
        ended_at = machine.ended_at or now
        wants_job = live.row.store_transcript
        ended = replace(
            row,
            status="ended",
            outcome=end.outcome.value if end.outcome else None,
            end_trigger=end.trigger,
            ended_at=ended_at,
            duration_ms=max(0, round((ended_at - machine.started_at) * 1000)),
            owner=None,
            lease_until=None,
            ticket_digest=None,
            analysis_status="pending" if wants_job else "none",
        )
        async with self._database.transaction() as conn:
            await simulations.save(conn, ended, now)
            await simulations.change(conn, live.id, owner=None, lease_until=None, ticket_digest=None)
            if wants_job:
                await order_score(conn, live.id, now)
        live.row = ended

    async def _left(self, live: LiveSimulation) -> None:
        """Another instance may take it at once."""
        async with self._database.transaction() as conn:
            await simulations.release(conn, live.id, owner=self._node)

    def _gone(self, live: LiveSimulation) -> None:
        if self._live.get(live.id) is live:
            del self._live[live.id]

    # --- housekeeping

    async def sweep(self) -> None:
        """End the sessions nobody came back to: they are taken up, and their machine says how they ended.
        Raises StorageFailed."""
        now, grace = self._clock.now(), self._defaults.timing.grace_s
        async with self._database.read() as conn:
            due = await simulations.stale(
                conn, seen_before=now - grace, made_before=now - TICKET_S, now=now, limit=BATCH
            )
        for session_id in due:
            if session_id not in self._live and not self._draining:
                await self._close_stale(session_id)

    async def _close_stale(self, session_id: str) -> None:
        if await self._close_unused(session_id):
            return
        try:
            live = await self._find(session_id)
        except (Conflict, NotFound, Unavailable):
            return
        live.left_long_ago()

    async def _close_unused(self, session_id: str) -> bool:
        """Whether nobody ever came; a ticket of a day was given the day."""
        async with self._database.transaction() as conn:
            row = await simulations.load(conn, session_id, to_change=True)
            if row is None or row.status != "created":
                return row is None
            await simulations.change(
                conn,
                session_id,
                status="ended",
                end_trigger="disconnect",
                ended_at=self._clock.now(),
                ticket_digest=None,
                owner=None,
            )
        return True

    async def _keep_leases(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + RENEW_EVERY_S)
            held = [id for id, live in self._live.items() if not live.over.is_set()]
            if not held:
                continue
            try:
                async with self._database.transaction() as conn:
                    still = await simulations.renew(
                        conn, held, owner=self._node, now=self._clock.now(), lease_s=LEASE_S
                    )
            except StorageFailed:
                logger.warning("Leases of simulations could not be renewed", sessions=len(held))
                continue
            for session_id in set(held) - still:
                if (live := self._live.get(session_id)) is not None:
                    logger.bind(session=session_id).warning("Another instance took this simulation")
                    live.leave()


async def order_score(
    conn: AsyncConnection, session_id: str, now: float, *, again: int = 0, after_s: float = 0.0
) -> None:
    """`again` numbers a repeated scoring; the same number is the same order."""
    key = f"{SCORE}:{session_id}" + (f":{again}" if again else "")
    payload = {"sessionId": session_id, "again": again}
    await jobs.enqueue(conn, SCORE, key, payload, now + after_s, now=now)


def _language(cast: Cast, wanted: str | None, default: str) -> str:
    """The one asked for, else the default where the persona speaks it, else the persona's first. Raises
    Invalid."""
    if wanted is not None:
        if wanted not in cast.persona.languages:
            speaks = ", ".join(cast.persona.languages)
            raise Invalid(f"This persona speaks {speaks}.", field="language")
        return wanted
    return default if default in cast.persona.languages else cast.persona.languages[0]


def _may(principal: Principal | None, row: Simulation) -> bool:
    return principal is not None and may_act(principal, row)


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def _kept(session_id: str, number: int, item: object) -> Kept:
    """An uploaded event under its client's id, or under one made of what it says."""
    if not isinstance(item, Mapping):
        raise Invalid(f"events.{number} must be an object.", field=f"events.{number}")
    try:
        event = client_event(item)
    except Invalid as error:
        where = f"events.{number}.{(error.field or 'data').removeprefix('data.')}"
        raise Invalid(error.message, field=where) from None
    named = item.get("id", item.get("eventId"))
    if named is not None and (not isinstance(named, str) or not 0 < len(named) <= 128):
        raise Invalid("id must be a text of 1 to 128 characters.", field=f"events.{number}.id")
    told = f"{event.time} {event.type.value} {sorted(event.data.items(), key=str)!r}"
    made = hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()
    return Kept(f"client:{named}" if named else f"same:{made}", event)
