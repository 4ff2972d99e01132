"""Two instances on one PostgreSQL and one Valkey: a call goes with its client, wherever it connects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coach_server.providers.bus import RedisBus
from coach_server.storage import conversations, transcripts
from tests.serving import Client, Server, connected, serving
from tests.trust.calling import until

PAIN = "We lose about two days a month on invoices, it is a real mess."


@asynccontextmanager
async def two_nodes(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> AsyncIterator[tuple[Server, Server]]:
    shared = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url}
    async with (
        serving(tmp_path / "one", NODE_ID="one", **shared) as one,
        serving(tmp_path / "two", NODE_ID="two", **shared) as two,
    ):
        for server in (one, two):
            bus = server.coaching.bus
            assert isinstance(bus, RedisBus)
            await bus.listening.wait()
        yield one, two


async def test_a_client_that_comes_back_on_the_other_instance_goes_on_at_once(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        client = await Client().connect(one)
        started = await client.start()
        call_id = started["conversationId"]
        await client.say(call_id, "caller", PAIN, segmentId="s1")
        await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
        await client.wait_for("AI_TIP")
        await client.close()
        async with connected(two) as client:
            resume = {"conversationId": call_id, "resumeToken": started["resumeToken"], "lastSeq": 1}
            answer = await client.ask("RESUME_CONVERSATION", resume)
            assert answer["ok"] and answer["recovered"] and answer["missed"] == 1
            assert (await client.say(call_id, "caller", "again", segmentId="s1"))["duplicate"]
            assert (await client.say(call_id, "caller", "more"))["sequence"] == 2
            assert one.coaching.calls.active == 0 and two.coaching.calls.active == 1


async def test_an_old_client_moves_without_a_token_once_its_socket_is_gone(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        client = await Client().connect(one)
        call_id = (await client.start())["conversationId"]
        async with connected(two) as newcomer:
            assert (await newcomer.say(call_id, "agent", "too early"))["code"] == "NOT_FOUND"
            await client.close()
            await newcomer.send(
                "TRANSCRIPT",
                {"conversationId": call_id, "speaker": "caller", "text": PAIN, "isFinal": True},
            )
            await newcomer.send("REQUEST_NEXT_TIP", {"conversationId": call_id})
            tip = await newcomer.wait_for("AI_TIP")
            assert tip["conversationId"] == call_id


async def test_the_analysis_is_told_on_the_instance_the_client_is_connected_to(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        await one.coaching.jobs.drain()  # so that the other instance works for it
        async with connected(one) as client:
            call_id = (await client.start())["conversationId"]
            await client.say(call_id, "caller", PAIN)
            await client.ask("END_CONVERSATION", {"conversationId": call_id})
            ready = await client.wait_for("ANALYSIS_READY")
            assert ready["conversationId"] == call_id
        assert two.coaching.jobs is not one.coaching.jobs


async def test_a_drained_instance_lets_go_of_its_calls_at_once(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        client = await Client().connect(one)
        started = await client.start()
        await one.coaching.calls.drain()
        async with connected(two) as newcomer, asyncio.timeout(5):
            resume = {
                "conversationId": started["conversationId"],
                "resumeToken": started["resumeToken"],
                "lastSeq": 1,
            }
            assert (await newcomer.ask("RESUME_CONVERSATION", resume))["recovered"]
        await client.close()


@pytest.mark.timeout(60)
async def test_the_calls_of_an_instance_that_died_are_taken_over_when_its_lease_is_over(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    from tests.process import server_process

    shared = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url}
    (tmp_path / "dead").mkdir()
    async with server_process(tmp_path / "dead", NODE_ID="dead", **shared) as process:
        server = await process.start()
        client = await Client().connect(server)
        started = await client.start()
        call_id = started["conversationId"]
        assert (await client.say(call_id, "caller", PAIN, segmentId="s1"))["ok"]
        await process.kill()
        await client.close()
        async with serving(tmp_path / "two", NODE_ID="two", **shared) as two, connected(two) as client:
            resume = {"conversationId": call_id, "resumeToken": started["resumeToken"], "lastSeq": 1}
            await client.send("RESUME_CONVERSATION", resume)
            await client.wait_for("CONVERSATION_RESUMED", within=25)
            assert (await client.say(call_id, "caller", PAIN, segmentId="s1"))["duplicate"]


async def test_a_call_that_the_other_instance_owns_is_erased_with_its_user(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with two_nodes(tmp_path, postgres_url, redis_url) as (one, two):
        async with connected(one, {"token": await one.token("ann")}) as client:
            call_id = (await client.start())["conversationId"]
            await client.say(call_id, "caller", PAIN)
            status, receipt = await two.request("DELETE", "/api/users/ann")
            assert status == 200 and receipt["counts"]["utterances"] == 1
            await client.wait_for("CONVERSATION_ENDED")
            assert (await client.say(call_id, "caller", PAIN))["code"] == "NOT_FOUND"
        assert one.coaching.calls.active == 0
        async with one.coaching.database.read() as conn:
            assert await conversations.load(conn, call_id) is None


async def test_without_messages_between_instances_an_erased_call_ends_with_its_lease(
    tmp_path: Path, postgres_url: str
) -> None:
    shared = {"DATABASE_URL": postgres_url}
    async with (
        serving(tmp_path / "one", NODE_ID="one", **shared) as one,
        serving(tmp_path / "two", NODE_ID="two", **shared) as two,
        connected(one) as client,
    ):
        call_id = (await client.start())["conversationId"]
        assert (await two.request("DELETE", f"/api/conversations/{call_id}"))[0] == 200
        answer = await client.say(call_id, "caller", PAIN)
        assert (answer["ok"], answer["code"]) == (False, "STORAGE_FAILED")

        async def gone() -> bool:
            return one.coaching.calls.active == 0

        await until(gone)
        async with one.coaching.database.read() as conn:
            assert await conversations.load(conn, call_id) is None
            assert await transcripts.all(conn, call_id) == []
