"""One talk's voice: two pumps between a client and a model, and who has the floor.

    client ──audio──▶ send_audio ──▶ model            (no machine, no database, no log line per frame)
    client ◀──audio── Outbound, with a short lead ◀── model
    everything that is not audio goes to the owner by `tell`, which must not wait

Turns are taken here and not by the model's voice detection: with `interrupt_response` it would stop at every
nod, and it would answer one. So the model is told to do neither; a finished turn is answered by `respond`,
and speech over the customer's voice first holds what is queued, then is judged
(domain/simulation/bargein.py): a nod lets the held audio go on, an interruption drops it and tells the model
what was really heard.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, assert_never

import orjson
from loguru import logger

from coach_server.clock import Clock
from coach_server.domain.simulation.bargein import BargeIn, Decision, heard_part
from coach_server.domain.simulation.talk import Role
from coach_server.errors import ProviderError
from coach_server.providers.realtime import (
    Audio,
    AudioOut,
    Connection,
    EndRequested,
    Expiring,
    Heard,
    Lost,
    RealtimeEvent,
    Resumed,
    Speaking,
    Transcribed,
    TurnDone,
    UserStarted,
    UserStopped,
    UserWords,
)
from coach_server.services.live import Alarm
from coach_server.services.simulation.client_audio import Allowance, audio_frame, audio_of
from coach_server.services.simulation.outbound import Outbound
from coach_server.services.simulation.playback import Playback
from coach_server.services.simulation.steering import Steering
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

MOST_REMEMBERED = 200
BAD_FRAME = "This message is not valid JSON."
BAD_AUDIO = "audio.data must be base64 of 16-bit mono PCM at 24 kHz, at most 64 kB of it."
TOO_MUCH_AUDIO = "Audio comes faster than it can have been spoken; some of it was left out."
LINE_LOST = "The line to the customer was lost; it is being opened again."


@dataclass(frozen=True, slots=True)
class VoiceLimits:
    """`burst_ms`: audio of a client beyond real time (a buffer sent at once) that is taken."""

    lead_ms: float = 300.0
    queue_ms: float = 60_000.0
    send_s: float = 10.0
    burst_ms: float = 30_000.0


class Voice:
    """The voice of one session. `carry` it for one client after another; the connection is its owner's to
    close. `started_at`: when the session began, on the clock. `nods`: the language's backchannels.
    `tells_words`: whether the client is told here what was said; the owner may want it on disk before."""

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        alarm: Alarm,
        tell: Callable[[VoiceEvent], None],
        *,
        started_at: float,
        steering: Steering,
        nods: Set[str] = frozenset(),
        limits: VoiceLimits | None = None,
        session_id: str = "",
        tells_words: bool = True,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._alarm = alarm
        self._tell = tell
        self._started_at = started_at
        self._steering = steering
        self._limits = limits or VoiceLimits()
        self._log = logger.bind(session=session_id)
        self._tells_words = tells_words
        self._playback = Playback()
        self._out = Outbound(self._playback, lead_ms=self._limits.lead_ms, queue_ms=self._limits.queue_ms)
        self._barge = BargeIn(nods)
        self._wake = asyncio.Event()
        self._armed: float | None = None
        # An answer is asked for and not made yet; another one is wanted after it; answers that were
        # cancelled and whose end the model has not told yet.
        self._answering = False
        self._again = False
        self._stale = 0
        self._unsaid: list[str] = []
        self._failed_before = False
        self._unplayed = False
        self._carrying = asyncio.Lock()
        self._sending_since: float | None = None
        self._allowance = Allowance(self._limits.burst_ms, clock.now())
        self._speech: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._told: OrderedDict[str, str] = OrderedDict()
        self._cuts: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def started(self, at: float) -> None:
        """The session's own clock begins at `at`: times are told from there on."""
        self._started_at = at

    async def carry(self, client: ClientWire) -> CarryEnd:
        """Until the client or the model is gone. Cancel it to end it from outside. A client that comes while
        another is carried waits until that one is let go."""
        async with self._carrying:
            self._out.full = False
            end = await self._pump(client)
            if end is not CarryEnd.MODEL_GONE:
                # What the client had not played when it went, nobody heard.
                await self._interrupt(self._clock.now())
            self._log.info("voice carried", end=end.value, dropped_ms=self._out.dropped_ms)
            return end

    async def _pump(self, client: ClientWire) -> CarryEnd:
        end = CarryEnd.CLIENT_GONE
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(client), name="voice: client")
                group.create_task(self._hear(client), name="voice: model")
                group.create_task(self._conduct(client), name="voice: out")
                group.create_task(self._watch(), name="voice: watch")
        except* _Over as over:
            end = _reason(over)
        return end

    @property
    def playing_s(self) -> float:
        """How long what the customer has said so far still plays."""
        return (self._playback.ahead_ms(self._clock.now()) + self._out.waiting_ms) / 1000

    def send(self, message: Mapping[str, Any]) -> None:
        """A frame to the client, in order with the others; audio waits behind them. Without a client it waits
        for the next one."""
        self._out.put(message)
        self._wake.set()

    def inherit(self, lost: Voice) -> None:
        """Send what the client was still to get from a voice whose line is gone."""
        self._out.inherit(lost._out)
        self._wake.set()

    async def say(self, text: str) -> None:
        """The trainee typed something: it is kept, the customer stops and answers."""
        if not (words := self._steering.clean(text).strip()):
            return
        now = self._clock.now()
        await self._interrupt(now)
        self._keep(Said(Role.TRAINEE, words, "", self._since(now), self._since(now)))
        await self._connection.send_text(words)
        await self.respond()

    async def steer(self, text: str) -> None:
        """A block of `Steering.block` for the customer; it counts from the next answer on."""
        await self._connection.steer(text)

    async def respond(self) -> None:
        """Let the customer speak now, or after what is being made."""
        if self._answering:
            self._again = True
        else:
            await self._ask()

    async def _ask(self) -> None:
        self._answering, self._again = True, False
        await self._connection.respond()

    def _since(self, at: float) -> float:
        return round(max(0.0, at - self._started_at), 3)

    # The client's side.

    async def _listen(self, client: ClientWire) -> None:
        async for frame in client:
            # A frame as most clients write it needs no parser; whatever is odd about it goes the long way.
            if (audio := audio_frame(frame)) is not None:
                await self._take_audio(audio)
            else:
                await self._read_frame(frame)
        raise _Over(CarryEnd.CLIENT_GONE)

    async def _read_frame(self, frame: str) -> None:
        try:
            message = orjson.loads(frame)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self._refuse(BAD_FRAME)
        elif message.get("type") != "audio":
            self._tell(ClientMessage(message))
        elif (audio := audio_of(message.get("data"))) is None:
            self._refuse(BAD_AUDIO, field="data")
        else:
            await self._take_audio(audio)

    async def _take_audio(self, audio: Audio) -> None:
        if self._allowance.take(audio.ms, self._clock.now()):
            await self._connection.send_audio(audio)
        else:
            self._refuse(TOO_MUCH_AUDIO)

    def _refuse(self, sentence: str, **more: str) -> None:
        self.send({"type": "error", "code": "INVALID", "message": sentence, **more})

    # The model's side.

    async def _hear(self, client: ClientWire) -> None:
        async for event in self._connection:
            if type(event) is AudioOut:
                self._play(event)
                # Not by way of `_conduct`: that would be another turn of the loop for each frame.
                await self._flush(client)
                if self._out.has_audio:
                    self._wake.set()  # it has time or is held, and goes when it is due
            else:
                await self._meet(event)
        raise _Over(CarryEnd.MODEL_GONE)

    def _play(self, audio: AudioOut) -> None:
        if audio.item_id in self._cuts:
            return  # made before the model knew that it was interrupted
        if self._stale:
            _remember(self._cuts, audio.item_id, (0, 1))
            self._unsaid.append(audio.item_id)
            return
        self._unplayed = True
        self._out.put_audio(audio.item_id, audio.audio)

    async def _meet(self, event: RealtimeEvent) -> None:
        match event:
            case UserStarted():
                await self._user_started(event.item_id)
            case UserStopped():
                await self._user_stopped(event.item_id)
            case UserWords():
                await self._user_words(event)
            case Heard():
                self._heard(event)
            case TurnDone():
                await self._turn_done(event)
            case Transcribed():
                self._tell(Spoken((event.usage,)))
            case Lost():
                self._lost(event)
            case Resumed():
                self._tell(event)
                if self._answering:
                    await self._ask()
            case EndRequested() | Expiring():
                self._tell(event)
            case Speaking() | AudioOut():
                pass
            case _:
                assert_never(event)

    async def _user_started(self, item_id: str) -> None:
        now = self._clock.now()
        _remember(self._speech, item_id, (now, now))
        await self._act(self._barge.started(item_id, self._has_floor(now), now))

    async def _user_stopped(self, item_id: str) -> None:
        now = self._clock.now()
        start, _ = self._speech.get(item_id, (now, now))
        _remember(self._speech, item_id, (start, now))
        if self._barge.item_id == item_id:
            self._barge.stopped(item_id, now)
            self._wake.set()
        else:
            await self.respond()

    async def _user_words(self, event: UserWords) -> None:
        words = self._steering.clean(event.text)
        decision = self._barge.heard(event.item_id, words)
        await self._act(decision)
        # A nod that nothing is left to be said over was an answer ("Do you smoke?" "Yes").
        is_answer = bool(words) and not (self._out.has_audio or self._answering)
        if decision is Decision.INTERRUPT or (decision is Decision.RESUME and is_answer):
            await self.respond()

    def _heard(self, event: Heard) -> None:
        if not (text := self._steering.clean(event.text).strip()):
            return
        now = self._clock.now()
        if event.role is Role.TRAINEE:
            start, end = self._speech.get(event.item_id, (now, now))
        else:
            start, end = self._playback.span(event.item_id, now)
            if self._stale and not self._playback.made_ms(event.item_id):
                return  # of a cancelled answer, before any of it was played
            text = heard_part(text, *self._cuts.get(event.item_id, (1, 1)))
            _remember(self._told, event.item_id, text)
        if text:
            self._keep(Said(event.role, text, event.item_id, self._since(start), self._since(end)))

    def _keep(self, said: Said) -> None:
        self._tell(said)
        if self._tells_words:
            self.send(said.frame)

    async def _turn_done(self, event: TurnDone) -> None:
        if event.usage:
            self._tell(Spoken(event.usage))
        if self._stale:
            self._stale -= 1
            while self._unsaid:
                await self._connection.truncate(self._unsaid.pop(), 0)
            return
        self._answering = False
        self._wake.set()
        if event.failed is not None:
            await self._turn_failed(event.failed)
        else:
            self._failed_before = False
        if self._again and not self._answering:
            await self._ask()

    async def _turn_failed(self, error: ProviderError) -> None:
        """Once more, then the owner must know."""
        if self._failed_before or not error.retryable:
            self._failed_before = self._again = False
            self._tell(Trouble(error))
        else:
            self._failed_before = True
            await self._ask()

    def _lost(self, event: Lost) -> None:
        self._barge.drop()
        self._stale = 0
        self._unsaid.clear()
        self._release()
        self._tell(event)
        if event.retryable:
            self.send({"type": "error", "code": "VOICE_LOST", "message": LINE_LOST, "retryable": True})

    # Who has the floor.

    def _has_floor(self, now: float) -> bool:
        """Whether the customer speaks, or is about to."""
        return self._answering or self._out.has_audio or self._playback.ahead_ms(now) > 0

    async def _act(self, decision: Decision) -> None:
        match decision:
            case Decision.HOLD:
                self._out.held = True
                self._wake.set()
            case Decision.RESUME:
                self._release()
            case Decision.INTERRUPT:
                await self._interrupt(self._clock.now())
            case Decision.NOTHING:
                pass

    def _release(self) -> None:
        self._out.held = False
        self._wake.set()

    async def _interrupt(self, now: float) -> None:
        """The customer falls silent; the model learns how far it was heard."""
        self._barge.drop()
        unheard = self._playback.unheard(now)
        cuts = {item_id: (heard, self._playback.made_ms(item_id)) for item_id, heard in unheard}
        self._out.drop_audio()
        self._playback.stop(now)
        self._release()
        self._again = False
        if self._answering:
            self._answering = False
            self._stale += 1
            await self._connection.cancel()
        for item_id, (heard_ms, made_ms) in cuts.items():
            _remember(self._cuts, item_id, (heard_ms, made_ms))
            await self._connection.truncate(item_id, heard_ms)
            self.send({"type": "interrupted", "heardMs": heard_ms})
            if item_id in self._told:
                text = heard_part(self._told[item_id], heard_ms, made_ms)
                self._tell(Cut(item_id, text, self._since(now)))

    # What goes out, and when.

    async def _conduct(self, client: ClientWire) -> None:
        """Frames of the owner, decisions and audio whose time has come."""
        while True:
            now = self._clock.now()
            await self._act(self._barge.tick(now))
            await self._flush(client)
            now = self._clock.now()
            self._note_silence(now)
            self._arm(now)
            await self._wake.wait()
            self._wake.clear()

    async def _flush(self, client: ClientWire) -> None:
        """Everything that may go now. Whoever sends already takes along what came meanwhile, so that frames
        do not overtake each other."""
        if self._sending_since is not None:
            return
        try:
            self._sending_since = now = self._clock.now()
            while (frame := self._out.next(now)) is not None:
                await client.send(frame)
        except ConnectionError:
            raise _Over(CarryEnd.CLIENT_GONE) from None
        finally:
            self._sending_since = None

    async def _watch(self) -> None:
        """A client that does not read. Looked at now and then: a timer for each frame costs more than it."""
        limit_s = self._limits.send_s
        while True:
            await self._clock.sleep_until(self._clock.now() + limit_s / 2)
            since = self._sending_since
            if self._out.full or (since is not None and self._clock.now() >= since + limit_s):
                raise _Over(CarryEnd.CLIENT_SLOW)

    def _note_silence(self, now: float) -> None:
        if self._unplayed and not self._has_floor(now):
            self._unplayed = False
            self._tell(PlayedOut())

    def _arm(self, now: float) -> None:
        """Be woken when a decision is due, audio may go, or the last of it has been played."""
        times = [self._barge.deadline, self._out.due()]
        if self._unplayed and not self._answering and not self._out.has_audio:
            times.append(self._playback.until)
        due = min((time for time in times if time is not None), default=None)
        if due is None or (self._armed is not None and now < self._armed <= due):
            return
        self._armed = due
        self._alarm.set(due, self._wake.set)


class _Over(Exception):
    """One side is gone: the other pumps end with it."""

    def __init__(self, end: CarryEnd) -> None:
        super().__init__(end.value)
        self.end = end


def _reason(group: BaseExceptionGroup[_Over]) -> CarryEnd:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first.end if isinstance(first, _Over) else CarryEnd.CLIENT_GONE


def _remember(table: OrderedDict[str, Any], key: str, value: Any) -> None:
    table[key] = value
    if len(table) > MOST_REMEMBERED:
        table.popitem(last=False)
