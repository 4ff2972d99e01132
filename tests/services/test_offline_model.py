"""The built-in customer behind the realtime seam: always read, and heard where there is a voice service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from loguru import logger

from coach_server.domain.simulation.offline import Cast
from coach_server.domain.simulation.talk import Outcome, Role, TalkPhase
from coach_server.providers.realtime import (
    Audio,
    AudioOut,
    Connection,
    EndRequested,
    Heard,
    RealtimeEvent,
    RealtimeSpec,
    TurnDone,
)
from coach_server.providers.tts import TtsLimits
from coach_server.providers.tts.deepgram import DeepgramSpeak
from coach_server.services.live import Alarm
from coach_server.services.simulation.offline_model import DEAF, OfflineModel, Standing
from coach_server.services.simulation.offline_voice import OfflineVoice
from coach_server.services.simulation.personas import Personas
from coach_server.services.simulation.steering import Steering
from coach_server.services.simulation.voice import Voice
from coach_server.services.simulation.voice_events import Cut, PlayedOut, Said
from coach_server.testing import ManualClock
from tests.fakes import deepgram_speak
from tests.fakes.deepgram_speak import FakeDeepgramSpeak
from tests.fakes.openai_realtime import tone
from tests.fakes.speaking import CHUNK
from tests.fakes.waiting import Watched
from tests.services.test_voice import Client, wire_settled

PERSONAS = Personas.load()
SCENARIO = PERSONAS.scenario("fmc_resistant")
KAREL = PERSONAS.persona(SCENARIO.persona_id)
CAST = Cast(KAREL, SCENARIO, PERSONAS.domain(KAREL.domain), "en")
SPEC = RealtimeSpec("", KAREL.voice, "en", "BAT-001")
STANDING = Standing(4.0, TalkPhase.SCEPTICAL, {"age": True, "user": True}, None, ())
PCM = tone(2030)
HELLO = "Hello, how are you?"


class Talk:
    """A connection and what came from it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._events = aiter(connection)

    async def ask(self, text: str = HELLO) -> None:
        await self.connection.send_text(text)
        await self.connection.respond()

    async def turn(self) -> list[RealtimeEvent]:
        """Everything up to the end of the answer."""
        events: list[RealtimeEvent] = []
        async with asyncio.timeout(5):
            while not events or not isinstance(events[-1], TurnDone):
                events.append(await anext(self._events))
        return events

    async def first(self) -> RealtimeEvent:
        async with asyncio.timeout(5):
            return await anext(self._events)


@pytest.fixture
async def dg() -> AsyncIterator[FakeDeepgramSpeak]:
    async with FakeDeepgramSpeak(PCM) as fake:
        yield fake


@pytest.fixture
async def tts(dg: FakeDeepgramSpeak) -> AsyncIterator[DeepgramSpeak]:
    limits = TtsLimits(first_s=0.3, stall_s=0.3)
    async with aiohttp.ClientSession() as http:
        yield DeepgramSpeak(deepgram_speak.KEY, http, ManualClock(), base_url=dg.url, limits=limits)


@asynccontextmanager
async def talking(
    tts: DeepgramSpeak | None = None, spec: RealtimeSpec = SPEC, look: Callable[[], Standing] | None = None
) -> AsyncIterator[Talk]:
    connection = await OfflineModel(CAST, look or (lambda: STANDING), tts).connect(spec)
    try:
        yield Talk(connection)
    finally:
        await connection.close()


@pytest.fixture
async def talk(tts: DeepgramSpeak) -> AsyncIterator[Talk]:
    """One with a voice."""
    async with talking(tts) as made:
        yield made


def kinds(events: list[RealtimeEvent]) -> list[str]:
    """The types of the events, neighbours of one type once."""
    names = [type(event).__name__ for event in events]
    return [name for name, before in zip(names, ["", *names], strict=False) if name != before]


def pcm_of(events: list[RealtimeEvent]) -> bytes:
    return b"".join(event.pcm for event in events if isinstance(event, AudioOut))


def words_of(events: list[RealtimeEvent]) -> str:
    return " ".join(event.text for event in events if isinstance(event, Heard))


# Read


async def test_without_a_voice_service_his_words_are_there_at_once() -> None:
    async with talking() as talk:
        await talk.ask()
        heard, done = await talk.turn()
    assert isinstance(heard, Heard) and heard.role is Role.AVATAR and heard.text
    assert done == TurnDone(heard.item_id)


async def test_he_says_once_that_he_does_not_hear() -> None:
    async with talking() as talk:
        for _ in range(3):
            await talk.connection.send_audio(Audio.of(tone(100)))
        (deaf,) = await talk.turn()
        assert isinstance(deaf, TurnDone) and deaf.failed is not None and deaf.failed.message == DEAF
        await talk.ask()
        assert kinds(await talk.turn()) == ["Heard", "TurnDone"]


async def test_what_waits_is_read_after_he_is_closed_and_then_it_ends() -> None:
    async with talking() as talk:
        await talk.ask()
        await talk.connection.close()
        assert kinds([event async for event in talk.connection]) == ["Heard", "TurnDone"]


async def test_another_reader_goes_on_where_one_stopped() -> None:
    async with talking() as talk:
        reading = asyncio.create_task(talk.turn())
        await wire_settled()
        reading.cancel()
        await asyncio.wait([reading])
        await talk.ask()
        assert kinds(await Talk(talk.connection).turn()) == ["Heard", "TurnDone"]


# Heard


async def test_he_is_heard_in_short_pieces_and_his_words_follow_under_the_same_item(
    talk: Talk, dg: FakeDeepgramSpeak
) -> None:
    await talk.ask()
    events = await talk.turn()
    assert kinds(events) == ["AudioOut", "Heard", "TurnDone"]
    assert pcm_of(events) == PCM
    assert max(event.audio.ms for event in events if isinstance(event, AudioOut)) <= 100
    heard, done = events[-2:]
    assert isinstance(heard, Heard) and isinstance(done, TurnDone) and done.failed is None
    assert {event.item_id for event in events if isinstance(event, AudioOut)} == {heard.item_id}
    (asked,) = dg.asked
    assert asked.body == {"text": heard.text}
    assert asked.query["model"] == "aura-2-orion-en"  # `verse`, the persona's voice, is a man's


async def test_audio_comes_before_all_of_it_is_made(talk: Talk, dg: FakeDeepgramSpeak) -> None:
    dg.script.pause_after = 2 * CHUNK
    await talk.ask()
    assert isinstance(await talk.first(), AudioOut)
    dg.go_on.set()
    assert kinds(await talk.turn()) == ["AudioOut", "Heard", "TurnDone"]


async def test_a_second_answer_waits_for_the_first(talk: Talk, dg: FakeDeepgramSpeak) -> None:
    dg.script.pause_after = CHUNK
    await talk.ask()
    await talk.ask("And your work?")
    await dg.until(lambda: dg.asked)
    dg.go_on.set()
    first, second = await talk.turn(), await talk.turn()
    assert kinds(first) == kinds(second) == ["AudioOut", "Heard", "TurnDone"]
    assert words_of(first) != words_of(second)


async def test_a_language_that_the_service_lacks_is_only_read(
    tts: DeepgramSpeak, dg: FakeDeepgramSpeak
) -> None:
    async with talking(tts, replace(SPEC, language="cs")) as talk:
        await talk.ask()
        assert kinds(await talk.turn()) == ["Heard", "TurnDone"]
    assert not dg.asked


async def test_his_deafness_is_told_with_the_end_of_the_answer_under_way(
    talk: Talk, dg: FakeDeepgramSpeak
) -> None:
    dg.script.pause_after = CHUNK
    await talk.ask()
    await dg.until(lambda: dg.asked)
    await talk.connection.send_audio(Audio.of(tone(100)))
    dg.go_on.set()
    done = (await talk.turn())[-1]
    assert isinstance(done, TurnDone) and done.failed is not None and done.failed.message == DEAF


# Not heard


@pytest.mark.parametrize("fault", ["refused", "garbage", "no headers", "no audio"])
async def test_a_service_that_fails_leaves_the_words(talk: Talk, dg: FakeDeepgramSpeak, fault: str) -> None:
    dg.script.refuse_with = 429 if fault == "refused" else None
    dg.script.body = b"RIFF...." if fault == "garbage" else None
    dg.script.hang = fault == "no headers"
    dg.script.pause_after = 0 if fault == "no audio" else None
    await talk.ask()
    events = await talk.turn()
    assert kinds(events) == ["Heard", "TurnDone"]
    assert events[-1] == TurnDone("offline_1")


async def test_a_service_that_breaks_off_leaves_the_whole_words(talk: Talk, dg: FakeDeepgramSpeak) -> None:
    dg.script.cut_after = 2 * CHUNK
    await talk.ask()
    events = await talk.turn()
    assert kinds(events) == ["AudioOut", "Heard", "TurnDone"]
    assert words_of(events) == dg.asked[0].body["text"]


@pytest.mark.parametrize(("status", "requests"), [(401, 1), (503, 2)])
async def test_a_service_that_keeps_failing_is_left_alone_and_that_is_logged_once(
    talk: Talk, dg: FakeDeepgramSpeak, status: int, requests: int
) -> None:
    dg.script.refuse_with = status
    lines: list[str] = []
    sink = logger.add(lines.append, level="DEBUG", format="{message} {extra}")
    said = []
    try:
        for _ in range(4):
            await talk.ask()
            said.append(words_of(await talk.turn()))
    finally:
        logger.remove(sink)
    assert len(dg.asked) == requests
    assert len(lines) == 1
    assert not any(words in lines[0] for words in [HELLO, *said])


class Broken:
    """A service that is not what its protocol says."""

    name = "broken"

    def __init__(self, first: bytes | None) -> None:
        self.first = first
        self.is_closed = False

    def speaks(self, language: str) -> bool:
        return True

    async def speak(self, text: str, language: str, voice: str = "") -> AsyncGenerator[bytes, None]:
        try:
            if self.first is None:
                raise KeyError("a fault of its own")
            await asyncio.Event().wait()
            yield self.first
        finally:
            self.is_closed = True


@pytest.mark.parametrize("first", [None, b"\0\0"], ids=["raises", "hangs"])
async def test_his_voice_is_given_up_when_the_service_raises_or_hangs(first: bytes | None) -> None:
    broken = Broken(first)
    voice = OfflineVoice(broken, "en", "verse", session_id="BAT-001", first_s=0.05)
    for _ in range(2):
        async with aclosing(voice.pieces(HELLO)) as pieces:
            assert [piece async for piece in pieces] == []
    assert not voice.usable
    assert broken.is_closed


# Interrupted


async def test_cancelled_before_he_is_heard_he_has_said_nothing_and_still_answers(
    talk: Talk, dg: FakeDeepgramSpeak
) -> None:
    dg.script.hang = True
    await talk.ask("How many cigarettes a day?")
    await dg.until(lambda: dg.asked)
    await talk.connection.cancel()
    assert await talk.turn() == [TurnDone("offline_1")]
    await dg.until(lambda: dg.asked[0].gone)
    dg.script.hang = False
    await talk.connection.respond()
    assert words_of(await talk.turn()) == dg.asked[0].body["text"]


async def test_cancelled_in_the_middle_his_words_are_those_that_were_made(
    talk: Talk, dg: FakeDeepgramSpeak
) -> None:
    dg.script.pause_after = 3 * CHUNK
    await talk.ask("How many cigarettes a day?")
    audio = await talk.first()
    assert isinstance(audio, AudioOut)
    await talk.connection.cancel()
    events = await talk.turn()
    assert kinds(events) in (["TurnDone"], ["Heard", "TurnDone"])  # no audio comes after it
    whole = dg.asked[0].body["text"]
    assert len(words_of(events)) < len(whole)
    assert whole.startswith(words_of(events).rstrip("…"))
    await dg.until(lambda: dg.asked[0].gone)


async def test_cancelling_without_an_answer_under_way_does_nothing(talk: Talk) -> None:
    await talk.connection.cancel()
    await talk.ask()
    await talk.turn()
    await talk.connection.cancel()
    await talk.ask()
    assert kinds(await talk.turn()) == ["AudioOut", "Heard", "TurnDone"]


async def test_a_farewell_that_was_cut_off_is_said_again_and_ends_the_talk_once(
    tts: DeepgramSpeak, dg: FakeDeepgramSpeak
) -> None:
    dg.script.pause_after = 2 * CHUNK
    ending = replace(STANDING, ending=Outcome.REJECTED)
    async with talking(tts, look=lambda: ending) as talk:
        await talk.ask("Goodbye.")
        await talk.first()
        await talk.connection.cancel()
        assert "EndRequested" not in kinds(await talk.turn())
        dg.go_on.set()
        await talk.ask("One more thing!")
        events = await talk.turn()
    assert kinds(events) == ["AudioOut", "Heard", "EndRequested", "TurnDone"]
    assert EndRequested("rejected") in events


async def test_closing_him_hangs_up_on_the_service_and_ends_the_events(
    talk: Talk, dg: FakeDeepgramSpeak
) -> None:
    dg.script.hang = True
    await talk.ask()
    await dg.until(lambda: dg.asked)
    await talk.connection.close()
    await dg.until(lambda: dg.asked[0].gone)
    assert [event async for event in talk.connection] == []


# With the voice of a talk


class Stage(Watched):
    """A whole voice between this customer and a client in memory."""

    def __init__(self, connection: Connection, clock: ManualClock, alarm: Alarm) -> None:
        super().__init__()
        self.clock = clock
        self.client = Client()
        self.told: list[Any] = []
        self.voice = Voice(
            connection,
            clock,
            alarm,
            self._tell,
            started_at=clock.now(),
            steering=Steering("0123456789abcdef"),
        )

    def _tell(self, event: object) -> None:
        self.told.append(event)
        self.changed()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    async def has_played(self, ms: int) -> None:
        async with asyncio.timeout(10):
            while self.client.heard_ms() < ms:
                await self.clock.advance(0.05)
                await wire_settled()


@pytest.fixture
async def stage(tts: DeepgramSpeak) -> AsyncIterator[Stage]:
    clock = ManualClock()
    alarm = Alarm(clock)
    connection = await OfflineModel(CAST, lambda: STANDING, tts).connect(SPEC)
    stage = Stage(connection, clock, alarm)
    tasks = [asyncio.create_task(alarm.run()), asyncio.create_task(stage.voice.carry(stage.client))]
    try:
        yield stage
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connection.close()


async def test_the_transcript_knows_how_long_his_words_last(stage: Stage) -> None:
    await stage.clock.advance(5.0)
    await stage.voice.say(HELLO)
    await stage.until(lambda: len(stage.of(Said)) == 2)
    question, answer = stage.of(Said)
    assert (question.role, answer.role) == (Role.TRAINEE, Role.AVATAR)
    assert (answer.start, answer.end) == (5.0, 7.03)
    await stage.has_played(2030)
    assert stage.client.pcm() == PCM
    await stage.clock.advance(1.0)
    assert stage.of(PlayedOut)


async def test_words_typed_over_his_voice_stop_it_and_are_answered(
    stage: Stage, dg: FakeDeepgramSpeak
) -> None:
    await stage.voice.say("How many cigarettes a day?")
    await stage.until(lambda: len(stage.of(Said)) == 2)
    await stage.has_played(1000)
    await stage.voice.say("And the smell?")
    (cut,) = stage.of(Cut)
    whole = stage.of(Said)[1]
    assert cut.item_id == whole.item_id
    assert len(cut.text) < len(whole.text)
    await stage.until(lambda: len(stage.of(Said)) == 4)
    assert len(stage.client.of("interrupted")) == 1
    assert len(dg.asked) == 2


async def test_words_typed_while_his_answer_is_made_leave_nothing_hanging(
    stage: Stage, dg: FakeDeepgramSpeak
) -> None:
    dg.script.hang = True
    for _ in range(3):
        asked = len(dg.asked)
        await stage.voice.say("How many cigarettes a day?")
        await dg.until(lambda asked=asked: len(dg.asked) > asked)
    dg.script.hang = False
    await stage.voice.say("Well?")
    await stage.until(lambda: [said.role for said in stage.of(Said)].count(Role.AVATAR) == 1)
    await stage.has_played(2030)
    assert stage.client.pcm() == PCM
    assert not stage.of(Cut)


async def test_words_typed_while_his_first_audio_plays_cut_what_he_said(
    stage: Stage, dg: FakeDeepgramSpeak
) -> None:
    dg.script.pause_after = 14 * CHUNK  # 1.1 s
    await stage.voice.say("How many cigarettes a day?")
    await stage.has_played(900)
    dg.script.pause_after = None
    await stage.voice.say("And the smell?")
    await stage.until(lambda: [said.role for said in stage.of(Said)].count(Role.AVATAR) == 2)
    first, second = [said for said in stage.of(Said) if said.role is Role.AVATAR]
    assert dg.asked[0].body["text"].startswith(first.text.rstrip("…"))
    assert first.text.endswith("…")
    assert second.text == dg.asked[1].body["text"]
    assert len(stage.client.of("interrupted")) == 1
