"""One transcription session's own state: audio on its way, what may have to be sent again, what was heard.

No provider and no client here; `transcription` moves the audio and the words.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from coach_server.providers.stt import SAMPLE_BYTES, SttSpec
from coach_server.services.transcription_input import ChunkFailed, StartFailed, TranscriptionFailed

MAX_QUEUED_BYTES = 1_000_000
MAX_RESULTS = 200
MAX_VOICE_CHANGES = 500
SPEAKERS = ("agent", "caller")
UNKNOWN_SPEAKER = "unknown"


@dataclass(frozen=True, slots=True)
class TranscriptionResult:
    """`speaker` is agent, caller or unknown; `confidence` is 0..1, 0 where the vendor tells none; `timestamp`
    is when the words came, in seconds since the epoch."""

    session_id: str
    text: str
    is_final: bool
    speaker: str
    confidence: float
    timestamp: float


@dataclass(frozen=True, slots=True)
class Key:
    owner: str
    sid: str | None
    session_id: str


class Session:
    """Audio on its way, what may have to be sent again, and results nobody has fetched yet."""

    def __init__(self, key: Key, spec: SttSpec, now: float, replay_s: float) -> None:
        self.key = key
        self.spec = spec
        self.heard_at = now
        self.task: asyncio.Task[None] | None = None
        self.fault: TranscriptionFailed | None = None
        self.faults = 0
        self.starters = 0
        self.all_sent = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._results: deque[TranscriptionResult] = deque(maxlen=MAX_RESULTS)
        self._voices = _Voices()
        self._replay = _Replay(spec.bytes_per_second, spec.channels * SAMPLE_BYTES, replay_s)
        self._settled_ms = [0.0] * spec.channels
        self._taken_bytes = 0
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._ended = False
        self._wake = asyncio.Event()

    def settle_opening(self, error: StartFailed | None) -> bool:
        """Answer whoever waits for the start; False when that was done before."""
        if self.opened.done():
            return False
        if error is None:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(error)
            self.opened.exception()  # the starter may be gone; that is no fault to log
        return True

    def take(self, pcm: bytes, speaker: str | None, now: float) -> None:
        if self._queued_bytes + len(pcm) > MAX_QUEUED_BYTES:
            raise ChunkFailed("Audio comes faster than it can be passed on.", status=429, retryable=True)
        self.heard_at = now
        self._voices.note(self._taken_bytes * 1000 / self.spec.bytes_per_second, speaker)
        self._taken_bytes += len(pcm)
        self._queue.append(pcm)
        self._queued_bytes += len(pcm)
        self._wake.set()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """The next chunk, kept for a replay as well; None when the session has ended and all was taken."""
        while not self._queue:
            if self._ended:
                return None
            self._wake.clear()
            await self._wake.wait()
        pcm = self._queue.popleft()
        self._queued_bytes -= len(pcm)
        self._replay.add(pcm)
        return pcm

    @property
    def replay_start_ms(self) -> float:
        return self._replay.start_ms

    def unsettled(self) -> list[bytes]:
        """Audio already sent whose words are not final: what a new provider must hear again."""
        return self._replay.chunks()

    def is_old(self, end_ms: float, channel: int) -> bool:
        """Whether these words were final before: a replay repeats some where the other channel lags."""
        return channel < len(self._settled_ms) and 0 < end_ms <= self._settled_ms[channel]

    def settle(self, end_ms: float, channel: int) -> None:
        """Words up to here are final. With two channels the one that lags behind decides."""
        if channel < len(self._settled_ms):
            self._settled_ms[channel] = max(self._settled_ms[channel], end_ms)
        self._replay.forget_until(min(self._settled_ms))

    def speaker_of(self, start_ms: float, end_ms: float, channel: int) -> str:
        if self.spec.channels > 1:
            return SPEAKERS[min(channel, 1)]
        return self._voices.at((start_ms + end_ms) / 2)

    def keep(self, result: TranscriptionResult) -> None:
        """For a REST session only. A partial nobody fetched in time gives way to what came after it."""
        if self.key.sid is not None:
            return
        if self._results and not self._results[-1].is_final:
            self._results.pop()
        self._results.append(result)

    def collect(self) -> list[TranscriptionResult]:
        results = list(self._results)
        self._results.clear()
        return results


@dataclass(slots=True)
class _Replay:
    """The last seconds of audio sent. `start_ms` is where they begin, from the session's first sample on."""

    bytes_per_second: int
    frame_bytes: int
    keep_s: float
    start_ms: float = 0.0
    _chunks: deque[bytes] = field(default_factory=deque)
    _bytes: int = 0

    def add(self, pcm: bytes) -> None:
        self._chunks.append(pcm)
        self._bytes += len(pcm)
        while self._bytes > self.keep_s * self.bytes_per_second:
            self._drop_first()

    def forget_until(self, at_ms: float) -> None:
        """Drop what came before `at_ms`, to the sample: a word told twice is as wrong as one lost."""
        while self._chunks and self.start_ms + self._ms(self._chunks[0]) <= at_ms:
            self._drop_first()
        if self._chunks and self.start_ms < at_ms:
            self._cut_first(int((at_ms - self.start_ms) * self.bytes_per_second / 1000))

    def chunks(self) -> list[bytes]:
        return list(self._chunks)

    def _drop_first(self) -> None:
        first = self._chunks.popleft()
        self._bytes -= len(first)
        self.start_ms += self._ms(first)

    def _cut_first(self, size: int) -> None:
        size -= size % self.frame_bytes
        first = self._chunks[0]
        self._chunks[0] = first[size:]
        self._bytes -= size
        self.start_ms += self._ms(first[:size])

    def _ms(self, pcm: bytes) -> float:
        return len(pcm) * 1000 / self.bytes_per_second


class _Voices:
    """Whose voice the client said it sent, by place in the audio."""

    def __init__(self) -> None:
        self._changes: deque[tuple[float, str]] = deque([(0.0, UNKNOWN_SPEAKER)], maxlen=MAX_VOICE_CHANGES)

    def note(self, at_ms: float, speaker: str | None) -> None:
        voice = speaker or UNKNOWN_SPEAKER
        if self._changes[-1][1] != voice:
            self._changes.append((at_ms, voice))

    def at(self, at_ms: float) -> str:
        for since, voice in reversed(self._changes):
            if since <= at_ms:
                return voice
        return UNKNOWN_SPEAKER
