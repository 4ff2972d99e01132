"""OpenAI Realtime: the real client against a stand-in that speaks today's wire protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from loguru import logger

from coach_server.domain.simulation.talk import Role
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.llm import Usage
from coach_server.providers.realtime import (
    Audio,
    AudioOut,
    Connection,
    EndRequested,
    Expiring,
    Heard,
    Lost,
    RealtimeEvent,
    RealtimeModel,
    RealtimeSpec,
    Resumed,
    Speaking,
    Transcribed,
    TurnDone,
    UserStarted,
    UserStopped,
    UserWords,
)
from coach_server.providers.realtime.fallback import FallbackRealtime
from coach_server.providers.realtime.openai import OpenAIConnection, OpenAIRealtime, Times
from coach_server.testing import ManualClock
from tests.fakes import openai_realtime
from tests.fakes.openai_realtime import FakeRealtime, Reply, tone

SPEC = RealtimeSpec(
    instructions="You are Karel.",
    voice="verse",
    language="nl-BE",
    session_id="BAT-001",
    reasons=("converted", "rejected", "walked_away", "compliance_fail"),
)
MINUTE = 60.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def fake() -> AsyncIterator[FakeRealtime]:
    async with FakeRealtime() as server:
        yield server


def model_at(
    url: str, http: aiohttp.ClientSession, clock: ManualClock, *, key: str = openai_realtime.KEY, **times: Any
) -> OpenAIRealtime:
    return OpenAIRealtime(
        key,
        http,
        clock,
        model="gpt-realtime-2.1-mini",
        transcribe_model="gpt-transcribe",
        url=url,
        times=Times(**times),
    )


@pytest.fixture
def model(fake: FakeRealtime, http: aiohttp.ClientSession, clock: ManualClock) -> OpenAIRealtime:
    return model_at(fake.url, http, clock)


Opener = Callable[..., Awaitable[OpenAIConnection]]


@pytest.fixture
async def open_talk(model: OpenAIRealtime) -> AsyncIterator[Opener]:
    talks: list[OpenAIConnection] = []

    async def opened(spec: RealtimeSpec = SPEC) -> OpenAIConnection:
        talks.append(await model.connect(spec))
        return talks[-1]

    yield opened
    for talk in talks:
        await talk.close()


async def until(talk: Connection, wanted: type[Any] | tuple[type[Any], ...]) -> list[RealtimeEvent]:
    """Events up to the first of this kind."""
    events: list[RealtimeEvent] = []
    async with asyncio.timeout(5):
        async for event in talk:
            events.append(event)
            if isinstance(event, wanted):
                return events
    raise AssertionError(f"it ended after {events}")


async def rest(talk: Connection) -> list[RealtimeEvent]:
    async with asyncio.timeout(5):
        return [event async for event in talk]


async def heard(talk: Connection, count: int) -> list[Heard]:
    found: list[Heard] = []
    while len(found) < count:
        found += [event for event in await until(talk, Heard) if isinstance(event, Heard)]
    return found


def of(events: list[RealtimeEvent], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# What is asked for.


async def test_the_session_is_asked_for_in_the_shape_of_today(fake: FakeRealtime, open_talk: Opener) -> None:
    await open_talk()
    session = (await fake.connection()).updates[0]
    assert session["type"] == "realtime"
    assert session["instructions"] == "You are Karel."
    assert session["output_modalities"] == ["audio"]
    assert session["audio"]["input"]["transcription"] == {"model": "gpt-transcribe", "language": "nl"}
    assert session["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "verse"}
    (tool,) = session["tools"]
    assert tool["name"] == "end_conversation"
    assert tool["parameters"]["properties"]["reason"]["enum"] == list(SPEC.reasons)


async def test_no_header_of_the_beta_is_sent_and_the_model_stands_in_the_address(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    await open_talk()
    request = (await fake.connection())._request
    assert "OpenAI-Beta" not in request.headers
    assert request.query["model"] == "gpt-realtime-2.1-mini"


@pytest.mark.parametrize(("vad", "kind"), [("server", "server_vad"), ("semantic", "semantic_vad")])
async def test_the_model_neither_answers_nor_stops_by_itself(
    fake: FakeRealtime, open_talk: Opener, vad: str, kind: str
) -> None:
    await open_talk(RealtimeSpec("x", "verse", "en", "s", vad=vad))
    turns = (await fake.connection()).updates[0]["audio"]["input"]["turn_detection"]
    assert turns["type"] == kind
    assert turns["create_response"] is False
    assert turns["interrupt_response"] is False


async def test_what_was_said_before_comes_as_items_in_order(fake: FakeRealtime, open_talk: Opener) -> None:
    prior = ((Role.AVATAR, "Dag."), (Role.TRAINEE, "Goedemiddag."))
    talk = await open_talk(RealtimeSpec("x", "verse", "nl", "s", prior=prior))
    await talk.steer("cooler")
    connection = await fake.connection()
    await fake.until(lambda: len(connection.items) == 3)
    assert connection.said() == [("assistant", "Dag."), ("user", "Goedemiddag."), ("system", "cooler")]
    assert connection.refusals == []


async def test_audio_arrives_unchanged_and_an_empty_piece_is_not_sent(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    talk = await open_talk()
    pcm = tone(100)
    await talk.send_audio(Audio.of(pcm[:2400]))
    await talk.send_audio(Audio.of(b""))
    await talk.send_audio(Audio.of(pcm[2400:]))
    connection = await fake.connection()
    await fake.until(lambda: len(connection.audio) == len(pcm))
    assert bytes(connection.audio) == pcm
    assert connection.refusals == []


# What comes back.


@pytest.mark.parametrize("old_names", [False, True], ids=["ga", "beta"])
async def test_an_answer_is_heard_in_both_generations_of_names(
    fake: FakeRealtime, open_talk: Opener, old_names: bool
) -> None:
    fake.old_names = old_names
    pcm = tone(350)
    fake.replies.append(Reply("Dag, met Karel.", pcm))
    talk = await open_talk()
    await talk.respond()
    events = await until(talk, TurnDone)
    assert b"".join(event.pcm for event in of(events, AudioOut)) == pcm
    assert "".join(event.delta for event in of(events, Speaking)) == "Dag, met Karel."
    (words,) = of(events, Heard)
    assert (words.role, words.text) == (Role.AVATAR, "Dag, met Karel.")


@pytest.mark.parametrize("old_names", [False, True], ids=["ga", "beta"])
async def test_the_wish_to_end_is_told_once_with_its_reason(
    fake: FakeRealtime, open_talk: Opener, old_names: bool
) -> None:
    fake.old_names = old_names
    fake.replies.append(Reply("Tot ziens.", tone(100), end_reason="compliance_fail"))
    talk = await open_talk()
    await talk.respond()
    events = await until(talk, TurnDone)
    assert of(events, EndRequested) == [EndRequested("compliance_fail")]
    assert [event.text for event in of(events, Heard)] == ["Tot ziens."]


@pytest.mark.parametrize("arguments", ["{", "[]", '{"reason": "bored"}', "{}", ""])
async def test_a_reason_that_is_none_of_ours_still_ends(
    fake: FakeRealtime, open_talk: Opener, arguments: str
) -> None:
    fake.replies.append(Reply("Dag.", end_reason="converted", arguments=arguments))
    talk = await open_talk()
    await talk.respond()
    assert of(await until(talk, TurnDone), EndRequested) == [EndRequested("")]


async def test_no_result_of_the_tool_is_sent_for_it_would_ask_for_a_second_answer(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    fake.replies.append(Reply("Dag.", end_reason="converted"))
    talk = await open_talk()
    await talk.respond()
    await until(talk, TurnDone)
    assert (await fake.connection()).types() == ["session.update", "response.create"]


async def test_usage_is_counted_for_text_and_audio_apart(fake: FakeRealtime, open_talk: Opener) -> None:
    fake.replies.append(Reply("Dag."))
    talk = await open_talk()
    await talk.respond()
    (done,) = of(await until(talk, TurnDone), TurnDone)
    assert done.usage == (
        Usage("gpt-realtime-2.1-mini", 120, 50, 20),
        Usage("gpt-realtime-2.1-mini/audio", 80, 10, 80),
    )


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"type": "tokens", "input_tokens": 9, "output_tokens": 3}, Usage("gpt-transcribe", 9, 0, 3)),
        ({"type": "duration", "seconds": 2.5}, Usage("gpt-transcribe/ms", 2500)),
    ],
    ids=["tokens", "duration"],
)
async def test_transcribing_is_counted(
    fake: FakeRealtime, open_talk: Opener, usage: dict[str, Any], counted: Usage
) -> None:
    talk = await open_talk()
    connection = await fake.connection()
    await connection.transcribe(await connection.speech(None), "Hallo.", usage)
    assert of(await until(talk, Transcribed), Transcribed) == [Transcribed(counted)]


async def test_a_turn_is_told_with_its_place_in_the_audio(fake: FakeRealtime, open_talk: Opener) -> None:
    talk = await open_talk()
    connection = await fake.connection()
    await talk.send_audio(Audio.of(tone(500)))
    await fake.until(lambda: len(connection.audio) == 24_000)
    item = await connection.speech("Hallo.")
    events = await until(talk, Heard)
    assert events == [
        UserStarted(item, 500),
        UserStopped(item, 500),
        UserWords(item, "Hallo."),
        Heard(Role.TRAINEE, "Hallo.", item, None),
    ]


async def test_the_question_comes_before_the_answer_although_its_words_came_later(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    fake.replies.append(Reply("Dertig jaar.", tone(100)))
    talk = await open_talk()
    connection = await fake.connection()
    item = await connection.speech(None)
    await until(talk, UserStopped)
    await talk.respond()
    await until(talk, TurnDone)
    await connection.transcribe(item, "Hoe oud bent u?")
    found = await heard(talk, 2)
    assert [event.text for event in found] == ["Hoe oud bent u?", "Dertig jaar."]
    assert found[1].previous_item_id == item


async def test_words_told_twice_are_heard_once(fake: FakeRealtime, open_talk: Opener) -> None:
    talk = await open_talk()
    connection = await fake.connection()
    item = await connection.speech("Eerst.")
    await connection.transcribe(item, "Eerst.")
    await connection.speech("Dan.")
    assert [event.text for event in await heard(talk, 2)] == ["Eerst.", "Dan."]


@pytest.mark.parametrize("how", ["failed", "empty"])
async def test_a_turn_without_words_holds_up_nobody(fake: FakeRealtime, open_talk: Opener, how: str) -> None:
    fake.replies.append(Reply("Wat zegt u?"))
    talk = await open_talk()
    connection = await fake.connection()
    item = await connection.speech(None)
    await talk.respond()
    await until(talk, TurnDone)
    if how == "failed":
        await connection.transcription_failed(item)
    else:
        await connection.transcribe(item, "  ")
    events = await until(talk, Heard)
    assert of(events, UserWords) == [UserWords(item, "")]
    assert [event.text for event in of(events, Heard)] == ["Wat zegt u?"]


async def test_words_that_never_come_hold_up_the_others_for_four_seconds(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    fake.replies.append(Reply("Wat zegt u?"))
    talk = await open_talk()
    connection = await fake.connection()
    item = await connection.speech(None)
    await talk.respond()
    await until(talk, TurnDone)
    await clock.advance(4.0)
    assert [event.text for event in await heard(talk, 1)] == ["Wat zegt u?"]
    await connection.transcribe(item, "Te laat, maar niet weg.")
    assert [event.text for event in await heard(talk, 1)] == ["Te laat, maar niet weg."]


# Interrupting.


async def test_a_cancelled_answer_keeps_the_words_that_were_made(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    fake.replies.append(Reply("een twee drie vier", tone(400), pause_after=2))
    talk = await open_talk()
    await talk.respond()
    events = await until(talk, AudioOut) + await until(talk, AudioOut)
    await talk.cancel()
    item = of(events, AudioOut)[0].item_id
    await talk.truncate(item, 150)
    events = await until(talk, TurnDone)
    assert [event.text for event in of(events, Heard)] == ["een twee"]
    connection = await fake.connection()
    await fake.until(lambda: connection.truncated)
    assert connection.truncated == {item: 150}
    assert connection.refusals == []


async def test_nothing_is_cancelled_when_nothing_is_being_made(fake: FakeRealtime, open_talk: Opener) -> None:
    talk = await open_talk()
    await talk.cancel()
    await talk.send_text("Hallo")
    connection = await fake.connection()
    await fake.until(lambda: connection.of("conversation.item.create"))
    assert connection.of("response.cancel") == []


async def test_more_than_was_made_cannot_have_been_heard(fake: FakeRealtime, open_talk: Opener) -> None:
    fake.replies.append(Reply("Dag.", tone(200)))
    talk = await open_talk()
    await talk.respond()
    item = of(await until(talk, TurnDone), AudioOut)[0].item_id
    await talk.truncate(item, 5000)
    connection = await fake.connection()
    await fake.until(lambda: connection.truncated)
    assert connection.truncated == {item: 200}


async def test_a_second_answer_is_asked_for_when_the_first_is_made(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    fake.replies += [Reply("Een.", tone(200), pause_after=1), Reply("Twee.")]
    talk = await open_talk()
    await talk.respond()
    await until(talk, AudioOut)
    await talk.respond()
    connection = await fake.connection()
    connection.go_on()
    assert [event.text for event in await heard(talk, 2)] == ["Een.", "Twee."]
    assert connection.refusals == []


async def test_an_answer_refused_because_another_is_under_way_is_asked_for_again(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    talk = await open_talk()
    connection = await fake.connection()
    connection.responding = True  # the vendor began one that it has not told yet
    await talk.respond()
    await fake.until(lambda: connection.refusals)
    fake.replies.append(Reply("Nu wel."))
    connection.reply(Reply("Eerst dit."))
    assert [event.text for event in await heard(talk, 2)] == ["Eerst dit.", "Nu wel."]


# Faults.


async def test_an_answer_that_fails_is_told_in_our_words(fake: FakeRealtime, open_talk: Opener) -> None:
    fake.replies += [Reply(error="rate_limit_exceeded"), Reply(error="insufficient_quota")]
    talk = await open_talk()
    await talk.respond()
    (first,) = of(await until(talk, TurnDone), TurnDone)
    await talk.respond()
    (second,) = of(await until(talk, TurnDone), TurnDone)
    assert (first.failed.retryable, second.failed.retryable) == (True, False)
    assert "vendor" not in first.failed.message + second.failed.message


async def test_an_answer_that_is_refused_outright_is_not_waited_for(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    talk = await open_talk()
    connection = await fake.connection()
    await talk.respond()
    await fake.until(lambda: connection.wanted)
    await connection.error("rate_limit_exceeded", event_id="answer")
    (done,) = of(await until(talk, TurnDone), TurnDone)
    assert done.failed is not None
    fake.replies.append(Reply("Weer wel."))
    await talk.respond()
    assert [event.text for event in await heard(talk, 1)] == ["Weer wel."]


@pytest.mark.parametrize(
    ("status", "retryable"), [(401, False), (403, False), (400, False), (429, True), (503, True)]
)
async def test_a_refused_handshake_says_whether_another_try_may_help(
    fake: FakeRealtime, model: OpenAIRealtime, status: int, retryable: bool
) -> None:
    fake.refuse_with, fake.refuse_headers = status, {"Retry-After": "7"}
    with pytest.raises(ProviderError) as raised:
        await model.connect(SPEC)
    assert raised.value.retryable is retryable
    assert raised.value.retry_after_s == 7.0
    assert "vendor" not in raised.value.message


async def test_a_wrong_key_is_refused(
    fake: FakeRealtime, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    with pytest.raises(ProviderError) as raised:
        await model_at(fake.url, http, clock, key="wrong").connect(SPEC)
    assert raised.value.retryable is False


async def test_settings_that_are_not_accepted_refuse_the_talk(
    fake: FakeRealtime, model: OpenAIRealtime
) -> None:
    fake.refuse_session = "invalid_value"
    with pytest.raises(ProviderError) as raised:
        await model.connect(SPEC)
    assert raised.value.retryable is False


@pytest.mark.parametrize("how", ["silent", "hang"])
async def test_a_vendor_that_says_nothing_is_not_waited_for(
    fake: FakeRealtime, http: aiohttp.ClientSession, clock: ManualClock, how: str
) -> None:
    setattr(fake, how, True)
    with pytest.raises(ProviderTimeout):
        await model_at(fake.url, http, clock, connect_s=0.2).connect(SPEC)
    fake.hang = False
    fake.changed()


async def test_nobody_listening_is_a_provider_error(http: aiohttp.ClientSession, clock: ManualClock) -> None:
    with pytest.raises(ProviderError) as raised:
        await model_at("ws://127.0.0.1:9/v1/realtime", http, clock).connect(SPEC)
    assert raised.value.retryable is True


async def test_an_error_of_the_vendor_leaves_the_line_open(fake: FakeRealtime, open_talk: Opener) -> None:
    talk = await open_talk()
    connection = await fake.connection()
    await connection.error("internal_error")
    await connection.speech("Nog hier?")
    assert [event.text for event in await heard(talk, 1)] == ["Nog hier?"]


async def test_what_is_unknown_is_passed_over(fake: FakeRealtime, open_talk: Opener) -> None:
    talk = await open_talk()
    connection = await fake.connection()
    await connection.send("rate_limits.updated", rate_limits=[])
    await connection.send("mcp_list_tools.completed", item_id="x")
    await connection.send_raw('{"no": "type"}')
    await connection.speech("Ja.")
    assert [event.text for event in await heard(talk, 1)] == ["Ja."]


@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota"])
async def test_an_error_nobody_can_help_ends_the_talk(
    fake: FakeRealtime, open_talk: Opener, code: str
) -> None:
    talk = await open_talk()
    await (await fake.connection()).error(code)
    (lost,) = of(await rest(talk), Lost)
    assert (lost.retryable, lost.error.retryable) == (False, False)


async def test_the_close_code_of_the_removed_beta_ends_the_talk(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    talk = await open_talk()
    await (await fake.connection()).socket.close(code=4000)
    (lost,) = of(await rest(talk), Lost)
    assert lost.retryable is False


# Another line.


async def cut(connection: openai_realtime.Connection, how: str) -> None:
    match how:
        case "cut":
            connection.drop()
        case "closed":
            await connection.socket.close(code=1011)
        case "expired":
            await connection.expire()
        case "garbage":
            await connection.send_raw("{not json")
        case _:
            await connection.send("response.output_audio.delta", item_id="i", delta="***")


@pytest.mark.parametrize("how", ["cut", "closed", "expired", "garbage", "bad audio"])
async def test_a_lost_line_is_opened_again_with_what_was_said(
    fake: FakeRealtime, open_talk: Opener, how: str
) -> None:
    fake.replies.append(Reply("Dag, met Karel.", tone(100)))
    talk = await open_talk()
    connection = await fake.connection()
    await talk.steer("mood 3/10")
    await talk.respond()
    await until(talk, TurnDone)
    await connection.speech("Goedemiddag.")
    await until(talk, Heard)
    await cut(connection, how)
    events = await until(talk, Resumed)
    assert [event.retryable for event in of(events, Lost)] == [True]
    second = await fake.connection(1)
    await fake.until(lambda: len(second.items) == 3)
    assert second.said() == [
        ("assistant", "Dag, met Karel."),
        ("user", "Goedemiddag."),
        ("system", "mood 3/10"),
    ]
    await second.speech("Bent u er nog?")
    assert [event.text for event in await heard(talk, 1)] == ["Bent u er nog?"]


async def test_what_was_cut_off_is_carried_over_as_it_was_heard(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    fake.replies.append(Reply("een twee drie vier", tone(400)))
    talk = await open_talk()
    await talk.respond()
    item = of(await until(talk, TurnDone), AudioOut)[0].item_id
    await talk.truncate(item, 200)
    (await fake.connection()).drop()
    await until(talk, Resumed)
    second = await fake.connection(1)
    await fake.until(lambda: second.items)
    assert second.said() == [("assistant", "een twee…")]


async def test_a_vendor_that_takes_no_more_audio_is_hung_up_on(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    talk = await open_talk()
    connection = await fake.connection()
    connection.deaf = True
    second = Audio.of(tone(1000))

    async def speak() -> None:
        while not connection.closed:
            await talk.send_audio(second)
            await asyncio.sleep(0)

    speaking = asyncio.create_task(speak())
    resumed = asyncio.create_task(until(talk, Resumed))
    while not resumed.done():
        await clock.advance(1.0)
    assert [event.retryable for event in of(await resumed, Lost)] == [True]
    speaking.cancel()


async def test_words_typed_while_the_line_is_down_come_in_with_the_next(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    talk = await open_talk()
    fake.refuse_with = 503
    (await fake.connection()).drop()
    await until(talk, Lost)
    await talk.send_audio(Audio.of(tone(20)))
    await talk.send_text("Hoort u mij?")
    await talk.respond()
    fake.refuse_with = None
    await clock.advance(8.0)
    await until(talk, Resumed)
    second = await fake.connection(1)
    await fake.until(lambda: second.items)
    assert second.said() == [("user", "Hoort u mij?")]


async def test_a_line_that_cannot_be_opened_again_ends_the_talk(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    talk = await open_talk()
    fake.refuse_with = 503
    (await fake.connection()).drop()
    await until(talk, Lost)
    ending = asyncio.create_task(rest(talk))
    while not ending.done():
        await clock.advance(1.0)
    assert [event.retryable for event in of(await ending, Lost)] == [False]


async def test_a_key_that_was_withdrawn_is_not_tried_again_and_again(
    fake: FakeRealtime, open_talk: Opener
) -> None:
    talk = await open_talk()
    fake.refuse_with = 401
    (await fake.connection()).drop()
    events = await rest(talk)
    assert [event.retryable for event in of(events, Lost)] == [True, False]


async def test_a_line_that_is_lost_again_and_again_is_given_up(fake: FakeRealtime, open_talk: Opener) -> None:
    talk = await open_talk()
    for number in range(6):
        (await fake.connection(number)).drop()
        if number < 5:
            await until(talk, Resumed)
    assert [event.retryable for event in of(await rest(talk), Lost)] == [False]


async def test_the_line_is_renewed_in_a_pause_before_the_hour_is_over(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    talk = await open_talk()
    first = await fake.connection()
    await first.speech("Dag.")
    await until(talk, Heard)
    await clock.advance(55 * MINUTE)
    await until(talk, Expiring)
    second = await fake.connection(1)
    await fake.until(lambda: first.closed)
    assert second.said() == [("user", "Dag.")]
    await second.speech("Waar waren we?")
    events = await until(talk, Heard)
    assert of(events, Lost) == []
    await clock.advance(55 * MINUTE)
    await until(talk, Expiring)
    await fake.connection(2)


async def test_a_renewal_waits_until_the_customer_has_spoken(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    fake.replies.append(Reply("een twee drie", tone(300), pause_after=1))
    talk = await open_talk()
    first = await fake.connection()
    await talk.respond()
    await until(talk, AudioOut)
    await clock.advance(55 * MINUTE)
    await until(talk, Expiring)
    await fake.connection(1)
    await clock.advance(MINUTE)
    assert not first.closed
    first.go_on()
    assert [event.text for event in await heard(talk, 1)] == ["een twee drie"]
    await fake.until(lambda: first.closed)


async def test_a_renewal_does_not_wait_beyond_the_limit_and_asks_again_for_the_answer(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    fake.replies += [Reply("een twee drie", tone(300), pause_after=1), Reply("Opnieuw.")]
    talk = await open_talk()
    first = await fake.connection()
    await talk.respond()
    await until(talk, AudioOut)
    await clock.advance(55 * MINUTE)
    await until(talk, Expiring)
    await fake.connection(1)
    await clock.advance(3 * MINUTE)
    await fake.until(lambda: first.closed)
    assert (await heard(talk, 1))[-1].text == "Opnieuw."


async def test_a_renewal_that_fails_leaves_the_old_line_up(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    talk = await open_talk()
    fake.refuse_with = 503
    await clock.advance(55 * MINUTE)
    await until(talk, Expiring)
    first = await fake.connection()
    await first.speech("Nog altijd hier.")
    assert [event.text for event in await heard(talk, 1)] == ["Nog altijd hier."]


async def test_closing_ends_the_events_and_hangs_up(fake: FakeRealtime, model: OpenAIRealtime) -> None:
    talk = await model.connect(SPEC)
    reading = asyncio.create_task(rest(talk))
    connection = await fake.connection()
    await talk.close()
    assert await reading == []
    await fake.until(lambda: connection.closed)
    await talk.send_audio(Audio.of(tone(20)))
    await talk.close()


async def test_no_word_that_was_said_is_logged(
    fake: FakeRealtime, open_talk: Opener, clock: ManualClock
) -> None:
    lines: list[str] = []
    handle = logger.add(lambda line: lines.append(str(line)), level=0, format="{message} {extra}")
    try:
        talk = await open_talk()
        connection = await fake.connection()
        await connection.speech("geheimwoord")
        await until(talk, Heard)
        await connection.error("some_code")
        connection.drop()
        await until(talk, Resumed)
    finally:
        logger.remove(handle)
    assert lines
    assert not any("geheimwoord" in line or "vendor's" in line for line in lines)


# One after another.


class Slow:
    name = "slow"

    async def connect(self, spec: RealtimeSpec) -> Connection:
        await asyncio.Event().wait()
        raise AssertionError


class Broken:
    name = "broken"

    async def connect(self, spec: RealtimeSpec) -> Connection:
        raise KeyError("a bug")


@pytest.mark.parametrize("first", [Slow(), Broken()], ids=["late", "broken"])
async def test_the_next_model_carries_the_talk_when_the_first_does_not_answer(
    model: OpenAIRealtime, first: RealtimeModel
) -> None:
    talk = await FallbackRealtime([first, model], connect_s=0.5).connect(SPEC)
    assert talk.provider == "openai"
    await talk.close()


async def test_the_last_refusal_is_told_when_no_model_answers(
    fake: FakeRealtime, model: OpenAIRealtime
) -> None:
    fake.refuse_with = 401
    with pytest.raises(ProviderError) as raised:
        await FallbackRealtime([Broken(), model], connect_s=5).connect(SPEC)
    assert raised.value.retryable is False
