"""Lost moments: listed, played again for a minute or so, closed by a better answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coach_server.app import Replacements
from coach_server.testing import ManualClock
from tests.api.practising import UNKNOWN, Desk, joined
from tests.serving import serving

POOR = "Ja, ja."


async def play(desk: Desk, drill: dict[str, Any], *lines: str) -> dict[str, Any]:
    """Play it with these lines; the drill afterwards."""
    started = await desk.ask("POST", f"/api/drills/{drill['id']}/start")
    for line in lines:
        await desk.message(started["sessionId"], line)
    await desk.stop(started["sessionId"])
    await desk.feedback(started["sessionId"])
    return next(one for one in await desk.drills() if one["id"] == drill["id"])


async def test_the_lost_moments_of_a_session_are_its_drills(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        feedback = await desk.practise()
        drills = await desk.drills()
        assert 1 <= len(drills) <= 3 and drills == feedback["drills"]
        for drill in drills:
            assert (drill["status"], drill["attempts"], drill["bestQuality"]) == ("open", 0, None)
            assert drill["source"] == {"kind": "roleplay", "id": feedback["sessionId"]}
            assert 60 <= drill["seconds"] <= 90 and drill["customerLines"] and drill["better"]
        assert await desk.drills(query="&status=open") == drills
        assert await desk.drills(query="&status=closed") == []
        assert await desk.drills("bob") == []


async def test_a_drill_is_played_against_the_customers_own_words_and_shows_no_hints(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        drill = (await desk.practise())["drills"][0]
        started = await desk.ask("POST", f"/api/drills/{drill['id']}/start")
        assert (started["kind"], started["drill"]["id"]) == ("drill", drill["id"])
        assert started["opening"]["text"] in drill["customerLines"]
        async with joined(server, started) as client:
            for _ in range(6):
                await desk.message(started["sessionId"], POOR)
            assert client.told("hint:show") == []
        assert (await desk.drills())[0]["attempts"] == 1


async def test_a_poor_answer_leaves_a_drill_open_and_a_better_one_closes_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        first = await desk.practise()
        drill = first["drills"][0]
        after = await play(desk, drill, POOR)
        assert (after["status"], after["attempts"], after["closedAt"]) == ("open", 1, None)
        after = await play(desk, drill, drill["better"])
        assert (after["status"], after["attempts"]) == ("closed", 2)
        assert after["closedAt"] is not None and after["bestQuality"] in ("perfect", "goed")
        assert [one["id"] for one in await desk.drills(query="&status=closed")] == [drill["id"]]
        again = await play(desk, drill, POOR)
        assert (again["status"], again["bestQuality"]) == ("closed", after["bestQuality"])
        told = await desk.ask("GET", f"/api/roleplay/sessions/{first['sessionId']}/feedback")
        assert told["drills"][0]["status"] == "closed"


async def test_drills_count_for_the_skill_and_not_as_sessions(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        drill = (await desk.practise())["drills"][0]
        await play(desk, drill, POOR, drill["better"], "Hoe bedoelt u?", drill["better"])
        progress = await desk.progress()
        assert progress["totalSessions"] == 1
        assert len(await desk.drills()) == len(await desk.drills(query="&status=open")) + 1


async def test_a_drill_ends_by_itself_when_its_time_is_over(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        drill = (await desk.practise())["drills"][0]
        started = await desk.ask("POST", f"/api/drills/{drill['id']}/start")
        session_id = started["sessionId"]
        await desk.message(session_id, drill["better"])
        await clock.advance(91)
        await desk.ask(
            "POST", f"/api/roleplay/sessions/{session_id}/message", {"text": "Nog iets."}, status=409
        )
        status = await desk.status(session_id)
        assert (status["status"], status["duration"]) == ("completed", 90)
        assert (await desk.feedback(session_id))["status"] == "completed"


async def test_an_unknown_drill_is_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        for name in (UNKNOWN, "x", "a" * 200):
            answer = await desk.ask("POST", f"/api/drills/{name}/start", status=404)
            assert answer["field"] == "drillId"
        refused = await desk.ask("GET", "/api/drills", status=400)
        assert refused["field"] == "userId"
        refused = await desk.ask("GET", "/api/drills?userId=ann&status=lost", status=400)
        assert refused["field"] == "status"
