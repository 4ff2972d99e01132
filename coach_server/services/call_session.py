"""One live call and its owner task: everything that happens to the call passes through its inbox.

The owner asks who may speak (architecture.md §13.2), feeds the machine, performs its effects, numbers and
stores what is told to the client, and answers each request once what it acknowledges is on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from loguru import logger
from pydantic import TypeAdapter

from coach_server.clock import Clock
from coach_server.domain.call import CallCoach, CallState, CallTiming
from coach_server.domain.detection import Detection
from coach_server.domain.events import (
    AlternativeWanted,
    AskTip,
    CallEffect,
    CallEvent,
    ClientCame,
    ClientLeft,
    DropTip,
    EndStatus,
    EndWanted,
    Finish,
    Heard,
    KeepSelection,
    ModeSet,
    NextTipWanted,
    OptionSelected,
    ShowTip,
    SpeechNoticed,
    TellMode,
    TellTipFailed,
    Tick,
    TipFailed,
    TipReady,
    UpgradeTip,
)
from coach_server.domain.tip import ShownTip, Tip, TipRequest
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.errors import CoachError, Conflict, NotFound, RateLimited, StorageFailed
from coach_server.services import call_messages as messages
from coach_server.services.access import Principal
from coach_server.services.analysis import CallRecord
from coach_server.services.call_store import CallCard, CallStore, HeldElsewhere, StoredCall
from coach_server.services.coach import MeteredCoach, TipChunk
from coach_server.services.costs import Meter
from coach_server.services.figures import Figures
from coach_server.services.limits import TokenBucket
from coach_server.services.live import Alarm, Inbox

PROBE_S = 2.0
MISSED_TIP_FRESH_S = 120.0
TIP_BURST = 20
TIPS_PER_S = 30 / 60
LOG_KEPT = 1000
LINGER_S = 600.0

_machine_state: TypeAdapter[CallCoach] = TypeAdapter(CallCoach)


class Publisher(Protocol):
    """How a session reaches a client's socket."""

    async def send(self, sid: str, name: str, payload: Mapping[str, Any]) -> None:
        """Hand one event to a socket; never waits for a slow one."""
        ...

    async def probe(self, sid: str, timeout_s: float) -> bool:
        """Whether the socket answers an immediate ping."""
        ...

    def is_open(self, sid: str) -> bool: ...


class Ears(Protocol):
    """What the rules hear in an utterance, within a millisecond."""

    def detect(self, utterance: Utterance, language: str, before: tuple[str, ...]) -> Detection: ...

    def facts(self, known: Mapping[str, str], utterance: Utterance, language: str) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from."""

    principal: Principal
    sid: str


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who wants to speak for a call, here or through another instance."""

    principal_key: str
    user_id: str | None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Say:
    speaker: Speaker
    text: str
    is_final: bool
    said_at: float
    segment_id: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Do:
    """A wish that goes to the machine as it is."""

    event: OptionSelected | NextTipWanted | AlternativeWanted | ModeSet


@dataclass(frozen=True, slots=True)
class End:
    pass


@dataclass(frozen=True, slots=True)
class Resume:
    token: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class Greet:
    """The same START once more: answer with the call it started."""

    token: str


Action = Say | Do | End | Resume | Greet
Reply = asyncio.Future[dict[str, Any]]


@dataclass(slots=True)
class Request:
    origin: Origin
    action: Action
    reply: Reply


@dataclass(slots=True)
class Outgoing:
    """An event for the client. `ready` once it is on disk; order is kept by the outbox."""

    seq: int
    name: str
    payload: dict[str, Any]
    at: float
    ready: bool = False


@dataclass(frozen=True, slots=True)
class _Probed:
    sid: str
    alive: bool


@dataclass(frozen=True, slots=True)
class _Chunk:
    turn: int
    chunk: TipChunk


@dataclass(frozen=True, slots=True)
class _Gone:
    sid: str


@dataclass(frozen=True, slots=True)
class _Announce:
    name: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Leave:
    """Let go of the call without ending it: another node or the next process goes on with it."""

    done: asyncio.Future[None]


@dataclass(slots=True)
class _Yield:
    """Another instance asks for the call on behalf of `contender`; `given` tells whether it gets it."""

    contender: Contender
    given: asyncio.Future[bool]


Item = Request | CallEvent | _Probed | _Chunk | _Gone | _Announce | _Leave | _Yield


@dataclass(slots=True)
class Binding:
    """The one socket that hears and speaks for the call. `sent_seq`: the last event it was given."""

    sid: str
    sent_seq: int


@dataclass(frozen=True, slots=True)
class CallTools:
    """What every call works with."""

    clock: Clock
    store: CallStore
    coach: MeteredCoach
    ears: Ears
    publisher: Publisher
    alarm: Alarm
    timing: CallTiming
    on_finished: Callable[[LiveCall], None]
    on_tip: Callable[[str, str], None]
    contend: Callable[[str, HeldElsewhere, Contender], Awaitable[bool]]
    analyse_unstored: Callable[[CallRecord], Awaitable[None]]
    on_stored_end: Callable[[], None]
    figures: Figures


class LiveCall:
    """The owner of one call. Built with a machine when the call starts, without one to restore it."""

    def __init__(
        self,
        call_id: str,
        tools: CallTools,
        *,
        meter: Meter,
        card: CallCard | None = None,
        machine: CallCoach | None = None,
        streams_tips: bool = False,
    ) -> None:
        self.id = call_id
        self._tools = tools
        self._card = card
        self._streams_tips = streams_tips
        self._machine = machine
        self.meter = meter
        self._inbox: Inbox[Item] = Inbox()
        self._binding: Binding | None = None
        self._waiting: list[Request | _Yield] = []
        self._linger_until: float | None = None
        self._seq = 0
        self._outbox: deque[Outgoing] = deque()
        self._log: deque[Outgoing] = deque(maxlen=LOG_KEPT)
        self._undelivered: Outgoing | None = None
        self._segments: dict[str, int] = {}
        self._armed: float | None = None
        self._group: asyncio.TaskGroup | None = None
        self._tip_task: asyncio.Task[None] | None = None
        self._draft: tuple[int, str] | None = None
        self._bucket = TokenBucket(TIP_BURST, TIPS_PER_S)
        self._finishing: asyncio.Task[None] | None = None
        self._left = False
        self._log_to = logger.bind(conversation=call_id)

    # --- what others call

    @property
    def is_active(self) -> bool:
        return self._machine is not None and not self._machine.ended

    @property
    def principal_key(self) -> str | None:
        return self._card.principal_key if self._card else None

    def ask(self, origin: Origin, action: Action) -> Reply:
        """Hand over a request, without awaiting anything. The future resolves when what it acknowledges is on
        disk, or fails with the CoachError to tell."""
        reply: Reply = asyncio.get_running_loop().create_future()
        self._inbox.put(Request(origin, action, reply))
        return reply

    def greet(self, sid: str, payload: dict[str, Any]) -> None:
        """The call has just started: this socket speaks for it, and is told so."""
        self._binding = Binding(sid, 0)
        self._emit("CONVERSATION_STARTED", payload)

    def socket_gone(self, sid: str) -> None:
        self._inbox.put(_Gone(sid))

    def announce(self, name: str, document: Mapping[str, Any]) -> None:
        """Tell the client something that was made elsewhere (the analysis)."""
        self._inbox.put(_Announce(name, document))

    def end_as_abandoned(self) -> None:
        self._inbox.put(EndWanted(EndStatus.ABANDONED))

    def yield_to(self, contender: Contender) -> asyncio.Future[bool]:
        """Another instance asks for this call. Resolves True once it is saved and let go of."""
        given: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._inbox.put(_Yield(contender, given))
        return given

    def leave(self) -> asyncio.Future[None]:
        """Save the state and stop, so that another owner can go on. Resolves when it is saved."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put(_Leave(done))
        return done

    async def run(self) -> None:
        """Own the call until it has ended, was left, or turns out not to exist."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                if self._machine is None and not await self._restore():
                    return
                while not self._is_over():
                    await self._step()
                self._stop_tip()
        except* Exception as errors:
            for error in errors.exceptions:
                self._log_to.opt(exception=error).error("The owner of a call failed")
        finally:
            self._refuse_the_rest()
            self._tools.on_finished(self)

    # --- the loop

    async def _step(self) -> None:
        machine = self._the_machine
        now = self._tools.clock.now()
        if machine.deadline is not None and machine.deadline <= now:
            self._apply(Tick())
        item = self._inbox.take()
        if item is None:
            await self._flush()
            if not len(self._inbox) and not self._is_over():
                self._arm()
                await self._inbox.wait()
            return
        await self._handle(item)

    def _arm(self) -> None:
        deadline = self._the_machine.deadline if self._linger_until is None else self._linger_until
        if deadline is None or (self._armed is not None and self._armed <= deadline):
            return
        self._armed = deadline
        self._tools.alarm.set(deadline, self._ring)

    def _ring(self) -> None:
        self._armed = None
        self._inbox.nudge()

    async def _handle(self, item: Item) -> None:
        match item:
            case Request():
                await self._request(item)
            case _Probed():
                await self._probed(item)
            case _Gone():
                self._gone(item.sid)
            case _Chunk():
                self._chunk(item)
            case _Announce():
                await self._announce(item)
            case _Leave():
                await self._leave(item)
            case _Yield():
                await self._yield(item)
            case _:
                self._apply(item)
        await self._flush()

    # --- who may speak (architecture.md §13.2)

    async def _request(self, request: Request) -> None:
        if request.reply.cancelled():
            return
        try:
            allowed = self._may_speak(request)
        except CoachError as error:
            _fail(request.reply, error)
            return
        if allowed:
            await self._answer(request)
        else:
            self._ask_the_bound_socket(request)

    def _may_speak(self, request: Request) -> bool:
        """True: go on. False: the bound socket must be probed first. Raises NotFound for a stranger."""
        origin, action = request.origin, request.action
        token = action.token if isinstance(action, Resume | Greet) else None
        binding = self._binding
        if not self._concerns(Contender(origin.principal.key, origin.principal.user_id, token)):
            raise _unknown()
        if binding is not None and binding.sid == origin.sid:
            return True
        if token is None and origin.principal.user_id is None and self._may_be_there():
            return False
        self._bind(origin.sid)
        return True

    def _concerns(self, contender: Contender) -> bool:
        """Whether the call belongs to this principal, and the token, where one is shown, is the call's."""
        card = self._the_card
        if (contender.principal_key, contender.user_id) != (card.principal_key, card.user_id):
            return False
        return contender.token is None or self._is_token(contender.token)

    def _may_be_there(self) -> bool:
        return self._binding is not None and self._tools.publisher.is_open(self._binding.sid)

    def _ask_the_bound_socket(self, item: Request | _Yield) -> None:
        """Keep `item` until the bound socket has answered a ping or has not."""
        binding = self._binding
        if binding is None:
            return
        self._waiting.append(item)
        if len(self._waiting) == 1:
            self._spawn(self._probe(binding.sid), f"probe for {self.id}")

    async def _probe(self, sid: str) -> None:
        alive = await self._tools.publisher.probe(sid, PROBE_S)
        self._inbox.put(_Probed(sid, alive))

    async def _probed(self, probed: _Probed) -> None:
        waiting, self._waiting = self._waiting, []
        same = self._binding is not None and self._binding.sid == probed.sid
        if same and not probed.alive:
            self._binding = None
        for item in waiting:
            if isinstance(item, _Yield):
                await self._yield(item, probed=True)
            elif same and probed.alive:
                _fail(item.reply, _unknown())
            else:
                await self._request(item)

    async def _yield(self, item: _Yield, *, probed: bool = False) -> None:
        contender = item.contender
        if not self._concerns(contender):
            _settle(item.given, False)
        elif contender.token is None and contender.user_id is None and self._may_be_there():
            if probed:
                _settle(item.given, False)
            else:
                self._ask_the_bound_socket(item)
        else:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await self._leave(_Leave(done))
            _settle(item.given, True)

    def _is_token(self, token: str) -> bool:
        return hmac.compare_digest(digest(token), self._the_card.resume_digest)

    def _bind(self, sid: str) -> None:
        """From now on this socket hears and speaks. A fresh tip that nobody was there for goes to it."""
        if self._binding is not None and self._binding.sid == sid:
            return
        self._binding = Binding(sid, self._seq if not self._outbox else self._outbox[0].seq - 1)
        missed, self._undelivered = self._undelivered, None
        self._apply(ClientCame())
        now = self._tools.clock.now()
        if missed is not None and now - missed.at <= MISSED_TIP_FRESH_S:
            self._binding.sent_seq = missed.seq - 1
            self._outbox.appendleft(missed)

    def _gone(self, sid: str) -> None:
        if self._binding is not None and self._binding.sid == sid:
            self._binding = None
            self._apply(ClientLeft())
            self._save()

    # --- requests

    async def _answer(self, request: Request) -> None:
        try:
            match request.action:
                case Say():
                    self._say(request.action, request.reply)
                case Do():
                    self._do(request.action.event, request.reply)
                case End():
                    self._end(request.reply)
                case Resume():
                    await self._resume(request.origin.sid, request.action, request.reply)
                case Greet():
                    await self._greet_again(request.origin.sid, request.action, request.reply)
        except CoachError as error:
            _fail(request.reply, error)

    def _say(self, said: Say, reply: Reply) -> None:
        machine = self._the_machine
        if not said.is_final:
            machine.receive(SpeechNoticed(), self._tools.clock.now())
            _resolve(reply, {"stored": False})
            return
        known = self._segments.get(said.segment_id) if said.segment_id else None
        if known is not None:
            self._acknowledge(reply, known, duplicate=True)
            return
        now = self._tools.clock.now()
        utterance = Utterance(
            machine.transcript.last_sequence + 1,
            said.speaker,
            said.text,
            said.said_at,
            now,
            said.segment_id,
            said.confidence,
        )
        self._apply(self._as_heard(utterance))
        self._tools.figures.utterances += 1
        if said.segment_id:
            self._segments[said.segment_id] = utterance.sequence
        if self._the_card.stores_text:
            self._tools.store.keep_utterance(self.id, utterance)
        self._acknowledge(reply, utterance.sequence, duplicate=False)

    def _as_heard(self, utterance: Utterance) -> Heard:
        machine = self._the_machine
        before = tuple(u.text for u in machine.transcript.last(2))
        detection = self._tools.ears.detect(utterance, machine.language, before)
        return Heard(utterance, detection, self._tools.ears.facts(machine.facts, utterance, machine.language))

    def _acknowledge(self, reply: Reply, sequence: int, *, duplicate: bool) -> None:
        answer = {"sequence": sequence, "stored": self._the_card.stores_text}
        if duplicate:
            answer["duplicate"] = True
        if not self._the_card.stores_text:
            _resolve(reply, answer)
            return
        stored = self._tools.store.utterance_stored(self.id, sequence)
        stored.add_done_callback(lambda done: _settle_reply(reply, done, answer))

    def _do(self, event: OptionSelected | NextTipWanted | AlternativeWanted | ModeSet, reply: Reply) -> None:
        now = self._tools.clock.now()
        if isinstance(event, NextTipWanted | AlternativeWanted) and not self._bucket.take(now):
            raise RateLimited(
                "Too many tips were asked for in this conversation.",
                retry_after_s=self._bucket.retry_after(now),
            )
        effects = self._apply(event)
        if isinstance(event, OptionSelected | ModeSet):
            _resolve(reply, {})
        else:
            asked = any(isinstance(effect, AskTip) for effect in effects)
            _resolve(reply, {"turn": self._the_machine.turn, "coalesced": not asked})

    def _end(self, reply: Reply) -> None:
        already = self._the_machine.ended
        self._apply(EndWanted())
        if already or self._finishing is None:
            _resolve(reply, {"alreadyEnded": already})
            return
        self._finishing.add_done_callback(lambda _: _resolve(reply, {"alreadyEnded": False}))

    async def _resume(self, sid: str, resume: Resume, reply: Reply) -> None:
        binding = self._binding
        if binding is None:
            return
        events, recovered = await self._missed(resume.last_seq)
        self._undelivered = None
        self._outbox = deque(event for event in self._outbox if not event.ready)
        payload = messages.conversation_resumed(
            self.id,
            self._the_machine,
            recovered=recovered,
            last_seq=self._seq,
            missed=len(events),
            now=self._tools.clock.now(),
        )
        await self._tools.publisher.send(sid, "CONVERSATION_RESUMED", payload)
        for event in events:
            await self._tools.publisher.send(sid, event.name, event.payload)
        binding.sent_seq = events[-1].seq if events else min(resume.last_seq, self._seq)
        _resolve(reply, {"recovered": recovered, "missed": len(events), "lastSeq": self._seq})

    async def _greet_again(self, sid: str, greet: Greet, reply: Reply) -> None:
        if self._the_machine.ended:
            raise Conflict("The conversation of this idempotencyKey has ended.", field="idempotencyKey")
        started = messages.Started(self.id, self._the_card.agent_id, greet.token)
        payload = {**messages.conversation_started(started, self._the_machine), "seq": 1}
        await self._tools.publisher.send(sid, "CONVERSATION_STARTED", payload)
        _resolve(reply, {**payload, "duplicate": True})

    async def _missed(self, last_seq: int) -> tuple[list[Outgoing], bool]:
        if last_seq > self._seq:
            return [], False
        if not self._the_card.stores_text:
            kept = [event for event in self._log if event.seq > last_seq and event.ready]
            complete = last_seq >= self._seq or (bool(self._log) and self._log[0].seq <= last_seq + 1)
            return kept, complete
        rows = await self._tools.store.events_since(self.id, last_seq)
        now = self._tools.clock.now()
        return [Outgoing(seq, name, payload, now, ready=True) for seq, name, payload in rows], True

    # --- the machine and its effects

    def _apply(self, event: CallEvent) -> list[CallEffect]:
        machine = self._the_machine
        before = (machine.state, machine.reaction_due)
        effects = machine.receive(event, self._tools.clock.now())
        for effect in effects:
            self._perform(effect)
        if not effects and (machine.state, machine.reaction_due) != before:
            self._save()
        return effects

    def _perform(self, effect: CallEffect) -> None:
        now = self._tools.clock.now()
        match effect:
            case AskTip():
                self._start_tip(effect.request)
            case DropTip():
                self._stop_tip()
            case ShowTip():
                self._show(effect.shown, now)
            case UpgradeTip():
                self._upgrade(effect.shown, now)
            case KeepSelection():
                payload = messages.option_selected(self.id, effect.recommendation_id, effect.option, now)
                self._tools.store.keep_selection(self.id, effect.recommendation_id, effect.option, now)
                self._emit("OPTION_SELECTED_ACK", payload)
            case TellMode():
                self._emit("MODE_SET", messages.mode_set(self.id, self._the_machine, now))
            case TellTipFailed():
                self._emit("ERROR", messages.tip_failed(self.id, alternative=effect.alternative, now=now))
            case Finish():
                self._finish(effect.status, now)

    def _show(self, shown: ShownTip, now: float) -> None:
        self._tools.on_tip(shown.recommendation_id, self.id)
        self._tools.figures.tip_shown(shown)
        self._draft = (self._the_machine.turn, shown.recommendation_id)
        if self._the_card.stores_text:
            self._tools.store.keep_tip(self.id, self._seq + 1, shown)
        self._emit("AI_TIP", messages.tip(self.id, shown, now))

    def _upgrade(self, shown: ShownTip, now: float) -> None:
        if self._the_card.stores_text:
            self._tools.store.replace_tip(self.id, self._seq + 1, shown)
        self._emit("TIP_UPDATED", messages.tip(self.id, shown, now))

    def _finish(self, status: EndStatus, now: float) -> None:
        machine = self._the_machine
        self._log_to.info("Call ended", status=status.value, tips=len(machine.tips))
        payload = messages.conversation_ended(self.id, machine, status.value, self.meter.public(), now)
        self._tools.figures.ended[status.value] += 1
        self._emit("CONVERSATION_ENDED", payload)
        self._linger_until = now + LINGER_S
        self._finishing = self._spawn(self._end_in_store(status, now), f"end of {self.id}")

    async def _end_in_store(self, status: EndStatus, now: float) -> None:
        await self._tools.store.end(self._snapshot(), status, now)
        self._tools.on_stored_end()
        if not self._the_card.stores_text:
            await self._analyse_unstored(status, now)
        self._inbox.nudge()

    async def _analyse_unstored(self, status: EndStatus, now: float) -> None:
        machine = self._the_machine
        record = CallRecord(
            conversation_id=self.id,
            language=machine.language,
            started_at=machine.started_at,
            ended_at=now,
            status=status.value,
            utterances=tuple(machine.transcript.utterances),
            tips=tuple(machine.tips),
            last_stage=machine.stage,
            facts={},
            store_text=False,
        )
        try:
            await self._tools.analyse_unstored(record)
        except CoachError as error:
            self._log_to.warning("A call without storage could not be analysed", code=error.code)

    # --- tips

    def _start_tip(self, request: TipRequest) -> None:
        self._stop_tip()
        self._draft = None
        self._tip_task = self._spawn(self._make_tip(request), f"tip {request.turn} of {self.id}")

    def _stop_tip(self) -> None:
        if self._tip_task is not None:
            self._tip_task.cancel()
            self._tip_task = None

    async def _make_tip(self, request: TipRequest) -> None:
        """Results go through the inbox like everything else, so that they keep their place in the order."""
        try:
            if self._streams_tips:
                await self._stream_tip(request)
            else:
                tip = await self._tools.coach.tip(request, self.meter)
                self._inbox.put(TipReady(request.turn, str(uuid.uuid4()), tip))
        except Exception as error:
            self._log_to.opt(exception=error).error("No coach could make a tip", turn=request.turn)
            self._inbox.put(TipFailed(request.turn))

    async def _stream_tip(self, request: TipRequest) -> None:
        recommendation_id = str(uuid.uuid4())
        async for piece in self._tools.coach.stream(request, self.meter):
            if isinstance(piece, Tip):
                self._inbox.put(TipReady(request.turn, recommendation_id, piece, draft=True))
            elif isinstance(piece, TipChunk):
                self._inbox.put(_Chunk(request.turn, piece))
        self._inbox.put(TipFailed(request.turn))

    def _chunk(self, chunk: _Chunk) -> None:
        """Pieces are told as they come and not kept: the finished tip follows, and is."""
        if self._draft is None or self._draft[0] != chunk.turn or self._the_machine.turn != chunk.turn:
            return
        now = self._tools.clock.now()
        self._seq += 1
        payload = messages.tip_chunk(self.id, self._draft[1], chunk.chunk, now)
        payload["seq"] = self._seq
        self._outbox.append(Outgoing(self._seq, "TIP_CHUNK", payload, now, ready=True))

    # --- telling the client

    def _emit(self, name: str, payload: dict[str, Any]) -> None:
        """Number an event and tell it once it is on disk. If the disk fails, the client is told all the
        same."""
        self._seq += 1
        payload["seq"] = self._seq
        event = Outgoing(self._seq, name, payload, self._tools.clock.now())
        self._outbox.append(event)
        if not self._the_card.stores_text:
            self._log.append(event)
            event.ready = True
            self._inbox.nudge()
            return
        stored = self._tools.store.keep_event(self._snapshot(), event.seq, name, payload, event.at)
        stored.add_done_callback(lambda done: self._on_disk(event, done))

    def _on_disk(self, event: Outgoing, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            self._log_to.warning("An event was told without being stored", seq=event.seq)
        event.ready = True
        self._inbox.nudge()

    async def _flush(self) -> None:
        while self._outbox and self._outbox[0].ready:
            await self._send(self._outbox.popleft())

    async def _send(self, event: Outgoing) -> None:
        binding = self._binding
        if binding is None:
            if event.name == "AI_TIP":
                self._undelivered = event
            return
        if event.seq <= binding.sent_seq:
            return
        binding.sent_seq = event.seq
        await self._tools.publisher.send(binding.sid, event.name, event.payload)

    async def _announce(self, item: _Announce) -> None:
        payload = messages.analysis_ready(self.id, item.document, self._tools.clock.now())
        self._emit(item.name, payload)
        self._linger_until = None

    # --- keeping

    def _save(self) -> None:
        self._tools.store.keep_state(self._snapshot())

    def _snapshot(self) -> StoredCall:
        machine = self._the_machine
        stores_text = self._the_card.stores_text
        return StoredCall(
            id=self.id,
            state={"machine": dump_machine(machine), "streams_tips": self._streams_tips}
            if stores_text
            else {},
            last_seq=self._seq,
            last_sequence=machine.transcript.last_sequence,
            seen_at=self._tools.clock.now(),
            usage=self.meter.to_dict(),
            stores_text=stores_text,
        )

    async def _restore(self) -> bool:
        """Load the call from the store; False when there is none that this node may go on with."""
        restored = None
        try:
            while restored is None:
                try:
                    restored = await self._tools.store.restore(self.id)
                    break
                except HeldElsewhere as held:
                    if not await self._tools.contend(self.id, held, self._first_contender()):
                        return False
        except StorageFailed as error:
            self._refuse_waiting(error)
            return False
        if restored is None:
            return False
        now = self._tools.clock.now()
        self._card = restored.card
        self._streams_tips = bool(restored.state.get("streams_tips"))
        machine = load_machine(restored.state.get("machine"), restored.started_at, self._tools.timing)
        self.meter.restore(restored.usage)
        # Chunks are numbered but not kept: a number that a client has seen must not be given twice.
        self._seq = restored.last_seq + (LOG_KEPT if self._streams_tips and not restored.ended else 0)
        self._segments = restored.segments
        self._machine = machine
        machine.tips = list(restored.tips)
        for utterance in restored.utterances:
            if utterance.sequence <= restored.last_sequence_in_state:
                machine.transcript.append(utterance)
            elif not machine.ended:
                machine.receive(self._as_heard(utterance), utterance.heard_at)
        if restored.ended:
            machine.state = CallState.ENDED
        machine.wake_up(now)
        self._log_to.info("Call restored", utterances=machine.transcript.last_sequence, seq=self._seq)
        return True

    def _first_contender(self) -> Contender:
        for item in self._inbox:
            if isinstance(item, Request):
                token = item.action.token if isinstance(item.action, Resume | Greet) else None
                return Contender(item.origin.principal.key, item.origin.principal.user_id, token)
        return Contender("", None)

    async def _leave(self, item: _Leave) -> None:
        self._stop_tip()
        try:
            await self._tools.store.release(self._snapshot())
        except StorageFailed:
            self._log_to.warning("A call was left without its state being saved")
        self._left = True
        if not item.done.done():
            item.done.set_result(None)

    # --- ending

    def _is_over(self) -> bool:
        """Ended and stored, and nobody is left to be told anything; or left to another owner."""
        if self._left:
            return True
        if not self._the_machine.ended or len(self._inbox) or self._outbox:
            return False
        stored = self._finishing is None or self._finishing.done()
        lingers = self._binding is not None and self._tools.clock.now() < (self._linger_until or 0.0)
        return stored and not lingers

    def _refuse_the_rest(self) -> None:
        self._refuse_waiting(_unknown())

    def _refuse_waiting(self, error: CoachError) -> None:
        pending: list[Item] = [*self._waiting]
        self._waiting = []
        while (item := self._inbox.take()) is not None:
            pending.append(item)
        for item in pending:
            if isinstance(item, Request):
                _fail(item.reply, error)
            elif isinstance(item, _Yield):
                _settle(item.given, True)
            elif isinstance(item, _Leave) and not item.done.done():
                item.done.set_result(None)

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("the call has no owner yet")
        task: asyncio.Task[None] = self._group.create_task(work, name=name)
        return task

    @property
    def _the_machine(self) -> CallCoach:
        if self._machine is None:
            raise NotFound()
        return self._machine

    @property
    def _the_card(self) -> CallCard:
        if self._card is None:
            raise NotFound()
        return self._card


def digest(token: str) -> str:
    """What is stored of a resume token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def dump_machine(machine: CallCoach) -> dict[str, Any]:
    """The machine without transcript and tips, which have tables of their own."""
    return _machine_state.dump_python(machine, mode="json", exclude={"transcript", "tips"})  # type: ignore[no-any-return]


def load_machine(state: Mapping[str, Any] | None, started_at: float, timing: CallTiming) -> CallCoach:
    """The machine as it was saved; a new one where nothing was, as for calls that keep no text."""
    if not state:
        return CallCoach.begin(started_at, timing)
    return _machine_state.validate_python({"started_at": started_at, **state})


def _unknown() -> NotFound:
    """The same for ids that do not exist and for other people's."""
    return NotFound("There is no such conversation.", field="conversationId")


def _resolve(reply: Reply, answer: dict[str, Any]) -> None:
    if not reply.done():
        reply.set_result(answer)


def _settle(given: asyncio.Future[bool], value: bool) -> None:
    if not given.done():
        given.set_result(value)


def _fail(reply: Reply, error: CoachError) -> None:
    if not reply.done():
        reply.set_exception(error)
        reply.exception()  # a caller that asked for no answer must not make asyncio complain


def _settle_reply(reply: Reply, done: asyncio.Future[None], answer: dict[str, Any]) -> None:
    error = None if done.cancelled() else done.exception()
    if done.cancelled() or error is not None:
        _fail(reply, error if isinstance(error, CoachError) else StorageFailed())
    else:
        _resolve(reply, answer)
