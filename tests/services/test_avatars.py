"""What a roleplay session asks of avatars: it never fails because of one, and none is left running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from loguru import logger

from coach_server.errors import Invalid, ProviderError
from coach_server.providers.avatar import AvatarSession, AvatarWish, Delivery, StopReason
from coach_server.providers.avatar.heygen import HeyGen
from coach_server.providers.avatar.liveavatar import LiveAvatar
from coach_server.providers.avatar.off import Off
from coach_server.services.practice.avatars import Avatars, AvatarStatus, Opening, Pace
from coach_server.testing import ManualClock
from tests.fakes import heygen, liveavatar
from tests.fakes.heygen import FakeHeyGen, Step, garbage, hang, status
from tests.fakes.liveavatar import FakeLiveAvatar


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def hg(clock: ManualClock) -> AsyncIterator[FakeHeyGen]:
    async with FakeHeyGen(clock) as fake:
        yield fake


@pytest.fixture
async def la(clock: ManualClock) -> AsyncIterator[FakeLiveAvatar]:
    async with FakeLiveAvatar(clock) as fake:
        yield fake


@pytest.fixture
def avatars(hg: FakeHeyGen, http: aiohttp.ClientSession, clock: ManualClock) -> Avatars:
    avatar = HeyGen(heygen.KEY, http, clock, avatar_id="hugo", base_url=hg.url, timeout_s=0.3)
    return Avatars(avatar, clock)


@pytest.fixture
def current(la: FakeLiveAvatar, http: aiohttp.ClientSession, clock: ManualClock) -> Avatars:
    avatar = LiveAvatar(liveavatar.KEY, http, clock, avatar_id=liveavatar.AVATAR, base_url=la.url)
    return Avatars(avatar, clock)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    kept: list[str] = []
    sink = logger.add(lambda line: kept.append(f"{line} {line.record['extra']}"), level=0)
    yield kept
    logger.remove(sink)


async def opened(avatars: Avatars) -> AvatarSession:
    opening = await avatars.open("session-7", "nl")
    assert opening.session is not None
    return opening.session


# Opening


async def test_an_avatar_is_opened_in_the_language_for_the_time_asked(
    current: Avatars, la: FakeLiveAvatar
) -> None:
    opening = await current.open("session-7", "nl-BE", max_duration_s=600)
    assert opening.status is AvatarStatus.READY
    assert opening.session is not None
    assert opening.to_close is None
    assert la.open == [opening.session.session_id]
    [asked] = la.bodies("token")
    assert (asked["avatar_persona"]["language"], asked["max_session_duration"]) == ("nl", 600)


async def test_a_scenario_may_bring_its_own_knowledge_base(avatars: Avatars, hg: FakeHeyGen) -> None:
    await avatars.open("session-7", "nl", knowledge_base_id="kb-9")
    assert hg.bodies("streaming.new")[0]["knowledge_base_id"] == "kb-9"


async def test_without_a_vendor_an_opening_says_off(clock: ManualClock) -> None:
    avatars = Avatars(Off(), clock)
    assert await avatars.open("session-7", "nl") == Opening(AvatarStatus.OFF)
    assert avatars.provider == "off"
    assert not avatars.capabilities().configured


@pytest.mark.parametrize(
    "steps",
    [[status(400)], [status(401)], [status(429, retry_after="30")], [status(500), status(502)]]
    + [[garbage(), garbage()], [hang()]],
    ids=["400", "401", "429", "500 twice", "garbage", "hang"],
)
async def test_a_vendor_at_fault_makes_the_avatar_unavailable_and_nothing_else(
    avatars: Avatars, hg: FakeHeyGen, steps: list[Step]
) -> None:
    hg.script("streaming.new", *steps)
    assert await avatars.open("session-7", "nl") == Opening(AvatarStatus.UNAVAILABLE)
    assert hg.open == []


@pytest.mark.parametrize("call", ["streaming.new", "streaming.start"])
async def test_a_passing_fault_gets_a_second_try(avatars: Avatars, hg: FakeHeyGen, call: str) -> None:
    hg.script(call, status(500))
    session = await opened(avatars)
    assert hg.open == [session.session_id]


@pytest.mark.parametrize(
    "step", [status(400), status(429, retry_after="1"), hang()], ids=["refused", "asks for time", "took time"]
)
async def test_a_fault_that_will_not_pass_at_once_gets_no_second_try(
    avatars: Avatars, hg: FakeHeyGen, step: Step
) -> None:
    hg.script("streaming.new", step)
    await avatars.open("session-7", "nl")
    assert hg.names == ["streaming.new"]


async def test_a_session_that_could_not_be_stopped_is_named_to_be_closed(
    avatars: Avatars, hg: FakeHeyGen
) -> None:
    hg.script("streaming.start", status(500))
    hg.script("streaming.stop", status(503))
    opening = await avatars.open("session-7", "nl")
    assert (opening.status, opening.session) == (AvatarStatus.UNAVAILABLE, None)
    assert opening.to_close is not None
    assert hg.open == [opening.to_close]
    await avatars.close("heygen", opening.to_close, StopReason.FAILED)
    assert hg.open == []


async def test_a_vendor_that_is_down_is_not_asked_by_every_session(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    hg.script("streaming.new", *[status(500)] * 3)
    for _ in range(10):
        assert (await avatars.open("session-7", "nl")).status is AvatarStatus.UNAVAILABLE
    assert len(hg.calls) == 3
    await clock.advance(5)
    assert (await avatars.open("session-7", "nl")).status is AvatarStatus.READY


async def test_logs_tell_the_ids_and_no_secret(avatars: Avatars, hg: FakeHeyGen, lines: list[str]) -> None:
    session = await opened(avatars)
    hg.script("streaming.task", status(500))
    await avatars.speak("heygen", session.session_id, "Dag Zoë")
    hg.script("streaming.new", status(400))
    await avatars.open("session-8", "nl")
    await avatars.close("heygen", session.session_id, StopReason.COMPLETED)
    said = "\n".join(lines)
    assert "session-8" in said
    assert session.session_id in said
    for secret in (heygen.KEY, session.livekit_token, "Zoë", heygen.WORDS):
        assert secret not in said


# Renewing


@pytest.mark.parametrize(("life_s", "due_s"), [(86_400, 77_760), (600, 540), (1800, 1620)])
def test_a_token_is_due_after_nine_tenths_of_its_life(
    clock: ManualClock, life_s: float, due_s: float
) -> None:
    avatars, issued = Avatars(Off(), clock), clock.now()
    assert not avatars.due_for_refresh(issued + life_s, issued + due_s - 1, issued_at=issued)
    assert avatars.due_for_refresh(issued + life_s, issued + due_s, issued_at=issued)


async def test_a_renewed_avatar_names_the_old_one_to_be_closed(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    first = await opened(avatars)
    for _ in range(9):
        await clock.advance(60)
        await avatars.keep_alive("heygen", first.session_id, active_at=clock.now())
    assert avatars.due_for_refresh(first.expires_at, clock.now(), issued_at=first.issued_at)
    opening = await avatars.refresh(first)
    assert opening.status is AvatarStatus.READY
    assert opening.session is not None
    assert opening.to_close == first.session_id
    assert opening.session.wish == first.wish
    assert not avatars.due_for_refresh(
        opening.session.expires_at, clock.now(), issued_at=opening.session.issued_at
    )
    await avatars.close("heygen", opening.to_close, StopReason.REPLACED)
    assert hg.open == [opening.session.session_id]


async def test_a_session_read_back_from_a_row_can_be_renewed(current: Avatars, clock: ManualClock) -> None:
    first = await opened(current)
    row = AvatarSession(
        "liveavatar", first.session_id, AvatarWish("session-7", "he"), expires_at=clock.now() + 9
    )
    opening = await current.refresh(row)
    assert opening.session is not None
    assert opening.session.livekit_url
    assert opening.to_close == first.session_id


async def test_a_failed_renewal_keeps_the_session_until_it_is_over(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    first = await opened(avatars)
    hg.script("streaming.new", status(400), status(400))
    await clock.advance(540)
    assert await avatars.refresh(first) == Opening(AvatarStatus.READY, first)
    await clock.advance(60)
    assert await avatars.refresh(first) == Opening(AvatarStatus.UNAVAILABLE, first)


async def test_a_renewal_is_tried_every_quarter_of_a_minute_at_most(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    first = await opened(avatars)
    hg.script("streaming.new", status(400))
    for _ in range(3):
        assert (await avatars.refresh(first)).session is first
    assert hg.names.count("streaming.new") == 2
    await clock.advance(15)
    assert (await avatars.refresh(first)).to_close == first.session_id


async def test_a_renewal_that_fails_half_way_names_what_is_left(avatars: Avatars, hg: FakeHeyGen) -> None:
    first = await opened(avatars)
    hg.script("streaming.start", status(400))
    hg.script("streaming.stop", status(500))
    opening = await avatars.refresh(first)
    assert opening.session is first
    assert opening.to_close == "hg-2"


async def test_an_avatar_of_another_vendor_is_not_renewed(avatars: Avatars, hg: FakeHeyGen) -> None:
    other = replace(await opened(avatars), provider="liveavatar")
    assert (await avatars.refresh(other)).session is other
    assert hg.names.count("streaming.new") == 1


# Keeping alive


async def test_an_avatar_is_kept_alive_once_a_minute_however_often_the_client_is_heard(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    session = await opened(avatars)
    for _ in range(60):
        await avatars.keep_alive("heygen", session.session_id, active_at=clock.now())
        await clock.advance(5)
    assert hg.names.count("streaming.keep_alive") == 5
    assert hg.open == [session.session_id]


async def test_each_session_has_a_minute_of_its_own(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    for session in [await opened(avatars), await opened(avatars)]:
        await avatars.keep_alive("heygen", session.session_id, active_at=clock.now())
    assert [body["session_id"] for body in hg.bodies("streaming.keep_alive")] == ["hg-1", "hg-2"]


async def test_a_client_that_went_silent_lets_its_avatar_go(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    session, heard = await opened(avatars), clock.now()
    for _ in range(40):
        await clock.advance(30)
        await avatars.keep_alive("heygen", session.session_id, active_at=heard)
    assert hg.names.count("streaming.keep_alive") == 1
    assert hg.open == []


async def test_a_passing_fault_of_keep_alive_is_tried_again_soon(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    session = await opened(avatars)
    hg.script("streaming.keep_alive", status(500), hang())
    for _ in range(8):
        told = await avatars.keep_alive("heygen", session.session_id, active_at=clock.now())
        assert told is AvatarStatus.READY
        await clock.advance(15)
    assert hg.names.count("streaming.keep_alive") == 4
    assert hg.open == [session.session_id]


async def test_a_session_the_vendor_has_ended_is_unavailable(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    session = await opened(avatars)
    await clock.advance(200)
    told = await avatars.keep_alive("heygen", session.session_id, active_at=clock.now())
    assert told is AvatarStatus.UNAVAILABLE


async def test_nothing_is_kept_alive_at_a_vendor_we_no_longer_have(
    avatars: Avatars, hg: FakeHeyGen, clock: ManualClock
) -> None:
    assert await avatars.keep_alive("liveavatar", "x", active_at=clock.now()) is AvatarStatus.OFF
    assert await Avatars(Off(), clock).keep_alive("off", "x", active_at=clock.now()) is AvatarStatus.OFF
    assert hg.calls == []


async def test_the_pace_forgets_whose_time_has_come(clock: ManualClock) -> None:
    pace = Pace(clock)
    for number in range(1000):
        assert pace.takes(f"session {number}", 60)
    await clock.advance(61)
    assert pace.takes("another", 60)
    assert len(pace._next) == 1


# Speaking


async def test_a_text_reaches_the_avatar_by_the_server_or_by_the_client(
    avatars: Avatars, current: Avatars, hg: FakeHeyGen
) -> None:
    spoken = await avatars.speak("heygen", (await opened(avatars)).session_id, "Dag Jan")
    assert spoken.delivery is Delivery.SERVER
    assert hg.sessions["hg-1"].said == ["Dag Jan"]
    spoken = await current.speak("liveavatar", (await opened(current)).session_id, "Dag Jan")
    assert spoken.command is not None
    assert spoken.command.data["text"] == "Dag Jan"


@pytest.mark.parametrize("step", [status(400), status(500), hang()], ids=["400", "500", "hang"])
async def test_a_text_the_avatar_does_not_say_is_left_to_the_client(
    avatars: Avatars, hg: FakeHeyGen, step: Step
) -> None:
    session = await opened(avatars)
    hg.script("streaming.task", step)
    spoken = await avatars.speak("heygen", session.session_id, "Dag")
    assert (spoken.delivery, spoken.command) == (Delivery.CLIENT, None)


async def test_a_blank_text_is_our_own_mistake(avatars: Avatars) -> None:
    with pytest.raises(Invalid):
        await avatars.speak("heygen", "hg-1", " ")


async def test_an_avatar_falls_silent_when_asked(avatars: Avatars, current: Avatars, hg: FakeHeyGen) -> None:
    session = await opened(avatars)
    assert await avatars.interrupt("heygen", session.session_id) is None
    hg.script("streaming.interrupt", status(500))
    assert await avatars.interrupt("heygen", session.session_id) is None
    assert hg.names.count("streaming.interrupt") == 2
    command = await current.interrupt("liveavatar", (await opened(current)).session_id)
    assert command is not None


async def test_a_row_of_another_vendor_is_spoken_for_by_the_client(avatars: Avatars, hg: FakeHeyGen) -> None:
    assert (await avatars.speak("liveavatar", "x", "Dag")).delivery is Delivery.CLIENT
    assert await avatars.interrupt("liveavatar", "x") is None
    assert hg.calls == []


# Closing


@pytest.mark.parametrize("step", [status(500), status(429, retry_after="9"), garbage(), hang()])
async def test_a_close_that_failed_is_for_its_job_to_try_again(
    avatars: Avatars, hg: FakeHeyGen, step: Step
) -> None:
    session = await opened(avatars)
    hg.script("streaming.stop", step)
    with pytest.raises(ProviderError) as caught:
        await avatars.close("heygen", session.session_id, StopReason.ABANDONED)
    assert caught.value.retryable
    await avatars.close("heygen", session.session_id, StopReason.ABANDONED)
    await avatars.close("heygen", session.session_id, StopReason.ABANDONED)
    assert hg.open == []


async def test_a_close_goes_through_while_openings_rest(avatars: Avatars, hg: FakeHeyGen) -> None:
    session = await opened(avatars)
    hg.script("streaming.new", status(429, retry_after="60"))
    await avatars.open("session-8", "nl")
    await avatars.close("heygen", session.session_id, StopReason.COMPLETED)
    assert hg.open == []


async def test_the_reason_reaches_a_vendor_that_takes_one(current: Avatars, la: FakeLiveAvatar) -> None:
    session = await opened(current)
    await current.close("liveavatar", session.session_id, StopReason.ABANDONED)
    assert la.sessions[session.session_id].stop_reason == "USER_DISCONNECTED"


async def test_an_avatar_of_a_vendor_we_no_longer_have_is_left_to_idle_out(
    avatars: Avatars, hg: FakeHeyGen, lines: list[str]
) -> None:
    await avatars.close("liveavatar", "old-1", StopReason.COMPLETED)
    assert hg.calls == []
    assert "old-1" in "\n".join(lines)


async def test_what_the_vendor_kept_is_erased_where_it_can_be(
    avatars: Avatars, current: Avatars, la: FakeLiveAvatar
) -> None:
    session: Any = await opened(current)
    assert await current.erase("liveavatar", session.session_id)
    assert la.sessions[session.session_id].erased
    assert not await current.erase("heygen", "hg-1")
    assert not await avatars.erase("heygen", "hg-1")
    la.script("events", status(500))
    with pytest.raises(ProviderError):
        await current.erase("liveavatar", session.session_id)
