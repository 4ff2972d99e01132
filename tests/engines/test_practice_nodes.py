"""Practice on two instances with one PostgreSQL and one Valkey: either takes any event of any session."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from coach_server.storage import roleplays
from coach_server.storage.tables import jobs, roleplay_feedback
from tests.engines.test_two_nodes import two_nodes
from tests.serving import Server, connected
from tests.trust.calling import until
from tests.trust.talking import SELLER, SESSIONS, Talker, talking

pytestmark = pytest.mark.timeout(90)
CLIMATE = "How has your week been, busy with the trade fair?"  # the method's step 1.1


async def exported(server: Server, user: str) -> dict[str, Any]:
    status, document = await server.get(f"/api/users/{user}/export")
    assert status == 200
    return {one["sessionId"]: one for one in document["sessions"]}


async def test_a_listener_on_one_instance_hears_what_the_other_one_is_told(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with (
        two_nodes(tmp_path, postgres_url, redis_url) as (one, two),
        talking(one) as here,
        talking(two) as there,
    ):
        started = await here.start("ann")
        id = str(started["sessionId"])
        async with connected(one, {"joinToken": started["joinToken"]}) as client:
            assert (await client.ask("session:join", {"sessionId": id}))["ok"]
            assert (await there.say(id, CLIMATE))[0] == 200
            step = await client.wait_for("step:updated")
            assert (step["previousStepId"], step["status"]) == ("1.1", "completed")
            await there.talk(id)
            assert (await client.wait_for("roleplay:reply", len(SELLER)))["reply"]["text"]
            await there.stop(id)
            ready = await client.wait_for("feedback:ready")
            feedback = await here.feedback(id)
            assert ready == {"sessionId": id, "overallScore": feedback["overallScore"]}
            assert feedback == await there.feedback(id)


async def test_messages_to_both_instances_at_once_are_each_stored_once_in_one_order(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with (
        two_nodes(tmp_path, postgres_url, redis_url) as (one, two),
        talking(one) as here,
        talking(two) as there,
    ):
        id = str((await here.start("ann"))["sessionId"])
        numbers: list[int] = []

        async def speak(talker: Talker, lane: str, doubled: bool) -> None:
            for number in range(15):
                name = f"{'both' if doubled else lane}-{number}"
                status, answer = await talker.say(id, f"What about {name}?", messageId=name)
                assert status == 200, answer
                numbers.append(answer["sequenceNumber"])

        lanes = [speak(here, "a", False), speak(here, "b", False), speak(there, "c", False)]
        await asyncio.gather(*lanes, speak(here, "", True), speak(there, "", True))
        turns = (await exported(two, "ann"))[id]["transcript"]
        said = Counter(turn["message"] for turn in turns if turn["speaker"] == "user")
        assert len(said) == 60 and set(said.values()) == {1}
        assert [turn["sequenceNumber"] for turn in turns] == list(range(1, len(turns) + 1))
        assert set(numbers) == {turn["sequenceNumber"] for turn in turns if turn["speaker"] == "user"}


async def test_answers_on_both_instances_at_once_lose_no_turn(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with (
        two_nodes(tmp_path, postgres_url, redis_url) as (one, two),
        talking(one) as here,
        talking(two) as there,
    ):
        id = str((await here.start("ann"))["sessionId"])

        async def ask(talker: Talker, lane: str) -> None:
            for number in range(8):
                status, answer = await talker.message(id, f"What about {lane} {number}?")
                assert status == 200, answer
                assert answer["reply"]["text"]

        await asyncio.gather(ask(here, "a"), ask(there, "b"), ask(there, "c"))
        turns = (await exported(one, "ann"))[id]["transcript"]
        assert [turn["sequenceNumber"] for turn in turns] == list(range(1, 50))
        speakers = Counter(turn["speaker"] for turn in turns)
        assert speakers == {"user": 24, "hugo": 25}  # he opened the talk


async def test_an_analysis_runs_once_whoever_stops_the_session(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with (
        two_nodes(tmp_path, postgres_url, redis_url) as (one, two),
        talking(one) as here,
        talking(two) as there,
    ):
        ids = [str((await here.start("ann"))["sessionId"]) for _ in range(6)]
        await asyncio.gather(*(here.talk(id) for id in ids))
        await asyncio.gather(*(talker.stop(id) for id in ids for talker in (here, there)))
        feedbacks = [await there.feedback(id) for id in ids]
        await until(lambda: is_quiet(one))
        async with one.coaching.database.read() as conn:
            rows = (await conn.execute(select(func.count()).select_from(roleplay_feedback))).scalar_one()
            wanted = select(jobs.c.key, jobs.c.status, jobs.c.attempts).where(
                jobs.c.kind == "analyse_roleplay"
            )
            found = (await conn.execute(wanted)).all()
        assert rows == len(ids)
        assert sorted(found) == sorted((f"analyse_roleplay:{id}", "done", 1) for id in ids)
        drills = (await here.ask("GET", "/api/drills?userId=ann"))[1]["drills"]
        assert len(drills) == sum(len(one["drills"]) for one in feedbacks)
        progress = (await there.ask("GET", "/api/roleplay/users/ann/progress"))[1]
        assert progress["totalSessions"] == len(ids)


async def is_quiet(server: Server) -> bool:
    counts = await server.coaching.jobs.counts()
    return counts["queued"] == counts["running"] == 0


async def test_two_sweeps_at_once_end_a_session_once(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with (
        two_nodes(tmp_path, postgres_url, redis_url) as (one, two),
        talking(one) as here,
    ):
        ids = [str((await here.start("ann"))["sessionId"]) for _ in range(5)]
        await asyncio.gather(*(here.talk(id, SELLER[0], SELLER[1]) for id in ids))
        for id in ids:
            await backdate(one, id)
        await asyncio.gather(*(node.coaching.practising.upkeep.sweep() for node in (one, two, one, two)))
        for id in ids:
            told = (await here.ask("GET", f"{SESSIONS}/{id}/status"))[1]
            assert told["status"] == "abandoned"
        await until(lambda: is_quiet(two))
        async with one.coaching.database.read() as conn:
            wanted = select(jobs.c.key).where(jobs.c.kind == "analyse_roleplay")
            keys = list((await conn.execute(wanted)).scalars())
        assert sorted(keys) == sorted(f"analyse_roleplay:{id}" for id in ids)


async def backdate(server: Server, id: str, seconds: float = 3600.0) -> None:
    """As if everything in this session had happened earlier: in its row, and in the machine in it."""
    moments = ("started_at", "last_seen_at")
    async with server.coaching.database.transaction() as conn:
        held = await roleplays.load(conn, id, to_change=True)
        assert held is not None
        machine = held.state["machine"]
        earlier = {name: machine[name] - seconds for name in moments}
        held = replace(held, state={**held.state, "machine": machine | earlier})
        row = {name: getattr(held, name) - seconds for name in moments}
        await roleplays.save(conn, replace(held, **row), held.last_seen_at)


async def test_what_one_instance_erased_the_other_one_forgets_at_once(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async with (
        two_nodes(tmp_path, postgres_url, redis_url) as (one, two),
        talking(one) as here,
        talking(two) as there,
    ):
        await here.practise("ann")
        running = str((await there.start("ann", storeTranscript=False))["sessionId"])
        await there.talk(running, *SELLER[:3])
        way = "/api/roleplay/users/ann/progress"
        assert (await there.ask("GET", way))[1]["totalSessions"] == 1
        assert (await here.ask("DELETE", "/api/users/ann"))[0] == 200

        async def forgotten() -> bool:
            return bool((await there.ask("GET", way))[1]["totalSessions"] == 0)

        await until(forgotten)
        assert (await there.message(running, "Are you there?"))[0] == 404
        assert two.coaching.practising.talk._unstored == {}
