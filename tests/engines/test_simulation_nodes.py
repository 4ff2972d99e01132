"""Simulations on two instances with one PostgreSQL and one Valkey: one of them has a session at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from coach_server.storage import simulations
from tests.api.simulating import GOOD, Office, headset, socket_url
from tests.engines.test_two_nodes import two_nodes

pytestmark = pytest.mark.timeout(90)


async def test_a_session_has_one_owner_and_the_refused_client_keeps_a_ticket(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        started = await Office(one).create()
        async with headset(started["wsUrl"]) as client:
            ticket = client.told("ready")[0]["ticket"]
            await client.say(GOOD[0])
            async with headset(socket_url(two, started["sessionId"], ticket), ready=False) as other:
                assert await other.closed() == 1013
                error = other.told("error")[0]
                assert error["retryable"] is True
            assert not client.is_closed
            await client.say(GOOD[1])
        # Back where the session is, with the ticket of the refusal.
        async with headset(socket_url(one, started["sessionId"], error["ticket"])) as client:
            await client.say(GOOD[2])
            told = await Office(two).session(started["sessionId"])
            assert told["exchanges"] == 3 and len(told["transcript"]) == 6


async def test_another_instance_goes_on_after_the_lease_is_over(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        started = await Office(one).create()
        async with headset(started["wsUrl"]) as client:
            ticket = client.told("ready")[0]["ticket"]
            await client.say(GOOD[0])
            async with two.coaching.database.transaction() as conn:
                # As if its owner had not renewed it.
                await simulations.change(conn, started["sessionId"], lease_until=0.0)
            async with headset(socket_url(two, started["sessionId"], ticket)) as other:
                await other.say(GOOD[1])
                # The one that lost it lets go, and says so.
                assert await client.closed(within_s=20) == 1013
                assert client.told("error")[-1]["retryable"] is True
                await other.say(GOOD[2])
                told = await Office(one).session(started["sessionId"])
                assert told["exchanges"] == 3
                assert len({line["text"] for line in told["transcript"] if line["speaker"] == "TRAINEE"}) == 3


async def test_a_score_made_on_either_instance_reaches_the_client(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        for server in (one, two, one, two):
            started = await Office(server).create()
            async with headset(started["wsUrl"]) as client:
                for line in GOOD[:2]:
                    await client.say(line)
                await client.end()
                score = await client.wait_for("score", within_s=20)
                assert score["data"]["overall"] >= 0
                assert await client.closed() == 1000


async def test_events_uploaded_elsewhere_are_in_the_session(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        started = await Office(one).create()
        async with headset(started["wsUrl"]) as client:
            await client.say("Hello \u0000 there")
            batch = [{"type": "VR_INTERACTION", "time": 1.0, "data": {"a": "b\u0000"}}]
            assert (await Office(two).upload(started["sessionId"], batch))["accepted"] == 1
            assert (await Office(one).upload(started["sessionId"], batch))["duplicates"] == 1
            await client.say(GOOD[0])
