"""Pings, silence and probes, alike on both drivers."""

from __future__ import annotations

import asyncio

import pytest

from coach_server.testing import ManualClock
from tests.api.engine_harness import DRIVERS, Driver, RawPolling, RawWebSocket, serve, until


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    return request.param  # type: ignore[no-any-return]


async def test_a_client_that_answers_its_pings_stays(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        for _ in range(10):
            await clock.advance(26)
            assert await raw.read() == "2"
            await raw.send("3")
            assert await raw.ask("NOTE") == [{"ok": True}]


async def test_a_polling_client_that_answers_its_pings_stays(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served:
        raw = await served.polling()
        for _ in range(5):
            await clock.advance(26)
            assert await raw.poll() == ["2"]
            await raw.post("3")
        assert raw.greeting["sid"] in served.server.eio.sockets


async def test_a_silent_client_is_dropped_45_seconds_after_it_was_heard(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        polling = await served.polling()
        await clock.advance(44)
        assert served.seen.partings == []
        await clock.advance(3)
        await until(lambda: len(served.seen.partings) == 2)
        assert sorted(served.seen.partings) == sorted(
            [(raw.sid, "ping timeout"), (polling.sid, "ping timeout")]
        )
        await raw.closed()
        await until(lambda: not served.server.eio.sockets)


async def test_any_packet_counts_as_a_sign_of_life(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        for _ in range(6):
            await clock.advance(14)
            assert await raw.ask("NOTE") == [{"ok": True}]
        assert served.seen.partings == []


async def test_a_regular_ping_comes_every_25_seconds_whatever_was_probed(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        for second in range(1, 78):
            await clock.advance(1)
            if second % 10 == 0:
                probe = asyncio.create_task(served.server.probe(raw.sid, 2))
                assert await raw.ask("NOTE") == [{"ok": True}]
                assert await probe
            assert await raw.ask("NOTE") == [{"ok": True}]
        assert raw.pings == 3 + 7


@pytest.mark.parametrize("answer", ["3", '42["NOTE",1]'])
async def test_a_probe_pings_at_once_and_any_packet_answers_it(driver: Driver, answer: str) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        probe = asyncio.create_task(served.server.probe(raw.sid, 2))
        assert await raw.read() == "2"
        assert not probe.done()
        await raw.send(answer)
        assert await asyncio.wait_for(probe, 5) is True


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_probe_of_a_silent_client_ends_after_its_time(driver: Driver, transport: str) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as socket:
        raw: RawWebSocket | RawPolling = socket if transport == "websocket" else await served.polling()
        for _ in range(2):
            probe = asyncio.create_task(served.server.probe(raw.sid, 2))
            await clock.advance(1.9)
            assert not probe.done()
            await clock.advance(0.2)
            assert await asyncio.wait_for(probe, 5) is False


async def test_a_polling_client_answers_a_probe_by_its_next_post(driver: Driver) -> None:
    async with serve(driver) as served:
        raw = await served.polling()
        polling = asyncio.create_task(raw.poll())
        probe = asyncio.create_task(served.server.probe(raw.sid, 5))
        assert await polling == ["2"]
        await raw.post("3")
        assert await probe is True


async def test_probes_at_the_same_time_share_one_ping(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        probes = [asyncio.create_task(served.server.probe(raw.sid, 2 + number)) for number in range(5)]
        assert await raw.read() == "2"
        await clock.advance(2.5)
        assert await asyncio.wait_for(probes[0], 5) is False
        assert await raw.ask("NOTE") == [{"ok": True}]
        assert await asyncio.gather(*probes[1:]) == [True] * 4


async def test_a_probe_after_an_unanswered_one_pings_again(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        for expected in (False, True):
            probe = asyncio.create_task(served.server.probe(raw.sid, 2))
            assert await raw.read() == "2"
            if expected:
                await raw.send("3")
            else:
                await clock.advance(3)
            assert await asyncio.wait_for(probe, 5) is expected


async def test_a_probe_of_nobody_and_of_one_who_leaves_is_false(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        assert await served.server.probe("nobody", 60) is False
        probe = asyncio.create_task(served.server.probe(raw.sid, 60))
        await raw.read()
        await raw.ws.close()
        assert await asyncio.wait_for(probe, 5) is False


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="+".join)
async def test_the_python_client_answers_probes(driver: Driver, transports: list[str]) -> None:
    async with serve(driver) as served, served.client(*transports) as client:
        assert await served.server.probe(client.get_sid(), 5) is True
        assert await client.call("NOTE") == {"ok": True}
