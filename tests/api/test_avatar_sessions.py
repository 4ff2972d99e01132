"""Practice with an avatar, over servers that speak the vendors' wire: opened, kept alive, renewed, always
stopped; and never in the way of the session."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coach_server.app import Replacements
from coach_server.providers.avatar import DEFAULT_DURATION_S
from coach_server.testing import ManualClock
from tests.api.practising import TALK, Desk, joined, let_pass
from tests.fakes import heygen, liveavatar
from tests.fakes.heygen import FakeHeyGen, FakeVendor, hang
from tests.fakes.heygen import status as refuses
from tests.fakes.liveavatar import FakeLiveAvatar
from tests.serving import Server, serving

VENDORS = ("liveavatar", "heygen")
STOP = {"liveavatar": "stop", "heygen": "streaming.stop"}
OPEN = {"liveavatar": "token", "heygen": "streaming.new"}
ALIVE = {"liveavatar": "keep-alive", "heygen": "streaming.keep_alive"}
KEYS = (liveavatar.KEY, heygen.KEY)


@asynccontextmanager
async def with_avatar(
    folder: Path, vendor: str = "liveavatar", clock: ManualClock | None = None
) -> AsyncIterator[tuple[Server, Any, ManualClock]]:
    clock = clock or ManualClock()
    fake: FakeVendor = FakeLiveAvatar(clock) if vendor == "liveavatar" else FakeHeyGen(clock)
    async with fake:
        values = (
            {
                "LIVEAVATAR_API_KEY": liveavatar.KEY,
                "LIVEAVATAR_BASE_URL": fake.url,
                "LIVEAVATAR_AVATAR_ID": liveavatar.AVATAR,
            }
            if vendor == "liveavatar"
            else {"HEYGEN_API_KEY": heygen.KEY, "HEYGEN_BASE_URL": fake.url, "HEYGEN_AVATAR_ID": "hugo"}
        )
        async with serving(folder, Replacements(clock=clock), **values) as server:
            yield server, fake, clock


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_start_tells_the_browser_its_room_and_never_a_key(tmp_path: Path, vendor: str) -> None:
    async with with_avatar(tmp_path, vendor) as (server, fake, _):
        desk = Desk(server)
        started = await desk.start()
        assert started["provider"] == vendor and started["avatar"]["status"] == "ready"
        assert started["heygenSessionId"] == fake.open[0]
        assert started["livekitUrl"] == "wss://room.livekit.example"
        assert started["livekitToken"] == started["heygenAccessToken"] == f"room.jwt.of-{fake.open[0]}"
        assert (started["status"], started["opening"]) == ("recording", None)
        told = json.dumps(started)
        assert not any(key in told for key in KEYS) and "agent.jwt" not in told and "session.jwt" not in told
        assert (await desk.ask("GET", "/api/avatar/capabilities"))["provider"] == vendor


async def test_whoever_wants_text_gets_no_avatar(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, fake, _):
        started = await Desk(server).start(avatar=False)
        assert started["opening"] is not None and started["heygenSessionId"] is None
        assert fake.calls == []


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_stop_stops_the_avatar_also_when_the_vendor_is_down_at_first(
    tmp_path: Path, vendor: str
) -> None:
    async with with_avatar(tmp_path, vendor) as (server, fake, clock):
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        fake.script(STOP[vendor], refuses(500), refuses(503))
        assert (await desk.stop(session_id))["status"] == "completed"
        await fake.until(lambda: fake.names.count(STOP[vendor]) == 1)
        assert len(fake.open) == 1
        await let_pass(clock, desk, lambda: not fake.open)
        assert fake.names.count(STOP[vendor]) == 3
        await desk.stop(session_id)
        await desk.status(session_id)
        assert fake.names.count(STOP[vendor]) == 3


async def test_the_stop_is_not_lost_when_the_server_restarts_before_it(tmp_path: Path) -> None:
    clock = ManualClock()
    async with FakeLiveAvatar(clock) as fake:
        values = {
            "LIVEAVATAR_API_KEY": liveavatar.KEY,
            "LIVEAVATAR_BASE_URL": fake.url,
            "LIVEAVATAR_AVATAR_ID": liveavatar.AVATAR,
        }
        async with serving(tmp_path, Replacements(clock=clock), **values) as server:
            desk = Desk(server)
            session_id = (await desk.start())["sessionId"]
            fake.script("stop", refuses(500))
            await desk.stop(session_id)
            await fake.until(lambda: "stop" in fake.names)
        assert len(fake.open) == 1
        await clock.advance(30)
        async with serving(tmp_path, Replacements(clock=clock), **values):
            await fake.until(lambda: not fake.open)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "fault", [refuses(500), refuses(401), refuses(429, retry_after="5")], ids=["down", "refused", "busy"]
)
async def test_a_vendor_that_cannot_open_leaves_a_session_in_text(
    tmp_path: Path, vendor: str, fault: Any
) -> None:
    async with with_avatar(tmp_path, vendor) as (server, fake, _):
        fake.script(OPEN[vendor], *[fault] * (2 if fault.status == 500 else 1))
        desk = Desk(server)
        started = await desk.start()
        assert (started["status"], started["avatar"]["status"]) == ("recording", "unavailable")
        assert started["livekitToken"] is None and started["heygenSessionId"] is None
        told = await desk.message(started["sessionId"], "Dag mevrouw, fijn dat u tijd maakt.")
        assert told["reply"]["text"]
        await desk.stop(started["sessionId"])
        await desk.feedback(started["sessionId"])
        assert fake.open == []


async def test_an_avatar_that_failed_half_way_is_closed(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, fake, _):
        fake.script("start", refuses(400))
        started = await Desk(server).start()
        assert started["avatar"]["status"] == "unavailable"
        await fake.until(lambda: all(session.stop_reason for session in fake.sessions.values()))


async def test_the_hundred_and_first_avatar_of_a_day_is_refused_with_a_time_to_come_back(
    tmp_path: Path,
) -> None:
    async with with_avatar(tmp_path) as (server, fake, _):
        desk = Desk(server)
        await desk.start()
        limits = server.coaching.practising.sessions._limits
        for _ in range(99):
            await limits.check("avatar", "default/ann")
        body = {"userId": "ann", "scenarioId": "default-sales-scenario"}
        answer = await desk.ask("POST", "/api/roleplay/sessions/start", body, status=429)
        assert answer["code"] == "RATE_LIMITED"
        assert 86_000 <= int(desk.headers["Retry-After"]) == answer["retryAfter"] <= 86_400
        assert len(fake.open) == 1, "nothing was opened for it"
        assert (await desk.start(avatar=False))["status"] == "recording", "text is not limited"
        assert (await desk.start("bob"))["avatar"]["status"] == "ready"


async def test_a_session_nobody_comes_back_to_stops_its_avatar(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, fake, clock):
        desk = Desk(server)
        started = await desk.start()
        await desk.talk(started["sessionId"], TALK[:2])
        await clock.advance(1100)
        for _ in range(2):
            await server.coaching.practising.upkeep.sweep()
        await fake.until(lambda: "stop" in fake.names)
        assert fake.open == []
        assert (await desk.status(started["sessionId"]))["status"] == "abandoned"


async def test_heartbeats_keep_an_avatar_alive_at_most_once_a_minute(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, fake, clock):
        started = await Desk(server).start()
        beat = {"sessionId": started["sessionId"]}
        async with joined(server, started) as client:
            for _ in range(30):
                await client.ask("session:heartbeat", beat)
                await clock.advance(10)
            assert 5 <= fake.names.count("keep-alive") <= 6
            assert len(fake.open) == 1


async def test_an_avatar_that_the_vendor_took_away_is_told_and_the_session_goes_on(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, fake, clock):
        desk = Desk(server)
        started = await desk.start()
        beat = {"sessionId": started["sessionId"]}
        async with joined(server, started) as client:
            next(iter(fake.sessions.values())).stop_reason = "IDLE_TIMEOUT"
            await clock.advance(61)
            assert (await client.ask("session:heartbeat", beat))["ok"]
            told = await client.wait_for("avatar:status")
            assert told == {"sessionId": started["sessionId"], "status": "unavailable"}
            await clock.advance(61)
            assert (await client.ask("session:heartbeat", beat))["status"] == "recording"
            assert len(client.told("avatar:status")) == 1
        assert (await desk.message(started["sessionId"], "Bent u er nog?"))["reply"]["text"]


async def test_before_its_token_ends_a_client_is_moved_to_another_avatar(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, fake, clock):
        started = await Desk(server).start()
        beat = {"sessionId": started["sessionId"]}
        upkeep = server.coaching.practising.upkeep
        async with joined(server, started) as client:
            passed = 0
            while passed < DEFAULT_DURATION_S * 0.9:
                assert client.told("avatar:status") == []
                await clock.advance(60)
                passed += 60
                await client.ask("session:heartbeat", beat)
                await upkeep.sweep()
            told = await client.wait_for("avatar:status")
            assert told["status"] == "ready" and told["heygenSessionId"] != started["heygenSessionId"]
            assert told["livekitToken"] == f"room.jwt.of-{told['heygenSessionId']}"
            assert set(fake.open) == {started["heygenSessionId"], told["heygenSessionId"]}
            await let_pass(clock, Desk(server), lambda: fake.open == [told["heygenSessionId"]])
            await upkeep.sweep()
            assert len(client.told("avatar:status")) == 1
        await Desk(server).stop(started["sessionId"])
        await fake.until(lambda: not fake.open)


async def test_the_browser_is_handed_what_the_avatar_is_to_say(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, _, _clock):
        desk = Desk(server)
        started = await desk.start()
        reply = (await desk.message(started["sessionId"], "Dag mevrouw, hoe gaat het?"))["reply"]
        command = reply["avatarCommand"]
        assert reply["avatarDelivery"] == "client"
        assert command["data"]["text"] == reply["text"]
        assert command["data"]["session_id"] == started["heygenSessionId"]


async def test_heygens_avatar_has_the_text_already(tmp_path: Path) -> None:
    async with with_avatar(tmp_path, "heygen") as (server, fake, _):
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        fake.sessions[fake.open[0]].started = True
        reply = (await desk.message(session_id, "Dag mevrouw, hoe gaat het?"))["reply"]
        assert reply["avatarDelivery"] == "server" and "avatarCommand" not in reply
        assert fake.sessions[fake.open[0]].said == [reply["text"]]


async def test_a_vendor_that_hangs_does_not_hang_the_start(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, fake, _):
        fake.script("token", hang())
        started = await Desk(server).start()
        assert started["avatar"]["status"] == "unavailable"


async def test_no_key_of_a_vendor_is_kept_in_a_file(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, _, _clock):
        desk = Desk(server)
        await desk.stop((await desk.start())["sessionId"])
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert not any(key.encode() in file.read_bytes() for key in KEYS), file.name
