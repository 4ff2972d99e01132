"""The customer when no speech model is there: rules and the persona's own lines (domain/simulation/
offline.py), behind the same seam as a vendor's model. He reads words and answers in words; he hears none.

With a voice service he is heard too. As with a vendor's model the words of an answer are told when its audio
is made, so that the transcript knows how long they last; when there is none they are told all the same:

    respond ──▶ AudioOut … AudioOut ──▶ Heard ──▶ (EndRequested) ──▶ TurnDone
                    └─ cancel ──▶ Heard, of what was made ──▶ TurnDone
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from coach_server.domain.simulation.bargein import heard_part
from coach_server.domain.simulation.offline import Cast, Moment, OfflineState, reply
from coach_server.domain.simulation.talk import Outcome, Role, TalkPhase, Utterance
from coach_server.errors import ProviderError
from coach_server.providers.realtime import (
    BYTES_PER_MS,
    Audio,
    AudioOut,
    Connection,
    EndRequested,
    Heard,
    RealtimeEvent,
    RealtimeSpec,
    TurnDone,
)
from coach_server.providers.tts import Tts
from coach_server.services.simulation.offline_voice import OfflineVoice

NAME = "offline"
DEAF = 'The built-in customer reads and does not hear: send words as {"type": "text", "text": …}.'
# How long a letter takes to be said, where audio was not made to its end.
MS_PER_LETTER = 65


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the talk stands when he is to answer. `said`: everything, oldest first."""

    attitude: float
    phase: TalkPhase
    checks: Mapping[str, bool]
    ending: Outcome | None
    said: Sequence[Utterance]


class OfflineModel:
    """One session's built-in customer. `look` tells where the talk stands now. `tts` lets him be heard, in
    `voice` or else in the one the talk is opened with."""

    name = NAME

    def __init__(
        self, cast: Cast, look: Callable[[], Standing], tts: Tts | None = None, voice: str = ""
    ) -> None:
        self._cast = cast
        self._look = look
        self._tts = tts
        self._voice = voice

    async def connect(self, spec: RealtimeSpec) -> Connection:
        voice = None
        if self._tts is not None:
            named = self._voice or spec.voice
            voice = OfflineVoice(self._tts, spec.language, named, session_id=spec.session_id)
        return OfflineConnection(self._cast, self._look, spec, voice)


@dataclass(frozen=True, slots=True)
class _Turn:
    """An answer. `asked`: what it answers; `before`: what he remembered until then."""

    item_id: str
    text: str
    ends: Outcome | None
    asked: Sequence[str]
    before: OfflineState


class OfflineConnection:
    def __init__(
        self, cast: Cast, look: Callable[[], Standing], spec: RealtimeSpec, voice: OfflineVoice | None = None
    ) -> None:
        self._cast = cast
        self._look = look
        self._voice = voice
        # Typed and unanswered; a talk that is taken up may have left some.
        self._asked = [text for role, text in spec.prior[-1:] if role is Role.TRAINEE]
        said = sum(role is Role.AVATAR for role, _ in spec.prior)
        self._state = OfflineState(seed=zlib.crc32(spec.session_id.encode()), turns=said)
        self._said = said
        # One answer's at most, unless they are not read: a voice service bounds its audio.
        self._events: deque[RealtimeEvent] = deque()
        self._news = asyncio.Event()
        self._closed = False
        self._is_deaf_told = False
        self._is_deaf_due = False
        # The answer whose audio is being made, how much of it there is, whether another one is wanted then.
        self._turn: _Turn | None = None
        self._made_bytes = 0
        self._again = False
        self._task: asyncio.Task[None] | None = None

    @property
    def provider(self) -> str:
        return NAME

    async def send_audio(self, audio: Audio) -> None:
        if self._is_deaf_told:
            return
        self._is_deaf_told = True
        if self._turn is None:
            self._put(TurnDone("", failed=ProviderError(DEAF)))
        else:
            self._is_deaf_due = True  # each answer has one end only

    async def send_text(self, text: str) -> None:
        self._asked.append(text)

    async def steer(self, text: str) -> None:
        """He sees where the talk stands; the director's words are for models."""

    async def respond(self) -> None:
        if self._turn is not None:
            self._again = True
            return
        turn = self._turn = self._answer()
        if turn.text and self._voice is not None and self._voice.usable:
            self._task = asyncio.create_task(self._speak(turn, self._voice), name=f"voice of {turn.item_id}")
        else:
            self._tell(turn)

    async def truncate(self, item_id: str, heard_ms: int) -> None:
        """The transcript, which he sees at his next answer, has what was heard of him."""

    async def cancel(self) -> None:
        if (turn := self._turn) is None:
            return
        self._drop_audio()  # before the reader gets a chance to play it
        await self._stop()
        self._cut_short(turn)
        if self._again:
            self._again = False
            await self.respond()

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        await self._stop()
        self._closed = True
        self._news.set()

    def _put(self, event: RealtimeEvent) -> None:
        self._events.append(event)
        self._news.set()

    def _answer(self) -> _Turn:
        standing = self._look()
        asked, self._asked = self._asked, []
        spoken = list(standing.said)
        while spoken and spoken[-1].role is Role.TRAINEE:
            spoken.pop()  # what he answers now is not what was said before
        moment = Moment(
            text=" ".join(asked),
            attitude=standing.attitude,
            phase=standing.phase,
            checks=standing.checks,
            ending=standing.ending,
            history=spoken,
        )
        before, answer = self._state, reply(self._cast, self._state, moment)
        self._state = answer.state
        self._said += 1
        return _Turn(f"offline_{self._said}", answer.text, answer.ends or standing.ending, asked, before)

    async def _speak(self, turn: _Turn, voice: OfflineVoice) -> None:
        async with aclosing(voice.pieces(turn.text)) as pieces:
            async for audio in pieces:
                self._made_bytes += audio.size
                self._put(AudioOut(audio, turn.item_id))
        self._tell(turn)
        if self._again:
            self._again = False
            await self.respond()

    def _tell(self, turn: _Turn) -> None:
        if turn.text:
            self._put(Heard(Role.AVATAR, turn.text, turn.item_id))
        if turn.ends is not None:
            self._put(EndRequested(turn.ends.value))
        failed = ProviderError(DEAF) if self._is_deaf_due else None
        self._is_deaf_due = False
        self._done(turn, failed)

    def _done(self, turn: _Turn, failed: ProviderError | None = None) -> None:
        self._turn, self._made_bytes = None, 0
        self._put(TurnDone(turn.item_id, failed=failed))

    def _cut_short(self, turn: _Turn) -> None:
        """He was interrupted: what was made was said, the rest was not. Of his farewell that is as if he had
        not begun; and when nothing was made, what he was asked is still to be answered."""
        made_ms = self._made_bytes / BYTES_PER_MS
        if not made_ms:
            self._asked[:0] = turn.asked
        if not made_ms or turn.ends is not None:
            self._state = turn.before
        if text := heard_part(turn.text, made_ms, max(made_ms, len(turn.text) * MS_PER_LETTER)):
            self._put(Heard(Role.AVATAR, text, turn.item_id))
        self._done(turn)

    def _drop_audio(self) -> None:
        audio = [event for event in self._events if isinstance(event, AudioOut)]
        self._events = deque(event for event in self._events if not isinstance(event, AudioOut))
        self._made_bytes -= sum(event.audio.size for event in audio)

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
