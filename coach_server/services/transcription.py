"""Audio of a client to words for that client: the audio events and `/api/transcribe/*` (live-coach.md §4).

A session belongs to who started it: the principal and, when a socket started it, that socket. Nobody else can
reach it, whatever id they name. One task owns a session's connection to a provider:

    opening --accepted--> streaming --end--> finishing --last words--> closed
       |                     |
       +------ fault --------+--> next provider, with the audio whose words are not final yet --> … --> failed
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass

from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import CoachError, NotFound, ProviderError, Unavailable
from coach_server.providers.stt import SAMPLE_BYTES, Stt, SttEvent, SttKind, SttSpec, SttStream
from coach_server.services import transcription_input as parse
from coach_server.services.transcription_input import (
    ChunkFailed,
    EndFailed,
    InvalidAudioData,
    StartFailed,
    TranscriptionFailed,
)
from coach_server.services.transcription_session import SPEAKERS, Key, Session, TranscriptionResult

MAX_TEXT_CHARS = 8000
REPLAY_S = 10.0
IDLE_S = 300.0
FINISH_S = 5.0
START_WAIT_S = 0.8  # every event is answered within a second

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")

Deliver = Callable[[str, str | None, TranscriptionResult], Awaitable[None]]
Report = Callable[[str, str | None, str, CoachError], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TranscriptionLimits:
    """`per_owner` counts sessions of one principal (a shared key is one), `per_socket` those of a socket.

    `start_wait_s` is how long a start waits for a provider before it is answered all the same.
    """

    per_owner: int = 200
    per_socket: int = 4
    idle_s: float = IDLE_S
    finish_s: float = FINISH_S
    replay_s: float = REPLAY_S
    start_wait_s: float = START_WAIT_S


class Transcriptions:
    """All sessions of this process. `providers` in order of preference; empty means not configured.

    `deliver(owner, sid, result)` gets every result, `report(owner, sid, session_id, error)` a session that
    died by itself. Both are awaited in the order things happened; `sid` is None for a session started over
    REST.
    """

    def __init__(
        self,
        providers: Sequence[Stt],
        clock: Clock,
        deliver: Deliver,
        report: Report,
        *,
        language: str = "en",
        limits: TranscriptionLimits | None = None,
    ) -> None:
        self._providers = tuple(providers)
        self._clock = clock
        self._deliver = deliver
        self._report = report
        self._language = language
        self._limits = limits or TranscriptionLimits()
        self._sessions: dict[Key, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Transcriptions:
        self._own(self._close_idle_ones(), "transcriptions idle watch")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._sessions.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def active(self) -> int:
        return len(self._sessions)

    async def start(
        self,
        owner: str,
        session_id: object,
        *,
        sid: str | None = None,
        sample_rate: object = 16_000,
        encoding: object = "pcm",
        language: object = None,
        channels: object = 1,
        keyterms: object = (),
    ) -> None:
        """Returns once a provider has accepted the stream, or while a slow one is still being asked; then a
        refusal comes by `report`. Audio may be sent at once in either case.

        Channel 0 is the agent, channel 1 the caller. Starting a living session again with the same settings
        is answered as started. Raises StartFailed, Unavailable.
        """
        if not self._providers:
            raise _not_configured()
        spec = parse.spec(sample_rate, encoding, language or self._language, channels, keyterms)
        key = Key(owner, sid, parse.session_id(session_id, StartFailed))
        session = self._sessions.get(key)
        if session is None or session.fault is not None:
            session = self._begin(key, spec)
        elif session.spec != spec:
            raise StartFailed("This session already runs with other settings.", status=409)
        session.starters += 1
        try:
            await asyncio.wait([session.opened], timeout=self._limits.start_wait_s)
        finally:
            session.starters -= 1
        if session.opened.done():
            session.opened.result()

    def audio(
        self,
        owner: str,
        session_id: object,
        chunk: object,
        *,
        sid: str | None = None,
        speaker: object = None,
    ) -> list[TranscriptionResult]:
        """Take one chunk (base64 string or bytes, PCM16LE, at most 64 kB) without waiting for anything.

        `speaker` says whose voice it is where the client knows. The answer holds what a REST session heard
        since the last answer; for a socket session it is empty. Raises InvalidAudioType, InvalidAudioData,
        NotFound, ChunkFailed, TranscriptionFailed.
        """
        pcm = parse.pcm(chunk)
        session = self._find(Key(owner, sid, parse.session_id(session_id, ChunkFailed)))
        if session.fault is not None:
            raise session.fault.with_traceback(None)  # else each refused chunk would lengthen it
        if len(pcm) % (session.spec.channels * SAMPLE_BYTES):
            raise InvalidAudioData("The audio does not end on a whole sample.", field="chunk")
        session.take(pcm, speaker if speaker in SPEAKERS else None, self._clock.now())
        return session.collect()

    async def end(
        self, owner: str, session_id: object, *, sid: str | None = None
    ) -> list[TranscriptionResult]:
        """Close the stream and wait (a few seconds at most) for its last words, which are delivered first.

        The answer holds what a REST session had not got yet. Raises NotFound, EndFailed.
        """
        session = self._find(Key(owner, sid, parse.session_id(session_id, EndFailed)))
        self._forget(session)
        session.end()
        if session.task is not None:
            try:
                await asyncio.wait([session.task], timeout=self._limits.finish_s)
            finally:  # also when the caller gave up waiting: nobody else knows this session any more
                session.task.cancel()
        return session.collect()

    def drop_socket(self, sid: str) -> None:
        """Close every session of a socket that is gone; nobody is left to tell."""
        for session in [s for s in self._sessions.values() if s.key.sid == sid]:
            self._drop(session)

    def drop_owner(self, owner: str) -> None:
        """Close every session of a principal whose right to be here ended."""
        for session in [s for s in self._sessions.values() if s.key.owner == owner]:
            self._drop(session)

    def _find(self, key: Key) -> Session:
        if not self._providers:
            raise _not_configured()
        if (session := self._sessions.get(key)) is None:
            raise NotFound(
                "There is no transcription session with this id that you may use.", field="sessionId"
            )
        return session

    def _begin(self, key: Key, spec: SttSpec) -> Session:
        others = [k for k in self._sessions if k.owner == key.owner and k != key]
        in_socket = sum(k.sid == key.sid for k in others) if key.sid is not None else 0
        if len(others) >= self._limits.per_owner or in_socket >= self._limits.per_socket:
            raise StartFailed("Too many transcription sessions are open.", status=429, retryable=True)
        session = Session(key, spec, self._clock.now(), self._limits.replay_s)
        self._sessions[key] = session
        session.task = self._own(self._run(session), f"transcription {key.session_id}")
        return session

    def _own(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget(self, session: Session) -> None:
        # The same id may belong to a newer session by now.
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]

    def _drop(self, session: Session) -> None:
        self._forget(session)
        if session.task is not None:
            session.task.cancel()

    async def _run(self, session: Session) -> None:
        """The owner of one session: whatever goes wrong below is told once, and ends this session only."""
        log = logger.bind(transcription=session.key.session_id)
        try:
            await self._carry(session)
        except ProviderError as error:
            log.bind(code=error.code).error("transcription stopped: no provider works")
            await self._fail(session, error)
        except Exception:
            log.exception("transcription stopped by a fault of ours")
            await self._fail(session, None)
        finally:
            session.settle_opening(StartFailed("The session was closed before it started.", status=409))

    async def _fail(self, session: Session, cause: ProviderError | None) -> None:
        retryable = cause is not None and cause.retryable
        wait = cause.retry_after_s if cause else None
        told_by_start = session.starters > 0 and session.settle_opening(
            StartFailed(
                "No speech service accepted the stream.", status=502, retryable=retryable, retry_after_s=wait
            )
        )
        session.fault = TranscriptionFailed(retryable=retryable, retry_after_s=wait)
        if told_by_start:
            self._forget(session)
            return
        await self._tell(session, session.fault)

    async def _carry(self, session: Session) -> None:
        """Provider after provider until the session has ended. Raises the last fault when none is left.

        A provider that refused for good is not asked again. One that broke may have another turn after the
        others; each final result shows that it goes well again and resets the count.
        """
        line = deque(self._providers)
        while line:
            provider = line.popleft()
            try:
                await self._stream(session, provider)
                return
            except ProviderError as error:
                session.faults += 1
                may_return = error.retryable and session.faults <= len(self._providers)
                if may_return:
                    line.append(provider)
                log = logger.bind(transcription=session.key.session_id, provider=provider.name)
                log.bind(code=error.code, left=len(line)).warning("speech provider failed")
                if not line:
                    raise

    async def _stream(self, session: Session, provider: Stt) -> None:
        async with provider.open(session.spec) as stream:
            session.settle_opening(None)
            session.all_sent = False
            started_ms, again = session.replay_start_ms, session.unsettled()
            fault: ProviderError | None = None
            try:
                async with asyncio.TaskGroup() as group:
                    sender = group.create_task(_send(session, stream, again), name="transcription sender")
                    await self._receive(session, stream, started_ms)
                    sender.cancel()
            except* ProviderError as faults:
                fault = _first(faults)
            if fault is not None:
                raise fault

    async def _receive(self, session: Session, stream: SttStream, started_ms: float) -> None:
        async for event in stream:
            if event.kind is SttKind.ERROR:
                raise event.error or ProviderError("The speech service reported a fault.", retryable=True)
            await self._pass_on(session, event, started_ms)
        if not session.all_sent:
            raise ProviderError("The speech service closed the stream.", retryable=True)

    async def _pass_on(self, session: Session, event: SttEvent, started_ms: float) -> None:
        text = _UNPRINTABLE.sub(" ", event.text).strip()[:MAX_TEXT_CHARS]
        start_ms, end_ms = started_ms + event.start_ms, started_ms + event.end_ms
        if session.is_old(end_ms, event.channel):
            return
        if event.kind is SttKind.FINAL:
            session.faults = 0
            session.settle(end_ms, event.channel)
        if not text:
            return
        result = TranscriptionResult(
            session_id=session.key.session_id,
            text=text,
            is_final=event.kind is SttKind.FINAL,
            speaker=session.speaker_of(start_ms, end_ms, event.channel),
            confidence=round(event.confidence or 0.0, 4),
            timestamp=self._clock.now(),
        )
        session.keep(result)
        await self._deliver(session.key.owner, session.key.sid, result)

    async def _close_idle_ones(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + self._limits.idle_s / 20)
            stale = self._clock.now() - self._limits.idle_s
            for session in [s for s in self._sessions.values() if s.heard_at <= stale]:
                self._drop(session)
                if session.fault is None:
                    logger.bind(transcription=session.key.session_id).info("idle transcription closed")
                    self._own(self._tell(session, _idle()), "transcription idle notice")

    async def _tell(self, session: Session, error: CoachError) -> None:
        try:
            await self._report(session.key.owner, session.key.sid, session.key.session_id, error)
        except Exception:
            logger.bind(transcription=session.key.session_id).exception("the end could not be told")


def _not_configured() -> Unavailable:
    return Unavailable("Transcription is not configured on this server.")


def _idle() -> TranscriptionFailed:
    return TranscriptionFailed("Transcription was closed: no audio came for a while.", status=408)


async def _send(session: Session, stream: SttStream, again: list[bytes]) -> None:
    for pcm in again:
        await stream.send(pcm)
    while (chunk := await session.next()) is not None:
        await stream.send(chunk)
    session.all_sent = True
    await stream.finish()


def _first(faults: BaseExceptionGroup[ProviderError]) -> ProviderError:
    first = faults.exceptions[0]
    return first if isinstance(first, ProviderError) else _first(first)
