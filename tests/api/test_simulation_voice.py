"""Whole simulations by voice: a client with a real recording, the server, and OpenAI Realtime's protocol."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from coach_server.app import Replacements
from coach_server.providers.realtime.openai import OpenAIRealtime
from coach_server.testing import ManualClock
from tests.api.simulating import (
    BYTES_PER_S,
    Headset,
    Office,
    headset,
    let_pass,
    on_disk,
    recording,
    socket_url,
)
from tests.fakes import openai_realtime as fakes
from tests.fakes.openai_realtime import Connection, FakeRealtime, Hears, Reply, tone
from tests.serving import Server, serving

VOICE = tone(800)
HELLO = "Good evening, may I ask whether you are over eighteen?"


@dataclass(frozen=True, slots=True)
class Stage:
    server: Server
    clock: ManualClock
    office: Office
    fake: FakeRealtime

    async def pass_until(self, client: Headset, kind: str, count: int = 1) -> None:
        await let_pass(self.clock, self.server, lambda: len(client.told(kind)) >= count)

    async def exchange(self, client: Headset, line: Connection, words: str, answer: Reply) -> None:
        """Something is said and answered, and both are told."""
        before = len(client.words())
        self.fake.replies.append(answer)
        await line.speech(words)
        await let_pass(self.clock, self.server, lambda: len(client.words()) >= before + 2)
        # Played to its end.
        await self.clock.advance(len(answer.pcm) / BYTES_PER_S + 0.5)

    async def heard(self, client: Headset, size: int) -> None:
        await let_pass(self.clock, self.server, lambda: len(client.heard) >= size, step=0.1)


def realtime(fake: FakeRealtime, http: aiohttp.ClientSession, clock: ManualClock) -> OpenAIRealtime:
    return OpenAIRealtime(
        fakes.KEY, http, clock, model=fake.model, transcribe_model="gpt-4o-mini-transcribe", url=fake.url
    )


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    clock = ManualClock()
    async with FakeRealtime() as fake, aiohttp.ClientSession() as http:
        model = realtime(fake, http, clock)
        async with serving(tmp_path, Replacements(clock=clock, realtime=model)) as server:
            yield Stage(server, clock, Office(server), fake)


async def test_a_whole_talk_by_voice_ends_when_the_farewell_was_heard(stage: Stage) -> None:
    """Recording in, transcripts, audio out, the tool's end after its sound, score."""
    stage.fake.hears = [Hears(HELLO, after_ms=3000)]
    stage.fake.replies = [Reply("I am forty-five.", VOICE)]
    started = await stage.office.create()
    async with headset(started["wsUrl"]) as client:
        assert client.told("ready")[0]["provider"] == "openai"
        line = await stage.fake.connection()
        await client.speak(recording())
        await client.wait_for("transcript", 2)
        assert client.words("TRAINEE") == [HELLO] and client.words("AVATAR") == ["I am forty-five."]
        assert bytes(line.audio) == recording(), "not a sample is lost"
        await stage.heard(client, len(VOICE))
        assert bytes(client.heard) == VOICE
        await stage.clock.advance(3)
        await stage.exchange(client, line, "And do you smoke?", Reply("I do.", VOICE))
        farewell = Reply("Good, then I take it. Bye.", tone(2000), end_reason="converted")
        stage.fake.replies.append(farewell)
        await line.speech("Would you like to try it?")
        await client.wait_for("transcript", 6)
        assert not client.told("session_ended"), "his farewell is still to be heard"
        await stage.pass_until(client, "session_ended")
        ended = client.told("session_ended")[0]
        assert (ended["outcome"], ended["endTrigger"]) == ("converted", "end_conversation:converted")
        assert len(client.heard) == 2 * len(VOICE) + len(farewell.pcm)
        assert await client.closed() == 1000
        assert client.told("score")
    assert line.refusals == []
    told = await stage.office.once(started["sessionId"], status="ended", analysisStatus="done")
    assert [one["text"] for one in told["transcript"]] == client.words()
    for one in told["transcript"]:
        assert 0 <= one["startTime"] <= one["endTime"]


async def test_words_that_come_after_the_answer_to_them_are_told_in_their_order(stage: Stage) -> None:
    stage.fake.hears = [Hears(HELLO, after_ms=2000, late=True)]
    stage.fake.replies = [Reply("I am forty-five.", VOICE)]
    async with headset((await stage.office.create())["wsUrl"]) as client:
        line = await stage.fake.connection()
        await client.speak(recording())
        await stage.heard(client, 4800)
        await line.tell_late()
        await client.wait_for("transcript", 2)
        assert [one["speaker"] for one in client.told("transcript")] == ["TRAINEE", "AVATAR"]


async def test_a_nod_does_not_stop_the_customer_and_an_interruption_does(stage: Stage) -> None:
    async with headset((await stage.office.create())["wsUrl"]) as client:
        line = await stage.fake.connection()
        stage.fake.replies = [Reply("A long answer about many things that I like.", tone(3000))]
        await line.speech(HELLO)
        await stage.heard(client, 4800)
        nod = await line.speech_started()
        await line.speech_stopped(nod)
        await line.transcribe(nod, "Uh-huh.")
        await stage.heard(client, len(tone(3000)))
        assert not client.told("interrupted") and line.truncated == {}
        await stage.clock.advance(4)
        stage.fake.replies = [
            Reply("Another long answer that nobody wants to hear.", tone(5000)),
            Reply("Yes?", VOICE),
        ]
        heard = len(client.heard)
        await line.speech("Tell me more about it, please.")
        await stage.heard(client, heard + 24_000)
        await line.speech("Wait, stop, I have another question for you.")
        await stage.pass_until(client, "interrupted")
        cut = client.told("interrupted")[0]["heardMs"]
        assert 0 < cut < 5000 and list(line.truncated.values()) == [cut]
        await let_pass(stage.clock, stage.server, lambda: "Yes?" in client.words())
    assert line.refusals == []


async def test_the_supervisor_ends_a_talk_and_forces_it_when_the_model_does_not_call(stage: Stage) -> None:
    started = await stage.office.create()
    async with headset(started["wsUrl"]) as client:
        line = await stage.fake.connection()
        await stage.exchange(client, line, "We have glo HYPER X2 for you.", Reply("Excuse me?", VOICE))
        await stage.fake.until(lambda: any(role == "system" for role, _ in line.said()))
        await stage.pass_until(client, "session_ended")
        ended = client.told("session_ended")[0]
        assert (ended["outcome"], ended["endTrigger"]) == ("compliance_fail", "supervisor:compliance_fail")
    trail = (await stage.office.once(started["sessionId"], status="ended"))["supervisorLogs"]
    told = next(one for one in trail if one["kind"] == "steer" and one["outcome"])
    forced = next(one for one in trail if one["kind"] == "forced")
    assert 15 <= forced["time"] - told["time"] <= 16


async def test_an_upstream_line_that_drops_is_told_and_opened_again_with_what_was_said(stage: Stage) -> None:
    async with headset((await stage.office.create())["wsUrl"]) as client:
        line = await stage.fake.connection()
        await stage.exchange(client, line, HELLO, Reply("I am forty-five.", VOICE))
        line.drop()
        await client.wait_for("error")
        assert client.told("error")[0]["code"] == "VOICE_LOST" and client.told("error")[0]["retryable"]
        await let_pass(stage.clock, stage.server, lambda: len(stage.fake.connections) > 1)
        again = await stage.fake.connection(1)
        await stage.exchange(client, again, "And do you smoke?", Reply("I do.", VOICE))
        texts = [text for _, text in again.said()]
        assert any(HELLO in text for text in texts) and any("forty-five" in text for text in texts)
        assert client.words() == [HELLO, "I am forty-five.", "And do you smoke?", "I do."]


async def test_with_every_model_gone_the_built_in_customer_goes_on_and_says_so(stage: Stage) -> None:
    started = await stage.office.create()
    async with headset(started["wsUrl"]) as client:
        line = await stage.fake.connection()
        await stage.exchange(client, line, HELLO, Reply("I am forty-five.", VOICE))
        stage.fake.refuse_with = 401
        line.drop()
        taken = lambda: any(one.get("provider") == "offline" for one in client.told("error"))  # noqa: E731
        await let_pass(stage.clock, stage.server, taken)
        assert await client.say("And do you smoke?")
        assert not client.is_closed
    told = await on_disk(stage.clock, stage.office, started["sessionId"], client.words())
    assert told["exchanges"] == 2


async def test_without_any_model_at_the_start_it_is_the_built_in_customer(stage: Stage) -> None:
    stage.fake.refuse_with = 503
    async with headset((await stage.office.create())["wsUrl"]) as client:
        assert client.told("ready")[0]["provider"] == "offline"
        assert await client.say(HELLO)
        await client.speak(bytes(9600))
        error = await client.wait_for("error")
        assert "does not hear" in error["message"]


async def test_a_spent_cap_gives_the_talk_to_the_built_in_customer(tmp_path: Path) -> None:
    clock = ManualClock()
    async with FakeRealtime() as fake, aiohttp.ClientSession() as http:
        model = realtime(fake, http, clock)
        cap = {"COST_CAP_USD_PER_SIMULATION": 0.000001}
        async with serving(tmp_path, Replacements(clock=clock, realtime=model), **cap) as server:
            stage = Stage(server, clock, Office(server), fake)
            async with headset((await stage.office.create())["wsUrl"]) as client:
                line = await fake.connection()
                await stage.exchange(client, line, HELLO, Reply("I am forty-five.", VOICE))
                await client.wait_for("error")
                assert client.told("error")[0]["provider"] == "offline"
                assert await client.say("And do you smoke?")
                assert len(fake.connections) == 1


async def test_a_line_is_renewed_before_its_sixtieth_minute(tmp_path: Path) -> None:
    clock = ManualClock()
    async with FakeRealtime() as fake, aiohttp.ClientSession() as http:
        model = realtime(fake, http, clock)
        limit = {"SIMULATION_MAX_MS": 7_200_000}
        async with serving(tmp_path, Replacements(clock=clock, realtime=model), **limit) as server:
            stage = Stage(server, clock, Office(server), fake)
            async with headset((await stage.office.create())["wsUrl"]) as client:
                line = await fake.connection()
                await stage.exchange(client, line, HELLO, Reply("I am forty-five.", VOICE))
                await let_pass(clock, server, lambda: len(fake.connections) > 1, step=30, most=3600)
                again = await fake.connection(1)
                await fake.until(lambda: line.closed)
                assert not client.told("error"), "nobody notices"
                await stage.exchange(client, again, "And do you smoke?", Reply("I do.", VOICE))


async def test_a_client_that_drops_goes_on_with_the_same_customer(stage: Stage) -> None:
    started = await stage.office.create()
    async with headset(started["wsUrl"]) as client:
        line = await stage.fake.connection()
        await stage.exchange(client, line, HELLO, Reply("I am forty-five.", VOICE))
        ticket = client.told("ready")[0]["ticket"]
    await stage.clock.advance(20)
    async with headset(socket_url(stage.server, started["sessionId"], ticket)) as client:
        await stage.exchange(client, line, "And do you smoke?", Reply("I do.", VOICE))
        assert len(stage.fake.connections) == 1


async def test_audio_faster_than_speech_is_left_out_and_told(stage: Stage) -> None:
    async with headset((await stage.office.create())["wsUrl"]) as client:
        line = await stage.fake.connection()
        second = base64.b64encode(bytes(BYTES_PER_S)).decode()
        for _ in range(40):
            await client.raw(f'{{"type": "audio", "data": "{second}"}}')
        error = await client.wait_for("error", 10)
        assert "faster" in error["message"]
        assert len(line.audio) <= 31 * BYTES_PER_S
