"""The owner of a simulation that runs: one task, one inbox, one machine.

Whatever happens (words, events of the client, verdicts, time) is put into the inbox and taken in order, so
nothing races and no timer outlives its talk. What is said is written as it comes (`diary.py`). The voice runs
beside it (`voice.py`) and never waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson
from loguru import logger
from pydantic import TypeAdapter

from coach_server.clock import Clock
from coach_server.domain.simulation import compliance
from coach_server.domain.simulation.attitude import shown
from coach_server.domain.simulation.effects import (
    AskVerdict,
    CameBack,
    ClientEvent,
    End,
    EndAsked,
    Heard,
    Keep,
    Left,
    LogEntry,
    PlaybackDone,
    Ready,
    Respond,
    Sight,
    Started,
    Steer,
    TalkEffect,
    TalkEvent,
    TellAttitude,
    Tick,
    ToolEnd,
    VerdictFailed,
    VerdictReady,
)
from coach_server.domain.simulation.machine import SimulationTalk, talk_so_far
from coach_server.domain.simulation.persona import Domain, SimPersona, SimScenario
from coach_server.domain.simulation.scene import Scene, TalkSoFar
from coach_server.domain.simulation.talk import (
    Direction,
    Mood,
    Role,
    SessionEvent,
    Utterance,
    Verdict,
)
from coach_server.errors import CoachError, Conflict, NotFound, ProviderError, Unavailable
from coach_server.providers.realtime import Connection, EndRequested, Expiring, Lost, Resumed
from coach_server.services.costs import Meter, Spending
from coach_server.services.live import Alarm, Inbox
from coach_server.services.simulation.diary import Diary
from coach_server.services.simulation.director import Director
from coach_server.services.simulation.messages import Refused, error_frame, parse_client
from coach_server.services.simulation.steering import Steering
from coach_server.services.simulation.voice import Voice
from coach_server.services.simulation.voice_events import (
    CarryEnd,
    ClientMessage,
    ClientWire,
    Cut,
    PlayedOut,
    Said,
    Spoken,
    Trouble,
    VoiceEvent,
)
from coach_server.storage import simulations
from coach_server.storage.database import Database
from coach_server.storage.simulations import Simulation

SCORE_WAIT_S = 60.0
# In the state of a row: what of the cast was the API key's own (`casting.py`).
OWN = "own"
MOST_LINES = 4
LINE_LOST = "The line to the customer was lost; it has been opened again."
_machine: TypeAdapter[SimulationTalk] = TypeAdapter(SimulationTalk)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who and what the talk is with."""

    persona: SimPersona
    scenario: SimScenario
    domain: Domain


class Judge(Protocol):
    """The supervisor's judgement."""

    async def judge(self, talk: TalkSoFar, cast: Cast, language: str, meter: Meter) -> Verdict:
        """Never raises ProviderError: without a model the rules judge."""
        ...


@dataclass(frozen=True, slots=True)
class LiveTools:
    """What every live simulation shares. `connect` opens the customer for a talk; `on_end` writes the end and
    orders what follows it; `on_leave` lets go of a talk that goes on elsewhere; `on_gone` is told when an
    owner has finished."""

    database: Database
    clock: Clock
    alarm: Alarm
    judge: Judge
    director: Director
    connect: Callable[[LiveSimulation], Awaitable[Connection]]
    on_end: Callable[[LiveSimulation, End], Awaitable[None]]
    on_leave: Callable[[LiveSimulation], Awaitable[None]]
    on_gone: Callable[[LiveSimulation], None]
    nods: Callable[[str], frozenset[str]]


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A client's socket is there."""


@dataclass(frozen=True, slots=True)
class _Gone:
    """The socket of the client with this number is gone."""

    client: int


@dataclass(frozen=True, slots=True)
class _Stop:
    """Leave the talk to another instance, or to a later start."""


@dataclass(frozen=True, slots=True)
class _Uploaded:
    """Events of a batch that are on disk already."""

    events: tuple[SessionEvent, ...]


Item = VoiceEvent | TalkEvent | _Arrived | _Gone | _Stop | _Uploaded


@dataclass(slots=True, eq=False, weakref_slot=True)
class LiveSimulation:
    """`row`: as it was last written. `utterances`: everything said, in order. `parting`: it takes no
    client any more; once it is `finished` the session can be taken up again."""

    row: Simulation
    cast: Cast
    machine: SimulationTalk
    steering: Steering
    tools: LiveTools
    meter: Meter
    utterances: list[Utterance] = field(default_factory=list)
    events: list[SessionEvent] = field(default_factory=list)
    mood_count: int = 0
    score: asyncio.Future[Mapping[str, Any]] = field(init=False)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    _inbox: Inbox[Item] = field(default_factory=Inbox)
    _diary: Diary = field(init=False)
    _voice: Voice | None = None
    _connection: Connection | None = None
    _client: asyncio.Task[CarryEnd] | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    parting: bool = False
    _leaving: bool = False
    _forgotten: bool = False
    _clients: int = 0
    _untold: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._diary = Diary(self.tools.database, self.tools.clock, self.row.id)
        self.score = asyncio.get_running_loop().create_future()

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def language(self) -> str:
        return self.row.language

    # --- from outside

    def feed(self, item: Item) -> None:
        self._inbox.put(item)

    def uploaded(self, events: tuple[SessionEvent, ...]) -> None:
        """A batch of client events was stored: the supervisor must see them."""
        self.feed(_Uploaded(events))

    def leave(self) -> None:
        self.parting = True
        self.feed(_Stop())

    def forget(self) -> None:
        """Its trainee is erased: stop, and write nothing any more."""
        self._forgotten = True
        self._diary.close()
        self.leave()

    def catch_up(self) -> None:
        """Count what was said and stored after the state was: the two are not always one transaction."""
        now = self.tools.clock.now()
        for utterance in self.utterances:
            if utterance.sequence > self.machine.last_sequence:
                self.machine.receive(Heard(utterance, Sight()), now)

    def left_long_ago(self) -> None:
        """Taken up by a sweep: nobody is there, and nobody was since it was last seen."""
        if self.machine.away_since is None:
            self.machine.away_since = self.row.last_seen_at
        self._inbox.nudge()

    def scored(self, document: Mapping[str, Any]) -> None:
        if not self.score.done():
            self.score.set_result(document)

    async def carry(self, wire: ClientWire, next_ticket: str = "") -> None:
        """Serve one client until it is gone or the talk is over and its score told. A client that was there
        before is let go: there is one live socket a session. `next_ticket` lets this client come back.
        Raises ProviderError when there is no customer to talk to, Conflict when another client came,
        Unavailable when the talk goes on elsewhere, NotFound when it was erased."""
        if self._client is not None:
            self._client.cancel()
        if not self.over.is_set():
            await self._serve(wire, next_ticket)
        if self.over.is_set():
            await self._after_the_end(wire)

    async def _serve(self, wire: ClientWire, next_ticket: str) -> None:
        self._clients += 1
        number = self._clients
        again = {"ticket": next_ticket} if next_ticket else {}
        try:
            voice = await self._open()
            self._require_floor(number)
            await wire.send(
                _frame({"type": "ready", "sessionId": self.id, "provider": self.provider, **again})
            )
            self.feed(_Arrived())
            for _ in range(MOST_LINES):
                self._require_floor(number)
                end = await self._carry_one(voice, wire)
                if end is None:
                    self._require_floor(number)
                if end is not CarryEnd.MODEL_GONE or self.over.is_set():
                    return
                voice = await self._again(voice, wire)
            raise ProviderError("The line to the customer was lost.", retryable=True)
        finally:
            self.feed(_Gone(number))

    def _require_floor(self, number: int) -> None:
        if self.over.is_set():
            return
        if number != self._clients:
            raise Conflict("Another client has taken this session over.")
        if self._forgotten:
            raise NotFound("This session was erased.", field="sessionId")
        if self._leaving:
            raise Unavailable("This session goes on elsewhere; connect again.", retry_after_s=1)

    async def _carry_one(self, voice: Voice, wire: ClientWire) -> CarryEnd | None:
        """Until client or customer is gone, or the talk is over (None)."""
        carrying = asyncio.create_task(voice.carry(wire), name=f"voice of {self.id}")
        over = asyncio.create_task(self.over.wait(), name=f"end of {self.id}")
        self._client = carrying
        try:
            await asyncio.wait({carrying, over}, return_when=asyncio.FIRST_COMPLETED)
            return carrying.result() if carrying.done() and not carrying.cancelled() else None
        finally:
            over.cancel()
            carrying.cancel()
            await asyncio.gather(carrying, over, return_exceptions=True)
            if self._client is carrying:
                self._client = None

    async def _again(self, lost: Voice, wire: ClientWire) -> Voice:
        """Another line to the customer in the place of one that is gone for good: the same model, or the next
        one of the chain. Whoever was left without an answer gets it."""
        async with self._opening:
            if self._voice is lost:
                self._voice = None
                await self._hang_up()
        voice = await self._open()
        voice.inherit(lost)
        told = {"type": "error", "code": "VOICE_LOST", "message": LINE_LOST, "retryable": True}
        await wire.send(_frame({**told, "provider": self.provider}))
        if self.utterances and self.utterances[-1].role is Role.TRAINEE:
            await voice.respond()
        return voice

    async def _open(self) -> Voice:
        """The voice, with a customer behind it."""
        async with self._opening:
            if self._voice is None:
                self._connection = await self.tools.connect(self)
                self._voice = Voice(
                    self._connection,
                    self.tools.clock,
                    self.tools.alarm,
                    self.feed,
                    started_at=self._began_at(),
                    steering=self.steering,
                    nods=self.tools.nods(self.language),
                    session_id=self.id,
                    tells_words=False,
                )
                while self._untold:
                    self._voice.send(self._untold.pop(0))
                if self.machine.evaluations:
                    await self._voice.steer(self._block(self.machine.standing))
            return self._voice

    def _block(self, steer: Steer) -> str:
        return self.steering.block(self.tools.director.lines(steer, self.language))

    @property
    def provider(self) -> str:
        """Who speaks for the customer; `offline`: the built-in one."""
        return self._connection.provider if self._connection is not None else ""

    def _began_at(self) -> float:
        """The clock of a session begins with its first client."""
        if self.row.status == "created":
            return self.tools.clock.now()
        return self.machine.started_at

    async def _after_the_end(self, wire: ClientWire) -> None:
        """Outcome at once; the score when it is there, within a minute."""
        outcome = self.machine.outcome
        ended = {"type": "session_ended", "outcome": outcome.value if outcome else None}
        try:
            await wire.send(_frame({**ended, "endTrigger": self.machine.trigger}))
            if not self.machine.is_scored:
                return
            async with asyncio.timeout(SCORE_WAIT_S):
                document = await asyncio.shield(self.score)
            await wire.send(_frame({"type": "score", "data": dict(document)}))
        except (ConnectionError, TimeoutError):
            return

    # --- the owner

    async def run(self) -> None:
        """Own the talk until it is over or left."""
        log = logger.bind(session=self.id)
        try:
            async with asyncio.TaskGroup() as group:
                diary = group.create_task(self._diary.run(), name=f"diary of {self.id}")
                await self._conduct(group)
                await self._diary.settle()
                diary.cancel()
            if self._leaving and not self.over.is_set():
                await self.tools.on_leave(self)
        except* Exception as errors:
            log.opt(exception=errors).error("The owner of a simulation broke")
            self.parting = self._leaving = True
        finally:
            await self._close()
            self.tools.on_gone(self)
            self.finished.set()

    async def _conduct(self, group: asyncio.TaskGroup) -> None:
        while not self.over.is_set() and not self._leaving:
            now = self.tools.clock.now()
            deadline = self.machine.deadline
            is_due = deadline is not None and deadline <= now
            item: Item | None = Tick() if is_due else self._inbox.take()
            if item is None:
                if deadline is not None:
                    self.tools.alarm.set(deadline, self._inbox.nudge)
                await self._inbox.wait()
                continue
            try:
                await self._take(item, group)
            except CoachError as error:
                logger.bind(session=self.id, code=error.code).warning("A step of a simulation was refused")

    async def _take(self, item: Item, group: asyncio.TaskGroup) -> None:
        match item:
            case _Arrived():
                await self._arrived(group)
            case _Gone():
                await self._gone(item.client, group)
            case _Stop():
                self._leaving = True
            case _Uploaded():
                self.events += item.events
            case Said():
                await self._said(item, group)
            case Cut():
                self._cut(item)
            case Spoken():
                await self._spent(item)
            case PlayedOut():
                await self._apply(PlaybackDone(), group)
            case EndRequested():
                playing_s = self._voice.playing_s if self._voice is not None else 0.0
                await self._apply(ToolEnd(item.reason, playing_s), group)
            case ClientMessage():
                await self._client_says(item.message, group)
            case Trouble():
                self._tell(error_frame(item.error))
            case Lost() | Resumed() | Expiring():
                pass  # `_serve` opens another line when one is gone for good
            case _:
                await self._apply(item, group)

    async def _gone(self, client: int, group: asyncio.TaskGroup) -> None:
        if client != self._clients:
            return  # another one is here already
        if self.row.status == "created":
            # It never began: there was no customer for whoever came.
            self.parting = self._leaving = True
        else:
            await self._apply(Left(), group)

    async def _arrived(self, group: asyncio.TaskGroup) -> None:
        if self.row.status == "created":
            now = self.tools.clock.now()
            self.row = replace(self.row, status="active", started_at=now)
            self._keep(Mood(0.0, self.machine.initial, Direction.STABLE))
            await self._apply(Started(), group)
            await self._apply(Ready(), group)
        else:
            await self._apply(CameBack(), group)
        self._tell(
            {
                "type": "attitude",
                "value": shown(self.machine.attitude),
                "direction": self.machine.direction.value,
            }
        )

    async def _said(self, said: Said, group: asyncio.TaskGroup) -> None:
        # Words that are not stored are counted all the same, by the machine.
        number = self.machine.last_sequence + 1
        utterance = Utterance(number, said.role, said.text, said.start, said.end, said.item_id)
        self.utterances.append(utterance)
        if self.row.store_transcript:
            self._write_utterance(utterance, said.frame)
        else:
            self._tell(said.frame)
        await self._apply(Heard(utterance, self._sight()), group)

    def _sight(self) -> Sight:
        """What the rules see in the last utterance."""
        persona, domain = self.cast.persona, self.cast.domain
        return compliance.sight(self.utterances, self.events, persona, domain, self.language)

    def _write_utterance(self, utterance: Utterance, frame: Mapping[str, Any]) -> None:
        """Whoever was told something finds it again after a crash: the client is told afterwards."""
        session_id = self.id
        self._diary.put(
            lambda conn: simulations.add_utterances(conn, session_id, [utterance]),
            lambda: self._tell(frame),
        )

    def _cut(self, cut: Cut) -> None:
        """What was told was not heard to its end."""
        told = [u for u in self.utterances if u.item_id == cut.item_id and u.role is Role.AVATAR]
        if not told:
            return
        heard = replace(told[-1], text=cut.text, end=cut.end)
        self.utterances[self.utterances.index(told[-1])] = heard
        if self.row.store_transcript:
            session_id = self.id
            self._diary.put(lambda conn: simulations.replace_utterance(conn, session_id, heard))

    async def _spent(self, spoken: Spoken) -> None:
        """Beyond the cap the line is closed, and the built-in customer takes over."""
        for usage in spoken.usage:
            self.meter.add(usage)
        if self.meter.spending is Spending.NONE:
            logger.bind(session=self.id).info("A simulation has spent what it may")
            await self._hang_up()

    async def _client_says(self, message: Mapping[str, Any], group: asyncio.TaskGroup) -> None:
        try:
            said = parse_client(message, self._time())
        except Refused as refused:
            self._tell(refused.frame)
            return
        match said:
            case SessionEvent():
                await self._apply(ClientEvent(said), group)
            case str():
                if self._voice is not None and not self.machine.is_ending:
                    await self._voice.say(said)
            case None:
                await self._apply(EndAsked(), group)

    # --- effects

    async def _apply(self, event: TalkEvent, group: asyncio.TaskGroup) -> None:
        effects = self.machine.receive(event, self.tools.clock.now())
        for effect in effects:
            await self._perform(effect, group)
        if effects or isinstance(event, Heard | Left | CameBack):
            self._save()

    async def _perform(self, effect: TalkEffect, group: asyncio.TaskGroup) -> None:
        match effect:
            case AskVerdict():
                name = f"verdict {effect.number} of {self.id}"
                group.create_task(self._judge(effect), name=name)
            case Steer():
                if self._voice is not None:
                    await self._voice.steer(self._block(effect))
            case Respond():
                if self._voice is not None:
                    await self._voice.respond()
            case TellAttitude():
                self._tell(
                    {"type": "attitude", "value": effect.attitude, "direction": effect.direction.value}
                )
            case Keep():
                self._keep(effect.record)
            case End():
                await self._end(effect)

    async def _judge(self, asked: AskVerdict) -> None:
        talk = talk_so_far(self.machine, asked, self.utterances, self.events)
        try:
            verdict = await self.tools.judge.judge(talk, self.cast, self.language, self.meter)
        except Exception as error:
            logger.opt(exception=error).bind(session=self.id).error("A simulation could not be judged")
            self.feed(VerdictFailed(asked.number))
        else:
            self.feed(VerdictReady(asked.number, verdict))

    def _keep(self, record: Mood | SessionEvent | LogEntry) -> None:
        session_id = self.id
        if isinstance(record, Mood):
            self.mood_count += 1
            number = self.mood_count
            self._diary.put(lambda conn: simulations.add_mood(conn, session_id, number, record))
            return
        kept = simulations.Kept.new(record)
        if isinstance(record, SessionEvent):
            self.events.append(record)
        self._diary.put(lambda conn: simulations.add_events(conn, session_id, [kept]))

    async def _end(self, end: End) -> None:
        """Write all that was said, then the end with what follows it, then tell."""
        self._save()
        await self._diary.settle()
        await self.tools.on_end(self, end)
        logger.bind(session=self.id).info("Simulation ended", trigger=end.trigger)
        self.over.set()

    def snapshot(self) -> Simulation:
        """The row as the talk stands now."""
        return replace(
            self.row,
            last_seen_at=self.tools.clock.now(),
            exchanges=self.machine.exchanges,
            final_attitude=shown(self.machine.attitude),
            state={
                **{name: self.row.state[name] for name in (OWN,) if name in self.row.state},
                "machine": _machine.dump_python(self.machine, mode="json"),
                "tag": self.steering.tag,
            },
            usage=self.meter.to_dict(),
        )

    def _save(self) -> None:
        row, now = self.snapshot(), self.tools.clock.now()
        self.row = row
        self._diary.put(lambda conn: simulations.save(conn, row, now))

    def _tell(self, message: Mapping[str, Any]) -> None:
        if self._voice is not None:
            self._voice.send(message)
        else:
            self._untold.append(message)

    def _time(self) -> float:
        return round(max(0.0, self.tools.clock.now() - self.machine.started_at), 3)

    async def _close(self) -> None:
        if self._client is not None and not self.over.is_set():
            self._client.cancel()
        await self._hang_up()

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close()
            except ProviderError:
                logger.bind(session=self.id).warning("The customer's line was not closed in order")


def load_machine(state: Mapping[str, Any]) -> SimulationTalk:
    return _machine.validate_python(state)


def _frame(message: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(message)).decode()


def scene_of(live: LiveSimulation) -> Scene:
    """The talk as the rules look at it."""
    return Scene.of(live.utterances, live.events, live.cast.persona, live.cast.domain, live.language)
