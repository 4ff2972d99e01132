"""kill -9 of the whole server while somebody practises: no acknowledged message is lost, and a session gets
one feedback, on either engine."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.crash.test_kill import engine_of
from tests.fakes import openai as fakes
from tests.fakes.openai import FakeOpenAI, Seen, Step
from tests.process import ServerProcess, server_process
from tests.serving import Server, connected
from tests.trust.talking import SESSIONS, Talker, talking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]
ROUNDS = 2
TALKS = 10
LANES = 10


async def exported(server: Server, user: str) -> dict[str, dict[str, Any]]:
    """The user's sessions as stored, by id."""
    status, document = await server.get(f"/api/users/{user}/export")
    assert status == 200
    return {one["sessionId"]: one for one in document["sessions"]}


async def talk_until_killed(process: ServerProcess, ids: list[str], round_: int) -> set[tuple[str, str]]:
    """A hundred messages under way; the server is killed when some were acknowledged. Answers those."""
    acknowledged: set[tuple[str, str]] = set()
    enough = asyncio.Event()
    target = random.Random(round_).randint(20, 150)

    async def speak(talker: Talker, id: str, lane: int) -> None:
        number = 0
        while True:
            message_id = f"{round_}-{lane}-{number}"
            number += 1
            try:
                status, _ = await talker.say(id, f"What about {message_id}?", messageId=message_id)
            except (aiohttp.ClientError, TimeoutError):
                return
            if status == 200:
                acknowledged.add((id, f"What about {message_id}?"))
            if len(acknowledged) >= target:
                enough.set()

    connector = aiohttp.TCPConnector(limit=TALKS * LANES)
    async with aiohttp.ClientSession(connector=connector) as http:
        talker = Talker(process.server, http)
        lanes = [asyncio.create_task(speak(talker, id, lane)) for id in ids for lane in range(LANES)]
        await enough.wait()
        await process.kill()
        await asyncio.gather(*lanes)
    return acknowledged


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_kills_in_the_middle_of_talks_lose_no_acknowledged_message_and_double_none(
    tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    async with server_process(tmp_path, **engine_of(request, engine)) as process:
        server = await process.start()
        async with talking(server) as talker:
            ids = [str((await talker.start("ann"))["sessionId"]) for _ in range(TALKS)]
        acknowledged: set[tuple[str, str]] = set()
        for round_ in range(ROUNDS):
            acknowledged |= await talk_until_killed(process, ids, round_)
            server = await process.start()
        sessions = await exported(server, "ann")
        async with talking(server) as talker:
            for id in ids:
                turns = sessions[id]["transcript"]
                said = Counter(turn["message"] for turn in turns if turn["speaker"] == "user")
                assert {words for of, words in acknowledged if of == id} <= set(said)
                assert set(said.values()) == {1}
                assert [turn["sequenceNumber"] for turn in turns] == list(range(1, len(turns) + 1))
                status, told, _ = await talker.ask("GET", f"{SESSIONS}/{id}/status")
                assert (status, told["transcriptLength"]) == (200, len(turns))
                assert (await talker.message(id, "Shall we go on?"))[0] == 200


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_an_analysis_killed_while_the_model_thinks_gives_one_feedback_after_the_restart(
    tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    async with FakeOpenAI() as fake:
        thinking: list[Seen] = []
        fake.on_request = holding(fake, thinking)
        model = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with server_process(tmp_path, **model, **engine_of(request, engine)) as process:
            server = await process.start()
            async with talking(server) as talker:
                id = str((await talker.start("ann"))["sessionId"])
                await talker.talk(id)
                assert (await talker.stop(id))["feedbackQueued"]
                await fake.until(lambda: thinking)
                assert (await talker.ask("GET", f"{SESSIONS}/{id}/feedback"))[0] == 409
                await process.kill()
            fake.on_request = None
            server = await process.start()
            async with talking(server) as talker, connected(server) as client:
                joined = await client.ask("session:join", {"sessionId": id, "userId": "ann"})
                assert joined["ok"], joined
                told = await client.wait_for("feedback:ready", within=40)
                feedback = await talker.feedback(id)
                assert told == {"sessionId": id, "overallScore": feedback["overallScore"]}
                assert_drills_are_single(feedback)
                progress = (await talker.ask("GET", "/api/roleplay/users/ann/progress"))[1]
                assert progress["totalSessions"] == 1
            async with connected(server) as late:
                await late.ask("session:join", {"sessionId": id})
                assert await late.wait_for("feedback:ready") == told
            # Told again to whoever joins while it is being told; never with another score.
            assert all(again == told for again in client.told("feedback:ready"))


def holding(fake: FakeOpenAI, thinking: list[Seen]) -> Any:
    """The model answers the talk and hangs over its assessment."""

    def step(seen: Seen) -> Step | None:
        if seen.schema_name is None or "assess" not in seen.schema_name:
            return None
        thinking.append(seen)
        fake.changed()
        return fakes.hang()

    return step


def assert_drills_are_single(feedback: dict[str, Any]) -> None:
    played = [(drill["technique"], drill["moment"], drill["sellerLine"]) for drill in feedback["drills"]]
    assert played and len(played) == len(set(played))


async def test_kills_among_many_analyses_leave_each_session_one_feedback(tmp_path: Path) -> None:
    async with server_process(tmp_path) as process:
        server = await process.start()
        ids: list[str] = []
        async with talking(server) as talker:
            for _ in range(8):
                ids.append(str((await talker.start("ann"))["sessionId"]))
                await talker.talk(ids[-1])
            stops = [asyncio.create_task(talker.stop(id)) for id in ids]
            await talker.feedback((await asyncio.gather(*stops))[0]["sessionId"])
            await process.kill()
        server = await process.start()
        async with talking(server) as talker:
            found = [await talker.feedback(id) for id in ids]
            drills = (await talker.ask("GET", "/api/drills?userId=ann"))[1]["drills"]
        for feedback in found:
            assert_drills_are_single(feedback)
        assert len(drills) == len({drill["id"] for feedback in found for drill in feedback["drills"]})
        assert {one["kind"] for one in (await exported(server, "ann")).values()} == {"practice"}
