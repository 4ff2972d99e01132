"""Transcription sessions: ownership, audio in, words out, and what happens when a speech service fails."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from loguru import logger

from coach_server.errors import CoachError, NotFound, ProviderError, Unavailable
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.stt import SttEvent, SttKind, SttSpec
from coach_server.providers.stt.aws import AwsTranscribe
from coach_server.providers.stt.deepgram import Deepgram
from coach_server.services.transcription import TranscriptionLimits, Transcriptions
from coach_server.services.transcription_input import (
    MAX_CHUNK_BYTES,
    ChunkFailed,
    EndFailed,
    InvalidAudioData,
    InvalidAudioType,
    StartFailed,
    TranscriptionFailed,
)
from coach_server.services.transcription_session import MAX_QUEUED_BYTES, MAX_RESULTS, TranscriptionResult
from coach_server.testing import ManualClock
from tests.fakes import deepgram
from tests.fakes.aws_transcribe import FakeTranscribe, result
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.waiting import Watched

OWNER = "key:default"
HALF_SECOND = 16_000


def pcm(seconds: float, fill: int = 1) -> bytes:
    return bytes([fill]) * int(seconds * 32_000)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class ScriptedStt(Watched):
    """A provider whose streams a test plays by hand."""

    def __init__(self, name: str = "scripted") -> None:
        super().__init__()
        self.name = name
        self.refusals: list[ProviderError] = []
        self.refuse_always: ProviderError | None = None
        self.hold: asyncio.Event | None = None
        self.streams: list[ScriptedStream] = []
        self.openings = 0

    @asynccontextmanager
    async def open(self, spec: SttSpec) -> AsyncIterator[ScriptedStream]:
        self.openings += 1
        self.changed()
        if self.hold is not None:
            await self.hold.wait()
        if self.refuse_always is not None:
            raise self.refuse_always
        if self.refusals:
            raise self.refusals.pop(0)
        stream = ScriptedStream(self, spec)
        self.streams.append(stream)
        self.changed()
        try:
            yield stream
        finally:
            stream.closed = True
            self.changed()

    async def stream(self, number: int = 0) -> ScriptedStream:
        await self.until(lambda: len(self.streams) > number)
        return self.streams[number]


class ScriptedStream:
    def __init__(self, stt: ScriptedStt, spec: SttSpec) -> None:
        self.spec = spec
        self.audio = bytearray()
        self.finished = False
        self.closed = False
        self.last_words: list[SttEvent] = []
        self.answers_finish = True
        self.blocks = False
        self._stt = stt
        self._events: asyncio.Queue[SttEvent | None] = asyncio.Queue()

    async def send(self, pcm: bytes) -> None:
        if self.blocks:
            await asyncio.Event().wait()
        self.audio += pcm
        self._stt.changed()

    async def finish(self) -> None:
        self.finished = True
        self._stt.changed()
        if self.answers_finish:
            for event in self.last_words:
                self._events.put_nowait(event)
            self._events.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[SttEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    def say(self, text: str, start_ms: int = 0, end_ms: int = 500, **more: Any) -> None:
        self._events.put_nowait(SttEvent(SttKind.FINAL, text, start_ms, end_ms, **more))

    def murmur(self, text: str, start_ms: int = 0, end_ms: int = 500) -> None:
        self._events.put_nowait(SttEvent(SttKind.PARTIAL, text, start_ms, end_ms))

    def fail(self, *, retryable: bool = True) -> None:
        error = ProviderError("scripted fault", retryable=retryable)
        self._events.put_nowait(SttEvent(SttKind.ERROR, error=error))

    def hang_up(self) -> None:
        self._events.put_nowait(None)


class Client(Watched):
    """What the wire would have sent out."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[tuple[str, str | None, TranscriptionResult]] = []
        self.errors: list[tuple[str, str | None, str, CoachError]] = []

    async def deliver(self, owner: str, sid: str | None, result: TranscriptionResult) -> None:
        self.results.append((owner, sid, result))
        self.changed()

    async def report(self, owner: str, sid: str | None, session_id: str, error: CoachError) -> None:
        self.errors.append((owner, sid, session_id, error))
        self.changed()

    @property
    def texts(self) -> list[str]:
        return [result.text for _, _, result in self.results]

    @property
    def finals(self) -> list[str]:
        return [result.text for _, _, result in self.results if result.is_final]

    async def heard(self, count: int) -> None:
        await self.until(lambda: len(self.results) >= count)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def stt() -> ScriptedStt:
    return ScriptedStt("first")


@pytest.fixture
def second() -> ScriptedStt:
    return ScriptedStt("second")


@pytest.fixture
async def one(stt: ScriptedStt, clock: ManualClock, client: Client) -> AsyncIterator[Transcriptions]:
    async with Transcriptions([stt], clock, client.deliver, client.report) as service:
        yield service


@pytest.fixture
async def two(
    stt: ScriptedStt, second: ScriptedStt, clock: ManualClock, client: Client
) -> AsyncIterator[Transcriptions]:
    async with Transcriptions([stt, second], clock, client.deliver, client.report) as service:
        yield service


# Words out


async def test_audio_becomes_results_for_the_socket_that_sent_it(
    one: Transcriptions, stt: ScriptedStt, client: Client, clock: ManualClock
) -> None:
    await one.start(OWNER, "s1", sid="sock")
    assert one.audio(OWNER, "s1", b64(pcm(0.5)), sid="sock", speaker="caller") == []
    stream = await stt.stream()
    await stt.until(lambda: stream.audio)
    stream.murmur("Wat")
    stream.say("Wat kost dat?", confidence=0.9)
    await client.heard(2)
    assert client.results == [
        (OWNER, "sock", TranscriptionResult("s1", "Wat", False, "caller", 0.0, clock.now())),
        (OWNER, "sock", TranscriptionResult("s1", "Wat kost dat?", True, "caller", 0.9, clock.now())),
    ]
    assert bytes(stream.audio) == pcm(0.5)


@pytest.mark.parametrize(
    "wrap", [bytes, bytearray, memoryview, b64], ids=["bytes", "bytearray", "view", "b64"]
)
async def test_audio_may_come_as_binary_or_as_base64(
    one: Transcriptions, stt: ScriptedStt, wrap: Callable[[bytes], object]
) -> None:
    await one.start(OWNER, "s1")
    one.audio(OWNER, "s1", wrap(pcm(0.1, fill=7)))
    stream = await stt.stream()
    await stt.until(lambda: bytes(stream.audio) == pcm(0.1, fill=7))


async def test_the_start_settings_reach_the_provider(one: Transcriptions, stt: ScriptedStt) -> None:
    await one.start(OWNER, "s1", sample_rate=8_000, language="nl", channels=2, keyterms=["Zuidas"])
    assert (await stt.stream()).spec == SttSpec("nl", 8_000, "pcm", 2, ("Zuidas",))


async def test_the_configured_language_is_used_where_a_client_names_none(
    stt: ScriptedStt, clock: ManualClock, client: Client
) -> None:
    async with Transcriptions([stt], clock, client.deliver, client.report, language="he") as service:
        await service.start(OWNER, "s1")
        assert (await stt.stream()).spec.language == "he"


async def test_voices_follow_the_audio_and_not_the_moment_a_result_comes(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "s1")
    for speaker in ("agent", "caller", None):
        one.audio(OWNER, "s1", pcm(1.0), speaker=speaker)
    stream = await stt.stream()
    stream.say("eerste", 100, 900)
    stream.say("tweede", 1100, 1900)
    stream.say("derde", 2100, 2900)
    await client.heard(3)
    assert [r.speaker for _, _, r in client.results] == ["agent", "caller", "unknown"]


async def test_with_two_channels_the_channel_tells_the_voice(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "s1", channels=2)
    stream = await stt.stream()
    stream.say("ja", channel=1)
    stream.say("nee", channel=0)
    await client.heard(2)
    assert [r.speaker for _, _, r in client.results] == ["caller", "agent"]


async def test_empty_results_and_control_characters_stay_behind(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "s1")
    stream = await stt.stream()
    stream.say("", 0, 100)
    stream.say("\x00 \ud83d", 100, 200)
    stream.say("hal\x07lo", 200, 300)
    await client.heard(1)
    assert client.texts == ["hal lo"]


async def test_the_end_waits_for_the_last_words(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "s1", sid="sock")
    stream = await stt.stream()
    stream.last_words.append(SttEvent(SttKind.FINAL, "tot ziens", 0, 900))
    one.audio(OWNER, "s1", pcm(1.0), sid="sock")
    await one.end(OWNER, "s1", sid="sock")
    assert client.texts == ["tot ziens"]
    assert bytes(stream.audio) == pcm(1.0)
    assert stream.closed
    assert one.active == 0


async def test_the_end_does_not_wait_for_ever(stt: ScriptedStt, clock: ManualClock, client: Client) -> None:
    limits = TranscriptionLimits(finish_s=0.05)
    async with Transcriptions([stt], clock, client.deliver, client.report, limits=limits) as service:
        await service.start(OWNER, "s1")
        stream = await stt.stream()
        stream.answers_finish = False
        await service.end(OWNER, "s1")
        await stt.until(lambda: stream.closed)
    assert client.errors == []


async def test_an_end_whose_caller_gives_up_still_closes_the_stream(
    one: Transcriptions, stt: ScriptedStt
) -> None:
    await one.start(OWNER, "s1")
    stream = await stt.stream()
    stream.answers_finish = False
    ending = asyncio.create_task(one.end(OWNER, "s1"))
    await stt.until(lambda: stream.finished)
    ending.cancel()
    await stt.until(lambda: stream.closed)
    with pytest.raises(asyncio.CancelledError):
        await ending


async def test_nothing_that_was_said_reaches_the_log(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt, client: Client
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, format="{message} {extra} {exception}")
    try:
        await two.start(OWNER, "s1")
        stream = await stt.stream()
        stream.say("strikt vertrouwelijk")
        await client.heard(1)
        stream.fail()
        (await second.stream()).say("ook vertrouwelijk", 600, 900)
        await client.heard(2)
        await two.end(OWNER, "s1")
    finally:
        logger.remove(sink)
    assert "speech provider failed" in "".join(lines)
    assert "vertrouwelijk" not in "".join(lines)


# REST sessions


async def test_a_rest_session_gets_its_results_with_the_next_answers_and_by_delivery_too(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "r1")
    stream = await stt.stream()
    stream.say("eerste", 0, 100)
    await client.heard(1)
    assert [r.text for r in one.audio(OWNER, "r1", pcm(0.1))] == ["eerste"]
    assert one.audio(OWNER, "r1", pcm(0.1)) == []
    stream.last_words.append(SttEvent(SttKind.FINAL, "laatste", 200, 300))
    assert [r.text for r in await one.end(OWNER, "r1")] == ["laatste"]
    assert [(sid, r.text) for _, sid, r in client.results] == [(None, "eerste"), (None, "laatste")]


async def test_a_rest_session_keeps_one_partial_and_a_bounded_number_of_finals(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "r1")
    stream = await stt.stream()
    for number in range(MAX_RESULTS + 50):
        stream.murmur(f"half {number}", number * 10, number * 10 + 5)
        stream.say(f"heel {number}", number * 10, number * 10 + 9)
    stream.murmur("nog bezig", 10_000, 10_001)
    await client.heard(2 * MAX_RESULTS + 101)
    kept = one.audio(OWNER, "r1", pcm(0.1))
    assert len(kept) == MAX_RESULTS
    assert [r.text for r in kept if not r.is_final] == ["nog bezig"]
    assert kept[-2].text == f"heel {MAX_RESULTS + 49}"


# Who may


async def test_only_the_starter_reaches_a_session_and_others_cannot_tell_it_exists(
    one: Transcriptions, stt: ScriptedStt
) -> None:
    await one.start(OWNER, "s1", sid="sock")
    strangers: list[tuple[str, str | None]] = [("key:other", "sock"), (OWNER, "other"), (OWNER, None)]
    said: set[str] = set()
    for owner, sid in strangers:
        for session_id in ("s1", "unknown"):
            with pytest.raises(NotFound) as caught:
                one.audio(owner, session_id, pcm(0.1), sid=sid)
            said.add(caught.value.message)
            with pytest.raises(NotFound) as caught:
                await one.end(owner, session_id, sid=sid)
            said.add(caught.value.message)
    assert len(said) == 1
    assert one.active == 1
    assert (await stt.stream()).audio == b""


async def test_the_same_id_of_two_owners_is_two_sessions(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start("a", "same", sid="x")
    await one.start("b", "same", sid="y")
    (await stt.stream(1)).say("van b")
    await client.heard(1)
    assert [(owner, sid) for owner, sid, _ in client.results] == [("b", "y")]


async def test_a_socket_that_goes_takes_its_sessions_with_it_and_no_others(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "s1", sid="gone")
    await one.start(OWNER, "s2", sid="stays")
    await one.start(OWNER, "r1")
    one.drop_socket("gone")
    first = await stt.stream()
    await stt.until(lambda: first.closed)
    assert one.active == 2
    assert client.errors == []
    with pytest.raises(NotFound):
        one.audio(OWNER, "s1", pcm(0.1), sid="gone")
    one.audio(OWNER, "s2", pcm(0.1), sid="stays")


async def test_a_socket_that_goes_while_its_session_opens_leaves_nothing_behind(
    one: Transcriptions, stt: ScriptedStt
) -> None:
    stt.hold = asyncio.Event()
    starting = asyncio.create_task(one.start(OWNER, "s1", sid="gone"))
    await stt.until(lambda: stt.openings == 1)
    one.drop_socket("gone")
    with pytest.raises(StartFailed):
        await starting
    assert one.active == 0
    assert stt.streams == []


async def test_an_owner_that_may_no_longer_be_here_loses_every_session(one: Transcriptions) -> None:
    await one.start("a", "s1", sid="x")
    await one.start("a", "r1")
    await one.start("b", "s1", sid="y")
    one.drop_owner("a")
    assert one.active == 1


@pytest.mark.parametrize(
    ("limits", "sids"),
    [
        (TranscriptionLimits(per_owner=2), ["x", "y", "z"]),
        (TranscriptionLimits(per_socket=2), ["x", "x", "x"]),
    ],
    ids=["per owner", "per socket"],
)
async def test_sessions_are_bounded(
    stt: ScriptedStt, clock: ManualClock, client: Client, limits: TranscriptionLimits, sids: list[str]
) -> None:
    async with Transcriptions([stt], clock, client.deliver, client.report, limits=limits) as service:
        await service.start(OWNER, "s0", sid=sids[0])
        await service.start(OWNER, "s1", sid=sids[1])
        with pytest.raises(StartFailed) as caught:
            await service.start(OWNER, "s2", sid=sids[2])
        assert caught.value.status == 429
        await service.start("someone else", "s2", sid="w")
        await service.end(OWNER, "s0", sid=sids[0])
        await service.start(OWNER, "s2", sid=sids[2])


async def test_starting_a_living_session_again_is_answered_as_started(
    one: Transcriptions, stt: ScriptedStt
) -> None:
    await one.start(OWNER, "s1")
    await one.start(OWNER, "s1")
    assert stt.openings == 1
    with pytest.raises(StartFailed) as caught:
        await one.start(OWNER, "s1", sample_rate=8_000)
    assert caught.value.status == 409


# What is refused


async def test_without_a_provider_nothing_starts(clock: ManualClock, client: Client) -> None:
    async with Transcriptions([], clock, client.deliver, client.report) as service:
        with pytest.raises(Unavailable) as caught:
            await service.start(OWNER, "s1")
    assert caught.value.code == "SERVICE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("sample_rate", 7_999),
        ("sample_rate", 48_001),
        ("sample_rate", "16000"),
        ("sample_rate", True),
        ("sample_rate", 16_000.5),
        ("sample_rate", None),
        ("encoding", "mp3"),
        ("encoding", None),
        ("channels", 3),
        ("channels", True),
        ("channels", []),
        ("language", "dutch please"),
        ("language", 5),
        ("keyterms", "word"),
        ("keyterms", [""]),
        ("keyterms", ["x"] * 101),
        ("keyterms", [5]),
    ],
)
async def test_a_wrong_setting_is_named(one: Transcriptions, field: str, wrong: object) -> None:
    settings: dict[str, Any] = {field: wrong}
    with pytest.raises(StartFailed) as caught:
        await one.start(OWNER, "s1", **settings)
    assert caught.value.code == "START_TRANSCRIPTION_ERROR"
    assert caught.value.field == {"sample_rate": "sampleRate"}.get(field, field)
    assert one.active == 0


@pytest.mark.parametrize("wrong", [None, "", 5, {}, [], "a b", "../x", "x" * 129, "a\n"])
async def test_a_session_id_that_is_none_is_refused_with_the_code_of_the_step(
    one: Transcriptions, wrong: object
) -> None:
    with pytest.raises(StartFailed) as start:
        await one.start(OWNER, wrong)
    with pytest.raises(ChunkFailed) as chunk:
        one.audio(OWNER, wrong, pcm(0.1))
    with pytest.raises(EndFailed) as end:
        await one.end(OWNER, wrong)
    codes = [caught.value.code for caught in (start, chunk, end)]
    assert codes == ["START_TRANSCRIPTION_ERROR", "AUDIO_CHUNK_ERROR", "END_TRANSCRIPTION_ERROR"]


@pytest.mark.parametrize("wrong", [None, 5, 1.5, [], {}, ["AAAA"], True])
async def test_audio_of_another_type_is_refused(one: Transcriptions, wrong: object) -> None:
    await one.start(OWNER, "s1")
    with pytest.raises(InvalidAudioType) as caught:
        one.audio(OWNER, "s1", wrong)
    assert caught.value.code == "INVALID_AUDIO_TYPE"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "not base64!",
        "AAA",
        "AAAA=",
        "AA==AA==",
        "AAAA\n",
        " AAAA",
        "é" * 4,
        "\ud83d",
        "data:audio/pcm;base64,AAAA",
        b"",
        b"\x00",
        "AA==",
        b64(bytes(MAX_CHUNK_BYTES + 2)),
        bytes(MAX_CHUNK_BYTES + 2),
        "A" * 1_000_000,
    ],
    ids=lambda value: f"{type(value).__name__} {len(value)} {value[:12]!r}",
)
async def test_audio_that_is_not_valid_is_refused(
    one: Transcriptions, stt: ScriptedStt, wrong: object
) -> None:
    await one.start(OWNER, "s1")
    with pytest.raises(InvalidAudioData) as caught:
        one.audio(OWNER, "s1", wrong)
    assert caught.value.code == "INVALID_AUDIO_DATA"
    assert (await stt.stream()).audio == b""


async def test_the_largest_chunk_is_taken(one: Transcriptions, stt: ScriptedStt) -> None:
    await one.start(OWNER, "s1")
    one.audio(OWNER, "s1", b64(bytes(MAX_CHUNK_BYTES)))
    stream = await stt.stream()
    await stt.until(lambda: len(stream.audio) == MAX_CHUNK_BYTES)


async def test_half_a_stereo_sample_is_refused(one: Transcriptions) -> None:
    await one.start(OWNER, "s1", channels=2)
    with pytest.raises(InvalidAudioData):
        one.audio(OWNER, "s1", bytes(6))


async def test_audio_that_comes_too_fast_is_refused_and_not_kept(
    one: Transcriptions, stt: ScriptedStt
) -> None:
    await one.start(OWNER, "s1")
    (await stt.stream()).blocks = True
    with pytest.raises(ChunkFailed) as caught:
        for _ in range(MAX_QUEUED_BYTES // MAX_CHUNK_BYTES + 2):
            one.audio(OWNER, "s1", bytes(MAX_CHUNK_BYTES))
    assert caught.value.code == "AUDIO_CHUNK_ERROR"
    assert caught.value.retryable


# Faults


async def test_a_start_that_every_provider_refuses_fails_with_its_own_code(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt, client: Client
) -> None:
    stt.refuse_always = second.refuse_always = ProviderError("secret vendor words")
    with pytest.raises(StartFailed) as caught:
        await two.start(OWNER, "s1")
    assert caught.value.code == "START_TRANSCRIPTION_ERROR"
    assert caught.value.status == 502
    assert "secret" not in caught.value.message
    assert (stt.openings, second.openings) == (1, 1)
    assert client.errors == []
    assert two.active == 0


async def test_a_provider_that_refuses_gives_way_to_the_next(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt
) -> None:
    stt.refuse_always = ProviderError("no credit")
    await two.start(OWNER, "s1")
    one_chunk = pcm(0.2, fill=3)
    two.audio(OWNER, "s1", one_chunk)
    stream = await second.stream()
    await second.until(lambda: bytes(stream.audio) == one_chunk)


async def test_a_slow_provider_does_not_hold_up_the_answer_and_its_refusal_is_told_later(
    stt: ScriptedStt, clock: ManualClock, client: Client
) -> None:
    stt.hold = asyncio.Event()
    stt.refuse_always = ProviderError("no")
    limits = TranscriptionLimits(start_wait_s=0.01)
    async with Transcriptions([stt], clock, client.deliver, client.report, limits=limits) as service:
        await service.start(OWNER, "s1", sid="sock")
        stt.hold.set()
        await client.until(lambda: client.errors)
    [(owner, sid, session_id, error)] = client.errors
    assert (owner, sid, session_id, error.code) == (OWNER, "sock", "s1", "TRANSCRIPTION_ERROR")


async def test_audio_sent_while_the_provider_still_opens_is_not_lost(
    one: Transcriptions, stt: ScriptedStt
) -> None:
    stt.hold = asyncio.Event()
    starting = asyncio.create_task(one.start(OWNER, "s1"))
    await stt.until(lambda: stt.openings == 1)
    one.audio(OWNER, "s1", pcm(0.3))
    stt.hold.set()
    await starting
    stream = await stt.stream()
    await stt.until(lambda: bytes(stream.audio) == pcm(0.3))


async def test_a_fault_replays_the_audio_without_final_words_into_the_next_provider(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt, client: Client
) -> None:
    await two.start(OWNER, "s1", sid="sock")
    for number in range(1, 5):
        two.audio(OWNER, "s1", pcm(1.0, fill=number), sid="sock")
    stream = await stt.stream()
    await stt.until(lambda: len(stream.audio) == 4 * 32_000)
    stream.say("de eerste anderhalve seconde", 0, 1500)
    await client.heard(1)
    stream.fail()
    other = await second.stream()
    two.audio(OWNER, "s1", pcm(1.0, fill=5), sid="sock")
    expected = pcm(0.5, 2) + pcm(1.0, 3) + pcm(1.0, 4) + pcm(1.0, 5)
    await second.until(lambda: len(other.audio) == len(expected))
    assert bytes(other.audio) == expected
    other.say("de rest", 0, 3000)
    await client.heard(2)
    assert client.finals == ["de eerste anderhalve seconde", "de rest"]
    assert client.errors == []


async def test_a_replay_holds_ten_seconds_at_most(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt
) -> None:
    await two.start(OWNER, "s1")
    for number in range(14):
        two.audio(OWNER, "s1", pcm(1.0, fill=number))
    stream = await stt.stream()
    await stt.until(lambda: len(stream.audio) == 14 * 32_000)
    stream.fail()
    other = await second.stream()
    await second.until(lambda: len(other.audio) == 10 * 32_000)
    assert other.audio[0] == 4


async def test_voices_keep_their_place_after_a_replay(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt, client: Client
) -> None:
    await two.start(OWNER, "s1")
    two.audio(OWNER, "s1", pcm(2.0), speaker="agent")
    two.audio(OWNER, "s1", pcm(2.0), speaker="caller")
    stream = await stt.stream()
    await stt.until(lambda: len(stream.audio) == 4 * 32_000)
    stream.say("agent", 0, 2000)
    await client.heard(1)
    stream.fail()
    (await second.stream()).say("klant", 100, 900)
    await client.heard(2)
    assert [r.speaker for _, _, r in client.results] == ["agent", "caller"]


async def test_words_a_lagging_channel_makes_us_replay_are_not_told_twice(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt, client: Client
) -> None:
    await two.start(OWNER, "s1", channels=2)
    two.audio(OWNER, "s1", bytes(64_000))
    stream = await stt.stream()
    await stt.until(lambda: len(stream.audio) == 64_000)
    stream.say("agent zei dit", 0, 800, channel=0)
    await client.heard(1)
    stream.fail()
    other = await second.stream()
    other.say("agent zei dit", 0, 800, channel=0)
    other.say("klant ook", 0, 900, channel=1)
    await client.heard(2)
    assert client.texts == ["agent zei dit", "klant ook"]


async def test_a_provider_that_stops_taking_audio_is_left(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt
) -> None:
    await two.start(OWNER, "s1")
    stream = await stt.stream()

    async def refuse(_: bytes) -> None:
        raise ProviderError("closed", retryable=True)

    stream.send = refuse  # type: ignore[method-assign]
    two.audio(OWNER, "s1", pcm(0.5, fill=9))
    other = await second.stream()
    await second.until(lambda: bytes(other.audio) == pcm(0.5, fill=9))
    assert stream.closed


async def test_a_stream_that_ends_before_its_time_is_a_fault(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt
) -> None:
    await two.start(OWNER, "s1")
    (await stt.stream()).hang_up()
    await second.stream()


async def test_a_single_provider_that_broke_gets_another_try(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "s1")
    (await stt.stream(0)).fail()
    (await stt.stream(1)).say("terug")
    await client.heard(1)
    assert client.errors == []


async def test_finals_between_faults_show_that_it_goes_well_again(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "s1")
    for number in range(6):
        stream = await stt.stream(number)
        one.audio(OWNER, "s1", pcm(0.5))
        await stt.until(lambda stream=stream: stream.audio)
        stream.say(f"zin {number}", 0, 500)
        await client.heard(number + 1)
        stream.fail()
    await stt.stream(6)
    assert client.errors == []


async def test_when_no_provider_is_left_the_client_is_told_once_in_a_public_sentence(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt, client: Client
) -> None:
    await two.start(OWNER, "s1", sid="sock")
    second.refuse_always = ProviderError("vendor secrets")
    stt.refuse_always = ProviderError("vendor secrets")
    (await stt.stream()).fail(retryable=True)
    await client.until(lambda: client.errors)
    [(owner, sid, session_id, error)] = client.errors
    assert (owner, sid, session_id, error.code) == (OWNER, "sock", "s1", "TRANSCRIPTION_ERROR")
    assert "secret" not in error.message
    with pytest.raises(TranscriptionFailed):
        two.audio(OWNER, "s1", pcm(0.1), sid="sock")
    assert len(client.errors) == 1


async def test_a_provider_that_breaks_at_once_every_time_is_not_asked_for_ever(
    two: Transcriptions, stt: ScriptedStt, second: ScriptedStt, client: Client
) -> None:
    broken = ProviderError("broken", retryable=True)
    await two.start(OWNER, "s1")
    stt.refuse_always = second.refuse_always = broken
    (await stt.stream()).fail()
    await client.until(lambda: client.errors)
    assert stt.openings + second.openings <= 5


async def test_a_failed_rest_session_still_gives_what_it_heard_and_may_start_again(
    one: Transcriptions, stt: ScriptedStt, client: Client
) -> None:
    await one.start(OWNER, "r1")
    stream = await stt.stream()
    stream.say("gehoord")
    await client.heard(1)
    stream.fail(retryable=False)
    await client.until(lambda: client.errors)
    with pytest.raises(TranscriptionFailed):
        one.audio(OWNER, "r1", pcm(0.1))
    assert [r.text for r in await one.end(OWNER, "r1")] == ["gehoord"]
    await one.start(OWNER, "r1")
    one.audio(OWNER, "r1", pcm(0.1))


async def test_a_fault_of_ours_ends_one_session_and_not_the_others(
    stt: ScriptedStt, clock: ManualClock, client: Client
) -> None:
    async def explode(owner: str, sid: str | None, result: TranscriptionResult) -> None:
        if sid == "bad":
            raise RuntimeError("a bug on the wire")
        await client.deliver(owner, sid, result)

    async with Transcriptions([stt], clock, explode, client.report) as service:
        await service.start(OWNER, "s1", sid="bad")
        await service.start(OWNER, "s2", sid="good")
        (await stt.stream(0)).say("boem")
        await client.until(lambda: client.errors)
        (await stt.stream(1)).say("goed")
        await client.heard(1)
    assert [(sid, error.code) for _, sid, _, error in client.errors] == [("bad", "TRANSCRIPTION_ERROR")]
    assert client.texts == ["goed"]


# Time and the end


async def test_a_session_without_audio_for_five_minutes_is_closed_and_told(
    one: Transcriptions, stt: ScriptedStt, client: Client, clock: ManualClock
) -> None:
    await one.start(OWNER, "s1", sid="sock")
    await clock.advance(200)
    one.audio(OWNER, "s1", pcm(0.1), sid="sock")
    await clock.advance(290)
    assert one.active == 1
    await clock.advance(30)
    await client.until(lambda: client.errors)
    assert one.active == 0
    stream = await stt.stream()
    await stt.until(lambda: stream.closed)
    [(_, sid, session_id, error)] = client.errors
    assert (sid, session_id, error.code) == ("sock", "s1", "TRANSCRIPTION_ERROR")


async def test_closing_the_service_closes_every_stream_and_leaves_no_task(
    stt: ScriptedStt, clock: ManualClock, client: Client
) -> None:
    before = asyncio.all_tasks()
    async with Transcriptions([stt], clock, client.deliver, client.report) as service:
        for number in range(5):
            await service.start(OWNER, f"s{number}")
    assert all(stream.closed for stream in stt.streams)
    assert len(stt.streams) == 5
    assert asyncio.all_tasks() == before


# The real thing: both vendors by their wire protocols


async def test_deepgram_drops_in_mid_sentence_and_transcribe_takes_over(
    clock: ManualClock, client: Client
) -> None:
    async with (
        FakeDeepgram(clock) as dg,
        FakeTranscribe(clock) as aws,
        aiohttp.ClientSession() as http,
        Transcriptions(
            [
                Deepgram(deepgram.KEY, http, clock, base_url=dg.url),
                AwsTranscribe(
                    AwsCredentials(aws.keys.access_key, aws.keys.secret_key),
                    aws.keys.region,
                    http,
                    clock,
                    endpoint=aws.url,
                ),
            ],
            clock,
            client.deliver,
            client.report,
            language="nl",
        ) as service,
    ):
        await service.start(OWNER, "s1", sid="sock")
        service.audio(OWNER, "s1", b64(pcm(1.0, 1)), sid="sock", speaker="agent")
        service.audio(OWNER, "s1", b64(pcm(1.0, 2)), sid="sock", speaker="caller")
        first = await dg.connection()
        await dg.until(lambda: len(first.audio) == 64_000)
        await first.words("Goedemorgen.", start=0.0, duration=1.0, speech_final=True)
        await client.heard(1)
        first.drop()
        other = await aws.connection()
        await aws.until(lambda: len(other.audio) == 32_000)
        assert other.audio == pcm(1.0, 2)
        other.pending.append(result("Wie bent u?", start=0.0, end=1.0, confidence=0.8))
        await service.end(OWNER, "s1", sid="sock")
    said = [(r.text, r.speaker, r.confidence) for _, _, r in client.results if r.is_final]
    assert said == [("Goedemorgen.", "agent", 0.9), ("Wie bent u?", "caller", 0.8)]
    assert client.errors == []
