"""The database goes away in the middle of calls and comes back (trust.md G1, G25), on both engines."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from coach_server.services import call_store
from coach_server.storage import journal
from tests.serving import Server, connected, serving
from tests.trust.calling import PAIN, PRICE, next_tip, now, timed, until
from tests.trust.outage import fragile

AUTO = {"warmupMs": 0, "intervalMs": 500}


async def stored_segments(server: Server, call_id: str) -> list[str]:
    status, kept = await server.get(f"/api/conversations/{call_id}/transcript")
    assert status == 200, kept
    return [segment["segmentId"] for segment in kept["segments"]]


async def test_an_outage_silences_nobody_and_loses_no_word(tmp_path: Path, database_url: str) -> None:
    async with (
        fragile(database_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        connected(server) as client,
    ):
        call_id = (await client.start(**AUTO))["conversationId"]
        acknowledged = []
        for number in range(5):
            assert (await client.say(call_id, "caller", f"{PAIN} {number}", segmentId=f"a{number}"))["ok"]
            acknowledged.append(f"a{number}")
        await client.wait_for("AI_TIP")
        await database.fail()
        refused = []
        for number in range(3):
            said = client.say(call_id, "caller", f"{PRICE} {number}", segmentId=f"b{number}")
            answer, seconds = await timed(said)
            assert (answer["ok"], answer["code"]) == (False, "STORAGE_FAILED"), answer
            assert answer["retryable"] is True
            assert seconds < 1.2
            refused.append(f"b{number}")
        tips = len(client.told("AI_TIP"))
        begun = now()
        assert (await client.ask("REQUEST_NEXT_TIP", next_tip(call_id)))["ok"]
        await client.wait_for("AI_TIP", tips + 1)
        assert now() - begun < 2
        status, health = await server.get("/health", key=None)
        assert (status, health["status"]) == (200, "healthy")
        ready, seconds = await timed(server.get("/ready", key=None))
        assert ready[0] == 503 and seconds < 2
        assert (await client.ask("PING"))["ok"]
        await database.heal()
        for segment, number in zip(refused, range(3), strict=True):
            for _ in range(2):
                answer = await client.say(call_id, "caller", f"{PRICE} {number}", segmentId=segment)
            assert answer["ok"], answer
        assert await stored_segments(server, call_id) == acknowledged + refused
        assert (await server.get("/ready", key=None))[0] == 200
        assert client.told("ERROR") == []


async def test_words_of_a_client_that_never_sends_them_again_are_stored_too(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        fragile(database_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        connected(server) as client,
    ):
        call_id = (await client.start())["conversationId"]
        await database.fail()
        answer = await client.say(call_id, "caller", PRICE, segmentId="once")
        assert not answer["ok"]
        ending = asyncio.create_task(client.ask("END_CONVERSATION", {"conversationId": call_id}))
        answer, seconds = await timed(ending)
        assert seconds < 1.2 and answer["retryable"]
        await database.heal()

        async def ended() -> bool:
            status, kept = await server.get(f"/api/conversations/{call_id}")
            return status == 200 and kept["status"] == "ended"

        await until(ended)
        assert await stored_segments(server, call_id) == ["once"]
        await client.wait_for("ANALYSIS_READY")


async def test_a_call_that_starts_in_an_outage_is_coached_and_kept_afterwards(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        fragile(database_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        connected(server) as client,
    ):
        await database.fail()
        begun = now()
        answer, seconds = await timed(client.ask("START_CONVERSATION", {"agentId": "a", **AUTO}))
        assert seconds < 1.2
        started = await client.wait_for("CONVERSATION_STARTED")
        assert now() - begun < 2, "the published client gives up after five seconds"
        assert answer["ok"], answer
        call_id = started["conversationId"]
        await client.send(
            "TRANSCRIPT",
            {"conversationId": call_id, "speaker": "caller", "text": PAIN, "segmentId": "s"},
        )
        tip = await client.wait_for("AI_TIP")
        assert tip["options"] and now() - begun < 6
        await client.send("END_CONVERSATION", {"conversationId": call_id})
        await client.wait_for("CONVERSATION_ENDED")
        await database.heal()

        async def ended() -> bool:
            status, kept = await server.get(f"/api/conversations/{call_id}")
            return status == 200 and kept["status"] == "ended"

        await until(ended)
        assert await stored_segments(server, call_id) == ["s"]
        status, kept = await server.get(f"/api/conversations/{call_id}/tips")
        assert [one["recommendationId"] for one in kept["tips"]] == [tip["recommendationId"]]


async def test_a_start_sent_again_in_an_outage_is_one_call(tmp_path: Path, sqlite_url: str) -> None:
    """On SQLite a locked file can still be read, so that the server cannot know it is away."""
    async with (
        fragile(sqlite_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        connected(server) as client,
    ):
        await database.fail()
        ids = {(await client.start(idempotencyKey="k"))["conversationId"] for _ in range(3)}
        assert len(ids) == 1
        await database.heal()
        call_id = ids.pop()

        async def heard() -> bool:
            return bool((await client.say(call_id, "caller", PAIN, segmentId="s"))["ok"])

        await until(heard)
        assert await stored_segments(server, call_id) == ["s"]


@pytest.mark.postgres
async def test_a_database_that_hangs_silences_nobody(tmp_path: Path, postgres_url: str) -> None:
    """The connections stay open and nothing comes back: worse than a refusal, as only time tells."""
    async with (
        fragile(postgres_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        connected(server) as client,
    ):
        call_id = (await client.start(**AUTO))["conversationId"]
        assert (await client.say(call_id, "caller", PAIN, segmentId="before"))["ok"]
        await client.wait_for("AI_TIP")
        await database.hang()
        answer, seconds = await timed(client.say(call_id, "caller", PRICE, segmentId="during"))
        assert (answer["ok"], answer["retryable"]) == (False, True) and seconds < 1.2
        await client.wait_for("AI_TIP", 2, within=4)
        ready, seconds = await timed(server.get("/ready", key=None))
        assert ready[0] == 503 and seconds < 2
        await database.heal()

        async def heard() -> bool:
            return bool((await client.say(call_id, "caller", PRICE, segmentId="during"))["ok"])

        await until(heard)
        assert await stored_segments(server, call_id) == ["before", "during"]


@pytest.mark.postgres
async def test_a_start_that_may_be_a_repeat_is_refused_while_nobody_can_tell(
    tmp_path: Path, postgres_url: str
) -> None:
    """With an idempotency key the database is asked first; sent again later it starts one call."""
    async with (
        fragile(postgres_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        connected(server) as client,
    ):
        wish = {"agentId": "a", "idempotencyKey": "k"}
        await database.fail()
        answer, seconds = await timed(client.ask("START_CONVERSATION", wish))
        assert (answer["ok"], answer["code"], answer["retryable"]) == (False, "STORAGE_FAILED", True)
        assert seconds < 1.2
        await database.heal()

        async def started() -> bool:
            return bool((await client.ask("START_CONVERSATION", wish))["ok"])

        await until(started)
        _, page = await server.get("/api/conversations")
        assert len(page["conversations"]) == 1


@pytest.mark.postgres
async def test_words_beyond_what_can_be_held_are_refused_and_never_acknowledged_unstored(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_store, "HELD_WRITES", 3)
    monkeypatch.setitem(journal.Journal.__init__.__kwdefaults__, "retry_s", 0.3)
    async with (
        fragile(postgres_url) as database,
        serving(tmp_path, DATABASE_URL=database.url) as server,
        connected(server) as client,
    ):
        call_id = (await client.start())["conversationId"]
        await database.fail()
        segments = [f"s{number}" for number in range(8)]
        said = (client.say(call_id, "caller", PAIN, segmentId=segment) for segment in segments)
        assert {answer["ok"] for answer in await asyncio.gather(*said)} == {False}
        await until(lambda: has_given_up(server, len(segments)), within_s=20)
        await database.heal()
        acknowledged = []
        for segment in segments:
            answer = await client.say(call_id, "caller", PAIN, segmentId=segment)
            if answer["ok"]:
                acknowledged.append(segment)
            else:
                assert answer["code"] == "STORAGE_FAILED"
        stored = await stored_segments(server, call_id)
        assert 0 < len(acknowledged) < len(segments)
        assert set(acknowledged) <= set(stored)


async def has_given_up(server: Server, puts: int) -> bool:
    _, figures = await server.get("/metrics")
    found = re.search(r'coach_journal\{what="failed"\} (\d+)', figures)
    return found is not None and int(found[1]) >= puts
