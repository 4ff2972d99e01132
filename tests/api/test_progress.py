"""Progress over sessions and live calls: one place counts both, and what is new is there at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from coach_server.api.practice import out as practice_out
from coach_server.app import Replacements
from coach_server.testing import ManualClock
from tests.api.practising import TALK, Desk, joined, listening
from tests.api.test_roleplay_feedback import BETTER
from tests.serving import Client, Server, connected, serving

DAY_S = 86_400
CALLED = {"user": "agent", "hugo": "caller"}


async def live_call(server: Server, client: Client, **choices: Any) -> str:
    """A live call with the words of the practice talk; its id, once it is scored."""
    call_id: str = (await client.start(language="nl", **choices))["conversationId"]
    for speaker, text in TALK:
        await client.say(call_id, CALLED[speaker], text)
    await client.ask("END_CONVERSATION", {"conversationId": call_id})
    await client.wait_for("ANALYSIS_READY")
    return call_id


async def scored(desk: Desk, call_id: str) -> dict[str, Any]:
    path = f"/api/conversations/{call_id}/feedback"
    async with asyncio.timeout(15):
        while True:
            status, answer = await desk.try_("GET", path)
            if status == 200:
                return answer
            assert status == 409, answer


async def test_before_the_first_session_there_is_a_beginning(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        progress = await Desk(server).progress("nobody-yet")
        assert (progress["totalSessions"], progress["averageScore"], progress["bestScore"]) == (0, 0, None)
        assert (progress["currentPhase"], progress["currentStep"]) == (1, "1.1")
        assert (progress["unlockedPhases"], progress["lastSessionAt"]) == ([1], None)
        assert progress["curve"] == [] and set(progress["skill"]) == {"1", "2", "3", "4"}


async def test_progress_grows_with_every_session(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        scores = []
        for number, turns in enumerate((TALK, BETTER, TALK), 1):
            await clock.advance(3600)
            scores.append((await desk.practise(turns))["overallScore"])
            progress = await desk.progress()
            assert progress["totalSessions"] == progress["scoredSessions"] == number
            assert [point["score"] for point in progress["curve"]] == scores
            assert progress["bestScore"] == max(scores)
            assert abs(progress["averageScore"] - sum(scores) / number) <= 0.5
        step = progress["stepProgress"]["1.2"]
        assert step["attempts"] == 3 and step["status"] in ("completed", "locked", "current", "upcoming")
        assert len(progress["skill"]["1"]) == 3
        assert await desk.progress("bob") == await Desk(server).progress("bob")


async def test_a_score_is_in_the_progress_as_soon_as_the_feedback_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        assert (await desk.progress())["totalSessions"] == 0
        started = await desk.start()
        async with joined(server, started) as client:
            await desk.talk(started["sessionId"])
            assert (await desk.progress())["totalSessions"] == 0
            await desk.stop(started["sessionId"])
            assert (await desk.progress())["totalSessions"] == 1
            told = await client.wait_for("feedback:ready")
            assert (await desk.progress())["averageScore"] == told["overallScore"]


async def test_steps_ticked_off_by_hand_count_as_soon_as_the_session_is_over(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        await desk.progress()
        async with joined(server, started) as client:
            await client.ask("step:complete", {"sessionId": started["sessionId"], "stepId": "1.1"})
        await desk.stop(started["sessionId"])
        progress = await desk.progress()
        assert progress["stepProgress"]["1.1"]["status"] == "completed"
        assert progress["currentStep"] == "1.2"


async def test_a_step_grows_stale_when_it_is_not_practised(tmp_path: Path) -> None:
    async with serving(tmp_path, Replacements(clock=ManualClock())) as server:
        desk = Desk(server)
        started = await desk.start()
        async with joined(server, started) as client:
            await client.ask("step:complete", {"sessionId": started["sessionId"], "stepId": "1.1"})
        await desk.stop(started["sessionId"])
        assert (await desk.progress())["staleSteps"] == []
    later = ManualClock(ManualClock().now() + 22 * DAY_S)
    async with serving(tmp_path, Replacements(clock=later)) as server:
        progress = await Desk(server).progress()
        assert progress["staleSteps"] == ["1.1"] and progress["stepProgress"]["1.1"]["stale"] is True
        assert progress["stepProgress"]["1.1"]["status"] == "completed", "what was earned stays earned"


async def test_a_live_call_is_scored_by_the_same_method_and_counts_beside_practice(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        practised = await desk.practise()
        token = await server.token("ann")
        async with connected(server, {"token": token}) as client:
            call_id = await live_call(server, client)
        ann = Desk(server, token=token)
        feedback = await scored(ann, call_id)
        assert feedback["conversationId"] == call_id and feedback["method"]["id"] == "hugo"
        assert feedback["overallScore"] is not None
        assert set(feedback["techniquesUsed"]) & set(practised["techniquesUsed"])
        progress = await desk.progress()
        assert (progress["totalSessions"], progress["totalCalls"]) == (1, 1)
        assert progress["averageCallScore"] == feedback["overallScore"]
        assert [point["kind"] for point in progress["curve"]] == ["roleplay", "call"]
        assert progress["stepProgress"]["1.2"]["attempts"] == 2
        calls = [d for d in await desk.drills() if d["source"] == {"kind": "call", "id": call_id}]
        assert calls == feedback["drills"]
        assert (await scored(ann, call_id)) == feedback


async def test_the_feedback_of_a_call_is_for_those_who_may_see_the_call(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        token = await server.token("ann", team="east")
        async with connected(server, {"token": token}) as client:
            call_id = (await client.start(language="nl"))["conversationId"]
            path = f"/api/conversations/{call_id}/feedback"
            await Desk(server, token=token).ask("GET", path, status=409)
            stranger = Desk(server, token=await server.token("bob", team="east"))
            await stranger.ask("GET", path, status=404)
            assert (await client.ask("END_CONVERSATION", {"conversationId": call_id}))["ok"]
        manager = Desk(server, token=await server.token("max", role="manager", team="east"))
        assert (await scored(manager, call_id))["insufficient"] is True
        await Desk(server).ask("GET", "/api/conversations/nobody/feedback", status=404)


async def test_a_tip_of_a_live_call_names_technique_phase_and_attitude(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with listening(server) as client:
            call_id = (await client.start(language="nl", warmupMs=0))["conversationId"]
            await client.say(call_id, "agent", "Hoe loopt de planning bij u?")
            await client.say(call_id, "caller", "Dat is veel te duur voor ons, ik moet erover nadenken.")
            await client.ask("REQUEST_NEXT_TIP", {"conversationId": call_id})
            tip = await client.wait_for("AI_TIP")
        techniques = await Desk(server).ask("GET", "/api/roleplay/techniques?language=nl")
        practice_out.TechniquesAnswer.model_validate(techniques)
        ids = {step["id"] for phase in techniques["phases"] for step in phase["steps"]}
        ids |= {d["id"] for phase in techniques["phases"] for step in phase["steps"] for d in step["details"]}
        assert tip["techniqueId"] in ids
        assert tip["phase"] in {phase["id"] for phase in techniques["phases"]}
        assert tip["attitude"] is None or tip["attitude"] in {a["id"] for a in techniques["attitudes"]}
