"""One live call and its owner task: everything that happens to the call passes through its inbox.

The owner asks who may speak (architecture.md §13.2), feeds the machine, performs its effects, and answers
each request once what it acknowledges is on disk.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.call import CallCoach, CallTiming
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
    NextTipWanted,
    ShowTip,
    SpeechNoticed,
    TellMode,
    TellTipFailed,
    Tick,
    UpgradeTip,
)
from coach_server.domain.tip import ShownTip
from coach_server.domain.transcript import Utterance
from coach_server.errors import CoachError, Conflict, NotFound, RateLimited, StorageFailed
from coach_server.services import call_memory
from coach_server.services import call_messages as messages
from coach_server.services.analysis import CallRecord
from coach_server.services.call_actions import (
    Action,
    Contender,
    Do,
    End,
    Greet,
    Origin,
    Reply,
    Request,
    Resume,
    Say,
    digest,
    unknown,
)
from coach_server.services.call_outbox import LOG_KEPT, Outbox, Outgoing, Publisher, note_when_stored
from coach_server.services.call_store import CallCard, CallStore, HeldElsewhere, StoredCall
from coach_server.services.call_tips import ChunkReady, TipMaker
from coach_server.services.coach import MeteredCoach
from coach_server.services.costs import Meter
from coach_server.services.figures import Figures
from coach_server.services.limits import TokenBucket
from coach_server.services.live import Alarm, Inbox

PROBE_S = 2.0
LINGER_S = 600.0
# A database that is away must not keep the agent from tips, nor a new call from starting.
TELL_WITHIN_S = 0.5
TIP_BURST = 20
TIPS_PER_S = 30 / 60


class Ears(Protocol):
    """What the rules hear in an utterance, within a millisecond."""

    def detect(self, utterance: Utterance, language: str, before: tuple[str, ...]) -> Detection: ...

    def facts(self, known: Mapping[str, str], utterance: Utterance, language: str) -> Mapping[str, str]: ...

    def forget(self) -> None:
        """Drop what is remembered of texts."""
        ...


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
    figures: Figures
    on_finished: Callable[[LiveCall], None]
    on_tip: Callable[[str, str], None]
    contend: Callable[[str, HeldElsewhere, Contender], Awaitable[bool]]
    analyse_unstored: Callable[[CallRecord], Awaitable[None]]
    on_stored_end: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Probed:
    sid: str
    alive: bool


@dataclass(frozen=True, slots=True)
class _Gone:
    sid: str


@dataclass(frozen=True, slots=True)
class _Announce:
    name: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Leave:
    """Let go of the call without ending it: another instance or the next process goes on with it."""

    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Forget:
    """Drop the call and keep nothing more of it: it is being erased."""

    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Yield:
    """Another instance asks for the call on behalf of `contender`; `given` tells whether it gets it."""

    contender: Contender
    given: asyncio.Future[bool]


Item = Request | CallEvent | ChunkReady | _Probed | _Gone | _Announce | _Leave | _Forget | _Yield


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
        self.meter = meter
        self._tools = tools
        self._card = card
        self._machine = machine
        self._inbox: Inbox[Item] = Inbox()
        self._outbox = Outbox(tools.publisher)
        self._tips = TipMaker(tools.coach, meter, self._inbox.put)
        self._tips.streams = streams_tips
        self._bucket = TokenBucket(TIP_BURST, TIPS_PER_S)
        self._waiting: list[Request | _Yield] = []
        self._segments: dict[str, int] = {}
        self._draft: tuple[int, str] | None = None
        self._armed: float | None = None
        self._linger_until: float | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._left = False
        self._log = logger.bind(conversation=call_id)

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
        self._outbox.bind(sid, self._tools.clock.now())
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

    def forget(self) -> asyncio.Future[None]:
        """Stop without keeping anything more. Resolves when nothing of this call is on its way any more."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put(_Forget(done))
        return done

    def is_of(self, principal_key: str, user_id: str | None) -> bool:
        card = self._card
        return card is not None and (card.principal_key, card.user_id) == (principal_key, user_id)

    async def run(self) -> None:
        """Own the call until it has ended, was left, or turns out not to exist."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                if self._machine is None and not await self._restore():
                    return
                while not self._is_over():
                    await self._step()
                self._tips.stop()
        except* Exception as errors:
            for error in errors.exceptions:
                self._log.opt(exception=error).error("The owner of a call failed")
        finally:
            self._refuse_the_rest(unknown())
            self._tools.on_finished(self)

    # --- the loop

    async def _step(self) -> None:
        deadline = self._the_machine.deadline
        if deadline is not None and deadline <= self._tools.clock.now():
            self._apply(Tick())
        item = self._inbox.take()
        if item is not None:
            await self._handle(item)
            return
        await self._outbox.flush()
        if not len(self._inbox) and not self._is_over():
            self._arm()
            await self._inbox.wait()

    def _arm(self) -> None:
        wake_at = self._the_machine.deadline if self._linger_until is None else self._linger_until
        if wake_at is None or (self._armed is not None and self._armed <= wake_at):
            return
        self._armed = wake_at
        self._tools.alarm.set(wake_at, self._ring)

    def _ring(self) -> None:
        self._armed = None
        self._inbox.nudge()

    async def _handle(self, item: Item) -> None:
        match item:
            case Request():
                await self._request(item)
            case ChunkReady():
                self._chunk(item)
            case _Probed():
                await self._probed(item)
            case _Gone():
                self._gone(item.sid)
            case _Announce():
                self._linger_until = None
                payload = messages.analysis_ready(self.id, item.document, self._tools.clock.now())
                self._emit(item.name, payload)
            case _Leave():
                await self._leave(item)
            case _Forget():
                await self._forgotten(item)
            case _Yield():
                await self._yield(item)
            case _:
                self._apply(item)
        await self._outbox.flush()

    # --- who may speak (architecture.md §13.2)

    async def _request(self, request: Request) -> None:
        if request.reply.cancelled():
            return
        contender, sid = request.contender, request.origin.sid
        if not self._concerns(contender):
            request.refuse(unknown())
        elif sid != self._outbox.sid and self._must_probe(contender):
            self._wait_for_probe(request)
        else:
            self._bind(sid)
            await self._answer(request)

    def _concerns(self, contender: Contender) -> bool:
        """Whether the call belongs to this principal, and the token, where one is shown, is the call's."""
        card = self._the_card
        if (contender.principal_key, contender.user_id) != (card.principal_key, card.user_id):
            return False
        token = contender.token
        return token is None or hmac.compare_digest(digest(token), card.resume_digest)

    def _must_probe(self, contender: Contender) -> bool:
        """A shared key alone may take a call over only from a socket that does not answer."""
        proven = contender.token is not None or contender.user_id is not None
        sid = self._outbox.sid
        return not proven and sid is not None and self._tools.publisher.is_open(sid)

    def _wait_for_probe(self, item: Request | _Yield) -> None:
        self._waiting.append(item)
        if len(self._waiting) == 1 and self._outbox.sid is not None:
            self._spawn(self._probe(self._outbox.sid), f"probe for {self.id}")

    async def _probe(self, sid: str) -> None:
        alive = await self._tools.publisher.probe(sid, PROBE_S)
        self._inbox.put(_Probed(sid, alive))

    async def _probed(self, probed: _Probed) -> None:
        waiting, self._waiting = self._waiting, []
        same = self._outbox.sid == probed.sid
        if same and not probed.alive:
            self._outbox.unbind()
        for item in waiting:
            if isinstance(item, _Yield):
                await self._yield(item, probed=True)
            elif same and probed.alive and item.origin.sid != probed.sid:
                item.refuse(unknown())
            else:
                await self._request(item)

    async def _yield(self, item: _Yield, *, probed: bool = False) -> None:
        if not self._concerns(item.contender):
            _settle(item.given, False)
        elif not self._must_probe(item.contender):
            await self._leave(_Leave(asyncio.get_running_loop().create_future()))
            _settle(item.given, True)
        elif probed:
            _settle(item.given, False)
        else:
            self._wait_for_probe(item)

    def _bind(self, sid: str) -> None:
        if self._outbox.bind(sid, self._tools.clock.now()):
            self._apply(ClientCame())

    def _gone(self, sid: str) -> None:
        if self._outbox.sid == sid:
            self._outbox.unbind()
            self._apply(ClientLeft())
            self._save()

    # --- requests

    async def _answer(self, request: Request) -> None:
        try:
            match request.action:
                case Say():
                    self._say(request, request.action)
                case Do():
                    self._do(request, request.action)
                case End():
                    self._end(request)
                case Resume():
                    await self._resume(request, request.action)
                case Greet():
                    await self._greet_again(request, request.action)
        except CoachError as error:
            request.refuse(error)

    def _say(self, request: Request, said: Say) -> None:
        machine, now = self._the_machine, self._tools.clock.now()
        if not said.is_final:
            machine.receive(SpeechNoticed(), now)
            request.answer({"stored": False})
            return
        known = self._segments.get(said.segment_id) if said.segment_id else None
        if known is not None:
            self._acknowledge(request, {"sequence": known, "duplicate": True})
            return
        sequence = machine.transcript.last_sequence + 1
        utterance = Utterance(
            sequence, said.speaker, said.text, said.said_at, now, said.segment_id, said.confidence
        )
        self._apply(self._as_heard(machine, utterance))
        self._tools.figures.utterances += 1
        if said.segment_id:
            self._segments[said.segment_id] = sequence
        if self._the_card.stores_text:
            self._tools.store.keep_utterance(self.id, utterance)
        self._acknowledge(request, {"sequence": sequence})

    def _as_heard(self, machine: CallCoach, utterance: Utterance) -> Heard:
        ears, language = self._tools.ears, machine.language
        before = tuple(u.text for u in machine.transcript.last(2))
        detection = ears.detect(utterance, language, before)
        return Heard(utterance, detection, ears.facts(machine.facts, utterance, language))

    def _acknowledge(self, request: Request, answer: dict[str, Any]) -> None:
        """Once the utterance is on disk, or at once where nothing is stored."""
        answer["stored"] = self._the_card.stores_text
        if self._the_card.stores_text:
            request.answer_when(self._tools.store.utterance_stored(self.id, answer["sequence"]), answer)
        else:
            request.answer(answer)

    def _do(self, request: Request, action: Do) -> None:
        now, wish = self._tools.clock.now(), action.wish
        asks = isinstance(wish, NextTipWanted | AlternativeWanted)
        if asks and not self._bucket.take(now):
            wait = self._bucket.retry_after(now)
            raise RateLimited("Too many tips were asked for in this conversation.", retry_after_s=wait)
        effects = self._apply(wish)
        if asks:
            asked = any(isinstance(effect, AskTip) for effect in effects)
            request.answer({"turn": self._the_machine.turn, "coalesced": not asked})
        else:
            request.answer({})

    def _end(self, request: Request) -> None:
        already = self._the_machine.ended
        self._apply(EndWanted())
        if already or self._finishing is None:
            request.answer({"alreadyEnded": already})
        else:
            self._finishing.add_done_callback(lambda _: request.answer({"alreadyEnded": False}))

    async def _resume(self, request: Request, resume: Resume) -> None:
        missed, recovered = await self._missed(resume.last_seq)
        payload = messages.conversation_resumed(
            self.id,
            self._the_machine,
            recovered=recovered,
            last_seq=self._outbox.seq,
            missed=len(missed),
            now=self._tools.clock.now(),
        )
        await self._outbox.tell("CONVERSATION_RESUMED", payload)
        await self._outbox.replay(missed, resume.last_seq)
        request.answer({"recovered": recovered, "missed": len(missed), "lastSeq": self._outbox.seq})

    async def _missed(self, last_seq: int) -> tuple[list[Outgoing], bool]:
        if last_seq > self._outbox.seq:
            return [], False
        if not self._the_card.stores_text:
            return self._outbox.remembered(last_seq)
        rows = await self._tools.store.events_since(self.id, last_seq)
        now = self._tools.clock.now()
        return [Outgoing(seq, name, payload, now, ready=True) for seq, name, payload in rows], True

    async def _greet_again(self, request: Request, greet: Greet) -> None:
        if self._the_machine.ended:
            raise Conflict("The conversation of this idempotencyKey has ended.", field="idempotencyKey")
        started = messages.Started(self.id, self._the_card.agent_id, greet.token)
        payload = {**messages.conversation_started(started, self._the_machine), "seq": 1}
        await self._outbox.tell("CONVERSATION_STARTED", payload)
        request.answer({**payload, "duplicate": True})

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
                self._draft = None
                self._tips.start(self._the_group, effect.request, self.id)
            case DropTip():
                self._tips.stop()
            case ShowTip():
                self._show(effect.shown, now)
            case UpgradeTip():
                self._upgrade(effect.shown, now)
            case KeepSelection():
                self._tools.store.keep_selection(self.id, effect.recommendation_id, effect.option, now)
                self._emit(
                    "OPTION_SELECTED_ACK",
                    messages.option_selected(self.id, effect.recommendation_id, effect.option, now),
                )
            case TellMode():
                self._emit("MODE_SET", messages.mode_set(self.id, self._the_machine, now))
            case TellTipFailed():
                self._emit("ERROR", messages.tip_failed(self.id, alternative=effect.alternative, now=now))
            case Finish():
                self._finish(effect.status, now)

    def _show(self, shown: ShownTip, now: float) -> None:
        self._draft = (self._the_machine.turn, shown.recommendation_id)
        self._tools.on_tip(shown.recommendation_id, self.id)
        self._tools.figures.tip_shown(shown)
        if self._the_card.stores_text:
            self._tools.store.keep_tip(self.id, self._outbox.seq + 1, shown)
        self._emit("AI_TIP", messages.tip(self.id, shown, now))

    def _upgrade(self, shown: ShownTip, now: float) -> None:
        if self._the_card.stores_text:
            self._tools.store.replace_tip(self.id, self._outbox.seq + 1, shown)
        self._emit("TIP_UPDATED", messages.tip(self.id, shown, now))

    def _chunk(self, piece: ChunkReady) -> None:
        """Pieces are told as they come and not kept: the finished tip follows, and is."""
        if self._draft is None or not self._draft[0] == piece.turn == self._the_machine.turn:
            return
        now = self._tools.clock.now()
        payload = messages.tip_chunk(self.id, self._draft[1], piece.chunk, now)
        self._outbox.number("TIP_CHUNK", payload, now).ready = True

    def _finish(self, status: EndStatus, now: float) -> None:
        machine = self._the_machine
        self._log.info("Call ended", status=status.value, tips=len(machine.tips))
        self._tools.figures.ended[status.value] += 1
        payload = messages.conversation_ended(self.id, machine, status.value, self.meter.public(), now)
        self._emit("CONVERSATION_ENDED", payload)
        self._linger_until = now + LINGER_S
        self._finishing = self._spawn(self._end_in_store(status, now), f"end of {self.id}")

    async def _end_in_store(self, status: EndStatus, now: float) -> None:
        await self._tools.store.end(self._snapshot(), status, now)
        self._tools.on_stored_end()
        if not self._the_card.stores_text:
            await self._analyse_from_memory(status, now)
        self._inbox.nudge()

    async def _analyse_from_memory(self, status: EndStatus, now: float) -> None:
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
            self._log.warning("A call without storage could not be analysed", code=error.code)

    # --- telling and keeping

    def _emit(self, name: str, payload: dict[str, Any]) -> None:
        """Number an event and tell it once it is on disk, or when the disk takes too long."""
        event = self._outbox.number(name, payload, self._tools.clock.now())
        if self._the_card.stores_text:
            stored = self._tools.store.keep_event(self._snapshot(), event.seq, name, payload, event.at)
            note_when_stored(event, stored, self._inbox.nudge)
            self._tools.alarm.set(event.at + TELL_WITHIN_S, lambda: self._tell_now(event))
        else:
            self._outbox.remember(event)
            event.ready = True
            self._inbox.nudge()

    def _tell_now(self, event: Outgoing) -> None:
        if not event.ready:
            self._log.warning("An event is told before it is stored", seq=event.seq)
            event.ready = True
            self._inbox.nudge()

    def _save(self) -> None:
        self._tools.store.keep_state(self._snapshot())

    def _snapshot(self) -> StoredCall:
        machine, stores_text = self._the_machine, self._the_card.stores_text
        state = {"machine": call_memory.dump(machine), "streams_tips": self._tips.streams}
        return StoredCall(
            id=self.id,
            state=state if stores_text else {},
            last_seq=self._outbox.seq,
            last_sequence=machine.transcript.last_sequence,
            seen_at=self._tools.clock.now(),
            usage=self.meter.to_dict(),
            stores_text=stores_text,
        )

    async def _restore(self) -> bool:
        """Load the call from the store; False when there is none that this instance may go on with."""
        while True:
            try:
                restored = await self._tools.store.restore(self.id)
                break
            except HeldElsewhere as held:
                if not await self._tools.contend(self.id, held, self._first_contender()):
                    return False
            except StorageFailed as error:
                self._refuse_the_rest(error)
                return False
        if restored is None:
            return False
        self._card = restored.card
        self._segments = restored.segments
        self._tips.streams = bool(restored.state.get("streams_tips"))
        self.meter.restore(restored.usage)
        # Chunks are numbered but not kept: a number that a client has seen must not be given twice.
        skipped = LOG_KEPT if self._tips.streams and not restored.ended else 0
        self._outbox.seq = restored.last_seq + skipped
        now = self._tools.clock.now()
        self._machine = call_memory.rebuild(restored, self._tools.timing, self._as_heard, now)
        self._log.info("Call restored", utterances=self._machine.transcript.last_sequence)
        return True

    def _first_contender(self) -> Contender:
        requests = (item for item in self._inbox if isinstance(item, Request))
        first = next(requests, None)
        return first.contender if first else Contender("", None)

    async def _leave(self, item: _Leave) -> None:
        self._tips.stop()
        try:
            await self._tools.store.release(self._snapshot())
        except StorageFailed:
            self._log.warning("A call was left without its state being saved")
        self._left = True
        _done(item.done)

    async def _forgotten(self, item: _Forget) -> None:
        self._tips.stop()
        self._left = True
        machine, now = self._the_machine, self._tools.clock.now()
        if not machine.ended:
            status = EndStatus.ENDED.value
            payload = messages.conversation_ended(self.id, machine, status, self.meter.public(), now)
            self._outbox.number("CONVERSATION_ENDED", payload, now).ready = True
        await self._tools.store.forget(self.id)
        _done(item.done)

    # --- ending

    def _is_over(self) -> bool:
        """Left to another owner; or ended and stored, and nobody is left to be told of the analysis."""
        if self._left:
            return True
        if not self._the_machine.ended or len(self._inbox) or not self._outbox.is_empty:
            return False
        stored = self._finishing is None or self._finishing.done()
        lingers = self._outbox.sid is not None and self._tools.clock.now() < (self._linger_until or 0.0)
        return stored and not lingers

    def _refuse_the_rest(self, error: CoachError) -> None:
        pending: list[Item] = [*self._waiting]
        self._waiting = []
        while (item := self._inbox.take()) is not None:
            pending.append(item)
        for item in pending:
            if isinstance(item, Request):
                item.refuse(error)
            elif isinstance(item, _Yield):
                _settle(item.given, True)
            elif isinstance(item, _Leave | _Forget):
                _done(item.done)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._the_group.create_task(work, name=name)

    @property
    def _the_group(self) -> asyncio.TaskGroup:
        if self._group is None:
            raise RuntimeError("the call has no owner yet")
        return self._group

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


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _settle(given: asyncio.Future[bool], value: bool) -> None:
    if not given.done():
        given.set_result(value)
