"""A running practice session from outside: who may touch it, what is refused, what a repetition does, and
what time alone does to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import socketio.exceptions

from coach_server.app import Replacements
from coach_server.testing import ManualClock
from tests.api.practising import (
    SCENARIO,
    SESSIONS,
    TALK,
    UNKNOWN,
    Desk,
    Listener,
    joined,
    listening,
)
from tests.serving import OTHER_KEY, Server, serving

SAID = {"speaker": "user", "message": "Dag mevrouw, fijn dat u tijd maakt."}


def everything(session_id: str) -> list[tuple[str, str, object]]:
    """Every request that touches a session."""
    one = f"{SESSIONS}/{session_id}"
    return [
        ("GET", f"{one}/status", None),
        ("GET", f"{one}/feedback", None),
        ("POST", f"{one}/transcript", SAID),
        ("POST", f"{one}/message", {"text": "Dag."}),
        ("POST", f"{one}/analyze", None),
        ("POST", f"{one}/stop", None),
    ]


def every_event(session_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("session:join", {"sessionId": session_id}),
        ("session:heartbeat", {"sessionId": session_id}),
        ("step:complete", {"sessionId": session_id, "stepId": "1.1"}),
        ("roleplay:message", {"sessionId": session_id, "text": "Dag."}),
    ]


# --- access


async def test_a_session_of_somebody_else_is_not_there_for_anybody(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        owner = Desk(server, token=await server.token("ann", role="trainee", team="east"))
        session_id = (await owner.start(None))["sessionId"]
        before = await owner.status(session_id)
        strangers = {
            "a colleague": {"token": await server.token("bob", role="trainee", team="east")},
            "an agent": {"token": await server.token("cas", role="agent", team="east")},
            "a manager of another team": {"token": await server.token("max", role="manager", team="west")},
            "a manager of no team": {"token": await server.token("moe", role="manager")},
            "another key": {"apiKey": OTHER_KEY},
            "an admin of another key": {"token": await server.token("eve", role="admin", key=OTHER_KEY)},
        }
        for name, auth in strangers.items():
            desk = Desk(server, key=auth.get("apiKey"), token=auth.get("token"))
            for method, path, body in everything(session_id):
                answer = await desk.ask(method, path, body, status=404)
                assert (answer["code"], answer["field"]) == ("NOT_FOUND", "sessionId"), (name, path)
                unknown = await desk.ask(method, path.replace(session_id, UNKNOWN), body, status=404)
                assert unknown == answer, "a session of somebody else looks as one that is not there"
            async with listening(server, auth) as client:
                for event, data in every_event(session_id):
                    refused = await client.ask(event, data)
                    assert (refused["ok"], refused["code"]) == (False, "NOT_FOUND"), (name, event)
                assert client.events == []
        assert await owner.status(session_id) == before | {
            "duration": (await owner.status(session_id))["duration"]
        }


async def test_a_manager_reads_the_team_and_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        owner = Desk(server, token=await server.token("ann", role="trainee", team="east"))
        started = await owner.start(None)
        session_id = started["sessionId"]
        token = await server.token("max", role="manager", team="east")
        manager = Desk(server, token=token)
        for method, path, body in everything(session_id):
            expected = 404 if method == "POST" else 409 if path.endswith("feedback") else 200
            await manager.ask(method, path, body, status=expected)
        async with listening(server, {"token": token}) as client:
            assert (await client.join(session_id))["ok"]
            for event, data in every_event(session_id)[1:]:
                assert (await client.ask(event, data))["code"] == "NOT_FOUND", event
            await owner.talk(session_id)
            await owner.stop(session_id)
            await client.wait_for("feedback:ready")
        feedback = await manager.feedback(session_id)
        assert feedback["overallScore"] is not None
        assert (await manager.progress("ann"))["totalSessions"] == 1
        drills = await manager.drills("ann")
        assert drills
        await manager.ask("POST", f"/api/drills/{drills[0]['id']}/start", status=404)


async def test_a_trainee_reads_and_does_for_nobody_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        ann = Desk(server, token=await server.token("ann", role="trainee", team="east"))
        bob = Desk(server, token=await server.token("bob", role="trainee", team="east"))
        await ann.practise(user=None)
        drill = (await ann.drills())[0]
        await bob.ask("GET", "/api/roleplay/users/ann/progress", status=403)
        await bob.ask("GET", "/api/drills?userId=ann", status=403)
        await bob.ask("GET", "/api/users/ann/settings", status=403)
        await bob.ask("PUT", "/api/users/ann/settings", {"storeTranscripts": False}, status=403)
        refused = await bob.ask("POST", f"/api/drills/{drill['id']}/start", status=404)
        assert refused["field"] == "drillId"
        assert await bob.drills("bob") == []


async def test_a_join_token_is_good_for_its_session_and_for_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        mine, other = await desk.start(), await desk.start()
        guest = Desk(server, token=mine["joinToken"])
        assert (await guest.status(mine["sessionId"]))["status"] == "recording"
        await guest.ask("POST", f"{SESSIONS}/{mine['sessionId']}/transcript", SAID)
        for method, path, body in everything(other["sessionId"]):
            await guest.ask(method, path, body, status=404)
        for method, path, body in (
            ("POST", f"{SESSIONS}/start", {"userId": "ann", "scenarioId": SCENARIO}),
            ("GET", "/api/roleplay/users/ann/progress", None),
            ("GET", "/api/drills", None),
            ("GET", "/api/users/ann/settings", None),
            ("DELETE", "/api/users/ann", None),
            ("GET", "/api/users/ann/export", None),
            ("GET", "/api/conversations", None),
            ("GET", "/api/methodologies", None),
            ("POST", "/api/auth/token", {"userId": "ann", "role": "admin"}),
            ("POST", "/api/ai/generate", {"persona": "sales-coach", "context": "x"}),
        ):
            status, _ = await guest.try_(method, path, body)
            assert status == 403, path
        async with listening(server, {"joinToken": mine["joinToken"]}) as client:
            assert (await client.join(mine["sessionId"]))["ok"]
            for event, data in every_event(other["sessionId"]):
                assert (await client.ask(event, data))["code"] == "NOT_FOUND", event
            for event in ("START_CONVERSATION", "REQUEST_NEXT_TIP", "PING", "START_TRANSCRIPTION"):
                answer = await client.ask(
                    event, {"agentId": "a", "conversationId": UNKNOWN, "sessionId": "s"}
                )
                assert answer["code"] == "FORBIDDEN", event


async def test_a_join_token_ends_with_its_day(tmp_path: Path) -> None:
    async with serving(tmp_path, Replacements(clock=ManualClock())) as server:
        started = await Desk(server).start()
    path = f"{SESSIONS}/{started['sessionId']}/status"
    for passed, status in ((24 * 3600 - 1, 200), (24 * 3600, 401)):
        later = ManualClock(ManualClock().now() + passed)
        async with serving(tmp_path, Replacements(clock=later)) as server:
            await Desk(server, token=started["joinToken"]).ask("GET", path, status=status)
    with pytest.raises(socketio.exceptions.ConnectionError):
        async with serving(tmp_path, Replacements(clock=later)) as server:
            await Listener().connect(server, {"joinToken": started["joinToken"]})


async def test_guests_are_let_in_nowhere_unless_practising_is_open(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        started = await Desk(server).start()
        nobody = Desk(server, key=None)
        for method, path, body in everything(started["sessionId"]):
            await nobody.ask(method, path, body, status=401)
        for path in ("/api/roleplay/users/ann/progress", "/api/drills?userId=ann", "/api/methodologies"):
            await nobody.ask("GET", path, status=401)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await Listener().connect(server, {})


async def test_where_practising_is_open_guests_practise_and_do_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path, ROLEPLAY_OPEN=True) as server:
        guest = Desk(server, key=None)
        feedback = await guest.practise()
        assert feedback["overallScore"] is not None
        assert (await guest.progress())["totalSessions"] == 1
        other = await Desk(server, key=OTHER_KEY).start()
        for method, path, body in everything(other["sessionId"]):
            await guest.ask(method, path, body, status=404)
        for method, path in (
            ("GET", "/api/conversations"),
            ("GET", "/api/users/ann/settings"),
            ("GET", "/api/users/ann/export"),
            ("DELETE", "/api/users/ann"),
        ):
            await guest.ask(method, path, status=401)
        await Desk(server, key="wrong").ask("GET", "/api/methodologies", status=401)
        async with listening(server, {}) as client:
            assert (await client.join(feedback["sessionId"]))["ok"]
            assert (await client.ask("START_CONVERSATION", {"agentId": "a"}))["code"] == "FORBIDDEN"


async def test_an_api_key_acts_for_its_own_users_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        mine, other = Desk(server), Desk(server, key=OTHER_KEY)
        await mine.practise()
        assert (await mine.progress())["totalSessions"] == 1
        assert (await other.progress())["totalSessions"] == 0
        assert await other.drills() == []
        drill = (await mine.drills())[0]
        await other.ask("POST", f"/api/drills/{drill['id']}/start", status=404)


async def test_a_join_as_another_user_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        started = await Desk(server).start("ann")
        async with listening(server) as client:
            assert (await client.join(started["sessionId"], userId="bob"))["code"] == "NOT_FOUND"
            assert (await client.join(started["sessionId"], userId="ann"))["ok"]


# --- refusals


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"speaker": "customer"}, "speaker"),
        ({"speaker": None}, "speaker"),
        ({"speaker": "USER"}, "speaker"),
        ({"message": ""}, "message"),
        ({"message": "  \n\t "}, "message"),
        ({"message": None}, "message"),
        ({"message": 5}, "message"),
        ({"message": "x" * 8001}, "message"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": float("nan")}, "timestamp"),
        ({"timestamp": 1e30}, "timestamp"),
        ({"confidence": float("nan")}, "confidence"),
        ({"confidence": 1.5}, "confidence"),
        ({"durationMs": -1}, "durationMs"),
        ({"durationMs": 1e12}, "durationMs"),
        ({"messageId": ""}, "messageId"),
        ({"messageId": "m" * 300}, "messageId"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_message_that_cannot_be_is_refused_by_field_and_changes_nothing(
    shared: tuple[Desk, str], changes: dict[str, Any], field: str
) -> None:
    desk, session_id = shared
    before = await desk.status(session_id)
    body = {k: v for k, v in {**SAID, **changes}.items() if v is not None}
    path = f"{SESSIONS}/{session_id}/transcript"
    answer = await desk.ask("POST", path, body, status=400)
    # A body with NaN in it is no JSON at all.
    assert answer.get("field") == field or any(value != value for value in changes.values())
    after = await desk.status(session_id)
    assert after["transcriptLength"] == before["transcriptLength"]


@pytest.fixture(scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roleplay")


@pytest.fixture
async def shared(_folder: Path) -> Any:
    async with serving(_folder) as server:
        desk = Desk(server)
        yield desk, (await desk.start())["sessionId"]


async def test_huge_bodies_are_refused_before_they_are_read(shared: tuple[Desk, str]) -> None:
    desk, session_id = shared
    body = {"speaker": "user", "message": "x" * 700_000}
    status, answer = await desk.try_("POST", f"{SESSIONS}/{session_id}/transcript", body)
    assert (status, answer["code"]) == (413, "TOO_LARGE")


async def test_events_that_cannot_be_are_refused_by_field(shared: tuple[Desk, str]) -> None:
    desk, session_id = shared
    async with listening(desk.server) as client:
        for event, data, code, field in (
            ("session:join", {}, "INVALID", "sessionId"),
            ("session:join", None, "INVALID", "sessionId"),
            ("session:join", {"sessionId": 5}, "INVALID", "sessionId"),
            ("session:join", {"sessionId": "x' OR 1=1"}, "NOT_FOUND", "sessionId"),
            ("session:heartbeat", {"sessionId": UNKNOWN}, "NOT_FOUND", "sessionId"),
            ("step:complete", {"sessionId": session_id}, "INVALID", "stepId"),
            ("step:complete", {"sessionId": session_id, "stepId": "9.9"}, "NOT_FOUND", "stepId"),
            ("step:complete", {"sessionId": session_id, "stepId": "2.1.1"}, "INVALID", "stepId"),
            ("step:complete", {"sessionId": session_id, "stepId": "2.3"}, "INVALID", "stepId"),
            ("roleplay:message", {"sessionId": session_id, "text": " "}, "INVALID", "text"),
            ("roleplay:message", {"sessionId": session_id, "text": "x" * 8001}, "INVALID", "text"),
        ):
            answer = await client.ask(event, data)
            assert (answer["ok"], answer["code"], answer.get("field")) == (False, code, field), (event, data)
        # Without an ack a refusal is told as ERROR, but a heartbeat's is silent.
        await client.send("session:join", {"sessionId": UNKNOWN})
        told = await client.wait_for("ERROR")
        assert (told["code"], told["reason"], told["sessionId"]) == ("SESSION_ERROR", "NOT_FOUND", UNKNOWN)
        await client.send("session:heartbeat", {"sessionId": UNKNOWN})
        assert (await client.join(session_id))["ok"]
        assert len(client.told("ERROR")) == 1


async def test_after_the_stop_nothing_more_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        session_id = started["sessionId"]
        await desk.say(session_id, "user", "Dag.", messageId="m1")
        await desk.stop(session_id)
        before = await desk.status(session_id)
        one = f"{SESSIONS}/{session_id}"
        assert (await desk.ask("POST", f"{one}/transcript", SAID, status=409))["code"] == "CONFLICT"
        await desk.ask("POST", f"{one}/message", {"text": "Nog iets?"}, status=409)
        async with listening(server, {"joinToken": started["joinToken"]}) as client:
            assert (await client.join(session_id))["status"] == "completed"
            for event, data in every_event(session_id)[1:]:
                assert (await client.ask(event, data))["code"] == "CONFLICT", event
        # What was stored before is still answered as stored.
        assert (await desk.say(session_id, "user", "Dag.", messageId="m1"))["created"] is False
        after = await desk.status(session_id)
        assert after["transcriptLength"] == before["transcriptLength"]


# --- again


async def test_a_message_sent_three_times_is_stored_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        session_id = started["sessionId"]
        before = (await desk.status(session_id))["transcriptLength"]
        first = await desk.say(session_id, "user", "Dag mevrouw.", messageId="m1")
        again = [await desk.say(session_id, "user", "Dag mevrouw.", messageId="m1") for _ in range(2)]
        assert first["created"] is True
        assert again == [{**first, "created": False}] * 2
        assert (await desk.status(session_id))["transcriptLength"] == before + 1


async def test_a_second_stop_answers_as_the_first(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        await desk.talk(session_id, TALK[:4])
        await clock.advance(60)
        first = await desk.stop(session_id)
        assert first["duration"] == 60
        await clock.advance(60)
        assert await desk.stop(session_id) == first


async def test_a_step_ticked_off_twice_is_told_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        started = await Desk(server).start()
        step = {"sessionId": started["sessionId"], "stepId": "1.1"}
        async with joined(server, started) as client:
            first = await client.ask("step:complete", step)
            assert (first["currentPhaseId"], first["currentStepId"]) == (1, "1.2")
            assert await client.ask("step:complete", step) == first
            assert len(client.told("step:updated")) == 1


async def test_every_listener_of_a_session_is_told_and_nobody_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        mine, other = await desk.start(), await desk.start("bob")
        async with (
            joined(server, mine) as first,
            joined(server, mine) as second,
            joined(server, other) as stranger,
        ):
            await first.ask("step:complete", {"sessionId": mine["sessionId"], "stepId": "1.1"})
            assert await first.wait_for("step:updated") == await second.wait_for("step:updated")
            await stranger.ask("session:heartbeat", {"sessionId": other["sessionId"]})
            assert stranger.told("step:updated") == []


# --- time


async def sweep(server: Server) -> None:
    await server.coaching.practising.upkeep.sweep()


async def test_a_session_that_is_left_can_be_taken_up_again_where_it_was(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        started = await desk.start()
        session_id = started["sessionId"]
        async with joined(server, started) as client:
            await client.ask("step:complete", {"sessionId": session_id, "stepId": "1.1"})
        await clock.advance(119)
        assert (await desk.status(session_id))["status"] == "recording"
        await clock.advance(2)
        left = await desk.status(session_id)
        assert (left["status"], left["analysisStatus"]) == ("abandoned", "none")
        await clock.advance(600)
        async with joined(server, started):
            back = await desk.status(session_id)
            assert (back["status"], back["currentStepId"]) == ("recording", "1.2")
        await desk.say(session_id, "user", "Ik ben er weer.")


@pytest.mark.parametrize("sign", ["heartbeat", "message", "step"])
async def test_any_sign_of_life_brings_an_abandoned_session_back(tmp_path: Path, sign: str) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        await clock.advance(200)
        assert (await desk.status(session_id))["status"] == "abandoned"
        async with listening(server) as client:
            match sign:
                case "heartbeat":
                    answer = await client.ask("session:heartbeat", {"sessionId": session_id})
                    assert answer["status"] == "recording"
                case "message":
                    await desk.say(session_id, "user", "Ik ben er weer.")
                case _:
                    await client.ask("step:complete", {"sessionId": session_id, "stepId": "1.1"})
        assert (await desk.status(session_id))["status"] == "recording"


async def test_heartbeats_alone_keep_a_session_running(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        started = await desk.start()
        async with joined(server, started) as client:
            for _ in range(10):
                await clock.advance(100)
                await client.ask("session:heartbeat", {"sessionId": started["sessionId"]})
                await sweep(server)
        assert (await desk.status(started["sessionId"]))["status"] == "recording"


async def test_after_its_grace_a_session_is_over_and_scored_by_the_sweep(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        await desk.talk(session_id)
        await clock.advance(121)
        await sweep(server)
        await clock.advance(901)
        await sweep(server)
        feedback = await desk.feedback(session_id)
        assert feedback["status"] == "abandoned" and feedback["overallScore"] is not None
        await desk.ask("POST", f"{SESSIONS}/{session_id}/transcript", SAID, status=409)
        assert (await desk.stop(session_id))["status"] == "abandoned"
        assert (await desk.status(session_id))["duration"] == 0, "as of when it was last seen"


async def test_a_session_left_for_hours_is_abandoned_also_when_nobody_looked(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        await desk.talk(session_id, TALK[:2])
        await clock.advance(5 * 3600)
        await sweep(server)
        await sweep(server)
        assert (await desk.status(session_id))["status"] == "abandoned"
        assert (await desk.stop(session_id))["duration"] == 0


async def test_a_session_in_which_nothing_was_said_has_no_feedback(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        assert (await desk.stop(session_id))["feedbackQueued"] is False
        await desk.ask("GET", f"{SESSIONS}/{session_id}/feedback", status=404)


async def test_a_session_outlives_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        session_id = started["sessionId"]
        await desk.talk(session_id, TALK[:4])
        before = await desk.status(session_id)
    async with serving(tmp_path) as server:
        desk = Desk(server)
        after = await desk.status(session_id)
        assert {**after, "duration": 0} == {**before, "duration": 0}
        async with joined(server, started):
            await desk.talk(session_id, TALK[4:])
        await desk.stop(session_id)
        assert (await desk.feedback(session_id))["overallScore"] is not None
