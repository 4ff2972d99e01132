"""HeyGen and LiveAvatar, real client code against stand-ins that speak their wire; and no avatar at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from loguru import logger

from coach_server.errors import Invalid, ProviderError, ProviderTimeout
from coach_server.providers.avatar import (
    MAX_TEXT_CHARS,
    Avatar,
    AvatarSession,
    AvatarWish,
    Delivery,
    LeftOpen,
    Speaks,
    StopReason,
)
from coach_server.providers.avatar.heygen import HeyGen
from coach_server.providers.avatar.liveavatar import LiveAvatar
from coach_server.providers.avatar.off import Off
from coach_server.testing import ManualClock
from tests.fakes import heygen, liveavatar
from tests.fakes.heygen import FakeHeyGen, FakeVendor, Step, cut, garbage, hang, redirect, status
from tests.fakes.liveavatar import FakeLiveAvatar

WISH = AvatarWish("session-7", language="nl-BE")
DAY_S = 86_400


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
def old(hg: FakeHeyGen, http: aiohttp.ClientSession, clock: ManualClock) -> HeyGen:
    return HeyGen(
        heygen.KEY,
        http,
        clock,
        avatar_id="hugo",
        voice_id="warm",
        knowledge_base_id="kb-1",
        base_url=hg.url,
        timeout_s=0.5,
    )


@pytest.fixture
def new(la: FakeLiveAvatar, http: aiohttp.ClientSession, clock: ManualClock) -> LiveAvatar:
    return LiveAvatar(
        liveavatar.KEY,
        http,
        clock,
        avatar_id=liveavatar.AVATAR,
        voice_id="warm",
        base_url=la.url,
        timeout_s=0.5,
    )


@pytest.fixture(params=["heygen", "liveavatar"])
def vendor(request: pytest.FixtureRequest) -> tuple[FakeVendor, Avatar, str, str]:
    """Each vendor in turn: its stand-in, its client, the names of the two calls that open a session."""
    if request.param == "heygen":
        fake, avatar = request.getfixturevalue("hg"), request.getfixturevalue("old")
        return fake, avatar, "streaming.new", "streaming.start"
    return request.getfixturevalue("la"), request.getfixturevalue("new"), "token", "start"


Vendor = tuple[Any, Avatar, str, str]


# Either vendor


async def test_an_open_session_leads_the_browser_into_its_room(vendor: Vendor, clock: ManualClock) -> None:
    fake, avatar, *_ = vendor
    session = await avatar.create(WISH)
    assert session.provider == avatar.name
    assert fake.open == [session.session_id]
    assert session.livekit_url == "wss://room.livekit.example"
    assert session.livekit_token == session.access_token == f"room.jwt.of-{session.session_id}"
    assert session.sdp_offer is None
    assert session.issued_at == clock.now()
    assert session.wish is WISH


async def test_no_key_and_no_token_of_the_agent_is_in_what_a_client_may_see(vendor: Vendor) -> None:
    _, avatar, *_ = vendor
    session = await avatar.create(WISH)
    seen = " ".join(str(getattr(session, name)) for name in (*AvatarSession.__slots__, "access_token"))
    assert session.livekit_token in seen
    for secret in (heygen.KEY, liveavatar.KEY, "agent.jwt.secret"):
        assert secret not in seen


async def test_the_secrets_of_a_session_are_not_in_its_repr(vendor: Vendor) -> None:
    session = await vendor[1].create(WISH)
    assert "jwt" not in repr(session)


async def test_stopping_twice_or_an_unknown_session_is_fine(vendor: Vendor) -> None:
    fake, avatar, *_ = vendor
    session = await avatar.create(WISH)
    await avatar.stop(session.session_id, StopReason.COMPLETED)
    assert fake.open == []
    await avatar.stop(session.session_id, StopReason.COMPLETED)
    await avatar.stop("11111111-1111-1111-1111-111111111111", StopReason.ABANDONED)


async def test_keep_alive_holds_a_session_and_without_it_the_vendor_reaps_it(
    vendor: Vendor, clock: ManualClock
) -> None:
    fake, avatar, *_ = vendor
    session = await avatar.create(WISH)
    for _ in range(20):
        await clock.advance(60)
        await avatar.keep_alive(session.session_id)
    assert fake.open == [session.session_id]
    await clock.advance(301)
    assert fake.open == []
    with pytest.raises(ProviderError) as caught:
        await avatar.keep_alive(session.session_id)
    assert not caught.value.retryable


async def test_a_refresh_opens_another_session_and_leaves_the_first_to_its_owner(vendor: Vendor) -> None:
    fake, avatar, *_ = vendor
    first = await avatar.create(WISH)
    second = await avatar.refresh(first)
    assert second.session_id != first.session_id
    assert second.livekit_token != first.livekit_token
    assert fake.open == [first.session_id, second.session_id]


@pytest.mark.parametrize(
    ("code", "retryable"),
    [(400, False), (401, False), (402, False), (403, False), (408, True), (418, False)]
    + [(429, True), (500, True), (503, True)],
)
async def test_a_refused_opening_says_in_our_words_whether_another_try_may_help(
    vendor: Vendor, code: int, retryable: bool
) -> None:
    fake, avatar, first, _ = vendor
    fake.script(first, status(code))
    with pytest.raises(ProviderError) as caught:
        await avatar.create(WISH)
    assert caught.value.retryable is retryable
    assert heygen.WORDS not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), ("²", None), ("9" * 400, None)],
)
async def test_too_many_requests_carry_a_sane_time_to_wait(
    vendor: Vendor, header: str, seconds: float | None
) -> None:
    fake, avatar, first, _ = vendor
    fake.script(first, status(429, retry_after=header))
    with pytest.raises(ProviderError) as caught:
        await avatar.create(WISH)
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize(
    "step",
    [garbage(), garbage(b"[]"), garbage(b"null"), garbage(b"{}"), garbage(b""), garbage(b'{"code":100}')]
    + [garbage(b'{"code":100,"data":"text"}'), garbage(b" " * (1 << 21)), cut()],
    ids=["bytes", "list", "null", "nothing", "empty", "no data", "text", "endless", "cut"],
)
async def test_an_answer_nobody_can_read_is_a_fault(vendor: Vendor, step: Step) -> None:
    fake, avatar, first, _ = vendor
    fake.script(first, step)
    with pytest.raises(ProviderError):
        await avatar.create(WISH)


async def test_a_vendor_that_does_not_answer_is_left_after_the_time_out(vendor: Vendor) -> None:
    fake, avatar, first, _ = vendor
    fake.script(first, hang())
    with pytest.raises(ProviderTimeout) as caught:
        await avatar.create(WISH)
    assert caught.value.retryable


async def test_the_key_does_not_follow_a_redirect(vendor: Vendor, clock: ManualClock) -> None:
    fake, avatar, first, _ = vendor
    async with FakeHeyGen(clock) as elsewhere:
        fake.script(first, redirect(f"{elsewhere.url}/v1/streaming.new"))
        with pytest.raises(ProviderError):
            await avatar.create(WISH)
        assert elsewhere.calls == []


@pytest.mark.parametrize(
    "step",
    [status(500), status(400), garbage(), cut(), cut(after=True), hang(), hang(after=True)],
    ids=["500", "400", "garbage", "cut", "cut once started", "hang", "hang once started"],
)
async def test_a_session_that_does_not_start_is_stopped_at_once(vendor: Vendor, step: Step) -> None:
    fake, avatar, _, second = vendor
    fake.script(second, step)
    with pytest.raises(ProviderError) as caught:
        await avatar.create(WISH)
    assert not isinstance(caught.value, LeftOpen)
    assert fake.open == []


@pytest.mark.parametrize(
    "changes",
    [
        {"url": None, "livekit_url": None},
        {"url": "https://room.example", "livekit_url": "https://room.example"},
        {"url": "wss://a b", "livekit_url": "wss://a\r\nb"},
        {"access_token": "", "livekit_client_token": ""},
        {"access_token": 7, "livekit_client_token": ["x"]},
        {"access_token": "x" * 9000, "livekit_client_token": "x" * 9000},
    ],
)
async def test_a_session_without_a_room_one_can_enter_is_stopped_at_once(
    vendor: Vendor, changes: dict[str, object]
) -> None:
    fake, avatar, *_ = vendor
    fake.changes = changes
    with pytest.raises(ProviderError, match="unreadable"):
        await avatar.create(WISH)
    assert fake.open == []


async def test_a_session_that_can_be_neither_started_nor_stopped_is_named_by_the_error(
    vendor: Vendor,
) -> None:
    fake, avatar, _, second = vendor
    fake.script(second, hang(after=True))
    fake.script("stop" if avatar.name == "liveavatar" else "streaming.stop", status(503))
    with pytest.raises(LeftOpen) as caught:
        await avatar.create(WISH)
    assert fake.open == [caught.value.session_id]


async def test_an_opening_that_is_cancelled_leaves_nothing_open(vendor: Vendor) -> None:
    fake, avatar, _, second = vendor
    fake.script(second, hang(after=True))
    opening = asyncio.ensure_future(avatar.create(WISH))
    await fake.until(lambda: second in fake.names)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert fake.open == []


@pytest.mark.parametrize("id", [None, 7, "", "..", "a/b", "a\r\nb", "x" * 200])
async def test_a_session_id_that_would_be_trouble_in_a_path_is_not_taken(vendor: Vendor, id: object) -> None:
    fake, avatar, *_ = vendor
    fake.changes = fake.token_changes = {"session_id": id}
    with pytest.raises(ProviderError, match="unreadable"):
        await avatar.create(WISH)


@pytest.mark.parametrize("make", [HeyGen, LiveAvatar])
async def test_an_address_nobody_listens_on_is_a_retryable_fault(
    make: Callable[..., Avatar], http: aiohttp.ClientSession, clock: ManualClock, unused_tcp_port: int
) -> None:
    nowhere = make("key", http, clock, avatar_id="a", base_url=f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(ProviderError) as caught:
        await nowhere.create(WISH)
    assert caught.value.retryable


@pytest.mark.parametrize("make", [HeyGen, LiveAvatar])
async def test_without_an_avatar_id_nothing_is_asked_of_the_vendor(
    make: Callable[..., Avatar], http: aiohttp.ClientSession, clock: ManualClock, hg: FakeHeyGen
) -> None:
    half = make("key", http, clock, avatar_id="", base_url=hg.url)
    assert not half.capabilities().configured
    with pytest.raises(ProviderError, match="not configured"):
        await half.create(WISH)
    assert hg.calls == []


@pytest.mark.parametrize("text", ["", " \n ", "\x00\x07", "x" * (MAX_TEXT_CHARS + 1)])
async def test_a_text_that_cannot_be_said_is_refused(vendor: Vendor, text: str) -> None:
    session = await vendor[1].create(WISH)
    with pytest.raises(Invalid) as caught:
        await vendor[1].speak(session.session_id, text)
    assert caught.value.field == "text"


async def test_nothing_secret_or_said_is_logged(vendor: Vendor) -> None:
    fake, avatar, first, second = vendor
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(f"{line} {line.record['extra']}"), level=0)
    try:
        session = await avatar.create(WISH)
        await avatar.speak(session.session_id, "Dag Zoë")
        fake.script(second, status(500))
        fake.script("stop" if avatar.name == "liveavatar" else "streaming.stop", status(503))
        with pytest.raises(LeftOpen):
            await avatar.create(WISH)
    finally:
        logger.remove(sink)
    said = "\n".join(lines)
    assert "10003" in said
    for secret in (heygen.KEY, liveavatar.KEY, "jwt", "Zoë", heygen.WORDS):
        assert secret not in said


# HeyGen


async def test_heygen_is_asked_for_what_seed_000_says_in_version_2(hg: FakeHeyGen, old: HeyGen) -> None:
    await old.create(WISH)
    assert hg.bodies("streaming.new") == [
        {
            "version": "v2",
            "avatar_id": "hugo",
            "quality": "high",
            "voice": {"voice_id": "warm", "rate": 1.0},
            "language": "nl",
            "activity_idle_timeout": 180,
            "knowledge_base_id": "kb-1",
        }
    ]
    assert hg.bodies("streaming.start") == [{"session_id": "hg-1"}]


async def test_a_wish_may_name_another_knowledge_base(hg: FakeHeyGen, old: HeyGen) -> None:
    await old.create(AvatarWish("s", knowledge_base_id="kb-2"))
    assert hg.bodies("streaming.new")[0]["knowledge_base_id"] == "kb-2"


async def test_what_is_not_set_is_not_sent_to_heygen(
    hg: FakeHeyGen, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    await HeyGen(heygen.KEY, http, clock, avatar_id="hugo", base_url=f"{hg.url}/").create(WISH)
    body = hg.bodies("streaming.new")[0]
    assert "knowledge_base_id" not in body
    assert body["voice"] == {"rate": 1.0}


async def test_a_heygen_session_ends_with_its_limit_and_its_token_after_a_day(
    hg: FakeHeyGen, old: HeyGen, clock: ManualClock
) -> None:
    limited = await old.create(WISH)
    assert (limited.expires_at - clock.now(), limited.max_duration_s) == (600, 600)
    hg.duration_limit = None
    assert (await old.create(WISH)).expires_at - clock.now() == DAY_S


@pytest.mark.parametrize("limit", [0, -5, True, "600", 10**30, None, [600]])
async def test_a_limit_that_makes_no_sense_is_none(hg: FakeHeyGen, old: HeyGen, limit: object) -> None:
    hg.changes = {"session_duration_limit": limit}
    session = await old.create(WISH)
    assert session.expires_at - session.issued_at == DAY_S
    assert session.max_duration_s == WISH.max_duration_s


async def test_heygen_says_exactly_the_text(hg: FakeHeyGen, old: HeyGen) -> None:
    session = await old.create(WISH)
    spoken = await old.speak(session.session_id, " Goedemorgen,\n Zoë! שלום \ud800 ")
    assert (spoken.delivery, spoken.task_id, spoken.duration_ms) == (Delivery.SERVER, "task-1", 1234)
    assert spoken.command is None
    [task] = hg.bodies("streaming.task")
    assert task["task_type"] == "repeat"
    assert hg.sessions["hg-1"].said == ["Goedemorgen, Zoë! שלום"]


async def test_heygen_is_interrupted_by_the_server(hg: FakeHeyGen, old: HeyGen) -> None:
    session = await old.create(WISH)
    assert await old.interrupt(session.session_id) is None
    assert hg.bodies("streaming.interrupt") == [{"session_id": "hg-1"}]


async def test_speaking_in_an_unknown_heygen_session_is_a_fault_not_to_be_retried(old: HeyGen) -> None:
    with pytest.raises(ProviderError) as caught:
        await old.speak("hg-99", "Dag")
    assert not caught.value.retryable


@pytest.mark.parametrize("call", ["streaming.new", "streaming.start"])
async def test_a_heygen_code_other_than_100_is_a_failure_also_with_http_200(
    hg: FakeHeyGen, old: HeyGen, call: str
) -> None:
    hg.script(call, status(200, vendor_code=400014))
    with pytest.raises(ProviderError) as caught:
        await old.create(WISH)
    assert not caught.value.retryable
    assert hg.open == []


async def test_a_wrong_heygen_key_is_refused(
    hg: FakeHeyGen, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    with pytest.raises(ProviderError, match="credentials"):
        await HeyGen("wrong", http, clock, avatar_id="hugo", base_url=hg.url).create(WISH)


@pytest.mark.parametrize(
    "step", [status(400), status(404), status(200, vendor_code=10003)], ids=["400", "404", "200"]
)
async def test_a_refused_stop_of_a_session_still_listed_as_active_is_to_be_retried(
    hg: FakeHeyGen, old: HeyGen, step: Step
) -> None:
    session = await old.create(WISH)
    hg.script("streaming.stop", step)
    with pytest.raises(ProviderError) as caught:
        await old.stop(session.session_id, StopReason.COMPLETED)
    assert caught.value.retryable
    await old.stop(session.session_id, StopReason.COMPLETED)
    assert hg.open == []


async def test_a_session_heygen_lists_but_does_not_know_is_not_taken_for_stopped(
    hg: FakeHeyGen, old: HeyGen
) -> None:
    session = await old.create(WISH)
    await old.stop(session.session_id, StopReason.COMPLETED)
    hg.listed_for_ever = True
    with pytest.raises(ProviderError):
        await old.stop(session.session_id, StopReason.COMPLETED)


@pytest.mark.parametrize(("code", "retryable"), [(401, False), (429, True), (500, True)])
async def test_a_stop_that_failed_for_another_reason_is_no_stop(
    hg: FakeHeyGen, old: HeyGen, code: int, retryable: bool
) -> None:
    session = await old.create(WISH)
    hg.script("streaming.stop", status(code))
    with pytest.raises(ProviderError) as caught:
        await old.stop(session.session_id, StopReason.COMPLETED)
    assert caught.value.retryable is retryable
    assert "streaming.list" not in hg.names


async def test_heygen_is_marked_as_superseded_and_cannot_erase(old: HeyGen) -> None:
    told = old.capabilities()
    assert (told.provider, told.speaks, told.configured) == ("heygen", Speaks.SERVER, True)
    assert told.deprecated
    assert {"nl", "he"} <= set(told.languages)
    assert await old.erase("hg-1") is False


# LiveAvatar


async def test_liveavatar_is_asked_for_a_session_that_says_only_what_it_is_told(
    la: FakeLiveAvatar, new: LiveAvatar
) -> None:
    await new.create(AvatarWish("s", "he", max_duration_s=900, knowledge_base_id="kb-1"))
    assert la.bodies("token") == [
        {
            "mode": "FULL",
            "avatar_id": liveavatar.AVATAR,
            "is_sandbox": False,
            "max_session_duration": 900,
            "video_settings": {"quality": "high", "encoding": "H264"},
            "avatar_persona": {"voice_id": "warm", "language": "he"},
            "interactivity_type": "CONVERSATIONAL",
        }
    ]


async def test_the_key_buys_the_token_and_the_token_alone_starts_the_session(
    la: FakeLiveAvatar, new: LiveAvatar
) -> None:
    session = await new.create(WISH)
    bought, started = la.calls
    assert "Authorization" not in bought.headers
    assert "X-API-KEY" not in started.headers
    assert started.headers["Authorization"] == f"Bearer {session.client_token}"
    assert started.body is None


async def test_a_liveavatar_session_ends_with_its_duration(la: FakeLiveAvatar, new: LiveAvatar) -> None:
    session = await new.create(WISH)
    assert session.expires_at - session.issued_at == session.max_duration_s == 1800
    la.changes = {"max_session_duration": 120}
    assert (await new.create(WISH)).max_duration_s == 120
    la.changes = {"max_session_duration": None}
    assert (await new.create(WISH)).max_duration_s == 1800


@pytest.mark.parametrize("code", [100, 1000, 0, 4000, None])
async def test_liveavatar_is_judged_by_the_http_status_not_by_the_number(
    la: FakeLiveAvatar, new: LiveAvatar, code: Any
) -> None:
    la.code = code
    session = await new.create(WISH)
    assert la.open == [session.session_id]


@pytest.mark.parametrize("token", [None, "", 7, "a\r\nX-Other: b", "é", "x" * 9000])
async def test_a_session_token_that_is_no_header_value_is_not_taken(
    la: FakeLiveAvatar, new: LiveAvatar, token: object
) -> None:
    la.token_changes = {"session_token": token}
    with pytest.raises(ProviderError, match="unreadable"):
        await new.create(WISH)
    assert la.names == ["token"]


async def test_liveavatar_speaks_by_a_ready_made_command_of_the_browser(
    la: FakeLiveAvatar, new: LiveAvatar
) -> None:
    session = await new.create(WISH)
    spoken = await new.speak(session.session_id, "Hoe bedoelt u?\n")
    assert spoken.delivery is Delivery.CLIENT
    assert spoken.command is not None
    assert spoken.command.topic == "agent-control"
    data = dict(spoken.command.data)
    assert data.pop("event_id")
    assert data == {
        "event_type": "avatar.speak_text",
        "session_id": session.session_id,
        "text": "Hoe bedoelt u?",
    }
    assert "bedoelt" not in repr(spoken)
    assert la.names == ["token", "start"]


async def test_liveavatar_is_interrupted_by_a_command_of_the_browser(new: LiveAvatar) -> None:
    session = await new.create(WISH)
    command = await new.interrupt(session.session_id)
    assert command is not None
    assert command.data["event_type"] == "avatar.interrupt"
    assert command.data["session_id"] == session.session_id


@pytest.mark.parametrize("reason", StopReason)
async def test_every_reason_has_a_name_liveavatar_knows(
    la: FakeLiveAvatar, new: LiveAvatar, reason: StopReason
) -> None:
    session = await new.create(WISH)
    await new.stop(session.session_id, reason)
    assert la.sessions[session.session_id].stop_reason in liveavatar.REASONS
    assert "Authorization" not in la.calls[-1].headers


@pytest.mark.parametrize(("code", "retryable"), [(401, False), (422, False), (429, True), (502, True)])
async def test_a_liveavatar_stop_that_failed_is_no_stop(
    la: FakeLiveAvatar, new: LiveAvatar, code: int, retryable: bool
) -> None:
    session = await new.create(WISH)
    la.script("stop", status(code))
    with pytest.raises(ProviderError) as caught:
        await new.stop(session.session_id, StopReason.COMPLETED)
    assert caught.value.retryable is retryable


async def test_the_events_of_a_liveavatar_session_are_erased_as_often_as_asked(
    la: FakeLiveAvatar, new: LiveAvatar
) -> None:
    session = await new.create(WISH)
    await new.stop(session.session_id, StopReason.COMPLETED)
    assert await new.erase(session.session_id)
    assert await new.erase(session.session_id)
    assert la.sessions[session.session_id].erased
    assert await new.erase("11111111-1111-1111-1111-111111111111")


async def test_an_erasure_that_failed_is_told(la: FakeLiveAvatar, new: LiveAvatar) -> None:
    session = await new.create(WISH)
    la.script("events", status(503))
    with pytest.raises(ProviderError) as caught:
        await new.erase(session.session_id)
    assert caught.value.retryable
    with pytest.raises(ProviderError):
        await new.erase("../../v1/avatars")


async def test_a_wrong_liveavatar_key_is_refused(
    la: FakeLiveAvatar, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    wrong = LiveAvatar(heygen.KEY, http, clock, avatar_id=liveavatar.AVATAR, base_url=la.url)
    with pytest.raises(ProviderError, match="credentials"):
        await wrong.create(WISH)


async def test_a_sandbox_is_asked_for_and_told(
    la: FakeLiveAvatar, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    sandbox = LiveAvatar(
        liveavatar.KEY, http, clock, avatar_id=liveavatar.AVATAR, base_url=la.url, sandbox=True
    )
    await sandbox.create(WISH)
    assert la.bodies("token")[0]["is_sandbox"] is True
    assert "voice_id" not in la.bodies("token")[0]["avatar_persona"]
    told = sandbox.capabilities()
    assert (told.provider, told.speaks, told.sandbox, told.deprecated) == (
        "liveavatar",
        Speaks.CLIENT,
        True,
        False,
    )


# The stand-ins themselves: what the vendors refuse


async def test_the_stand_ins_refuse_a_second_start_and_a_missing_key(
    hg: FakeHeyGen, old: HeyGen, la: FakeLiveAvatar, new: LiveAvatar, http: aiohttp.ClientSession
) -> None:
    await old.create(WISH)
    session = await new.create(WISH)
    key = {"X-Api-Key": heygen.KEY}
    again = await http.post(f"{hg.url}/v1/streaming.start", json={"session_id": "hg-1"}, headers=key)
    assert (again.status, (await again.json())["code"] != 100) == (400, True)
    nobody = await http.post(f"{hg.url}/v1/streaming.new", json={})
    assert (nobody.status, (await nobody.json())["code"]) == (401, 400112)
    bearer = {"Authorization": f"Bearer {session.client_token}"}
    assert (await http.post(f"{la.url}/v1/sessions/start", headers=bearer)).status == 400
    assert (await http.post(f"{la.url}/v1/sessions/token", json={}, headers=bearer)).status == 401


async def test_a_heygen_browser_token_opens_sessions_which_is_why_no_client_gets_one(
    hg: FakeHeyGen, old: HeyGen, http: aiohttp.ClientSession
) -> None:
    made = await http.post(f"{hg.url}/v1/streaming.create_token", json={}, headers={"X-Api-Key": heygen.KEY})
    bearer = {"Authorization": f"Bearer {(await made.json())['data']['token']}"}
    body = {"version": "v2", "avatar_id": "any", "quality": "low"}
    opened = await http.post(f"{hg.url}/v1/streaming.new", json=body, headers=bearer)
    assert opened.status == 200
    session = await old.create(WISH)
    assert session.client_token == ""
    assert hg.names.count("streaming.create_token") == 1


# Off


async def test_without_an_avatar_the_client_shows_the_text_itself() -> None:
    off = Off()
    told = off.capabilities()
    assert (told.provider, told.speaks, told.configured, told.modes) == ("off", Speaks.NONE, False, ("text",))
    spoken = await off.speak("s", "Dag")
    assert (spoken.delivery, spoken.command) == (Delivery.CLIENT, None)
    assert await off.interrupt("s") is None
    await off.keep_alive("s")
    await off.stop("s", StopReason.COMPLETED)
    assert await off.erase("s")
    with pytest.raises(ProviderError):
        await off.create(WISH)
    with pytest.raises(ProviderError):
        await off.refresh(AvatarSession("off", "s", WISH))
