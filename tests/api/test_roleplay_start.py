"""Starting a practice session: where it begins, what is refused, and what a second start with the same key
does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.api.practising import SCENARIO, SESSIONS, UNKNOWN, Desk, joined
from tests.serving import KEY, OTHER_KEY, serving

START = f"{SESSIONS}/start"


async def complete(desk: Desk, *steps: str, user: str = "ann", **choices: Any) -> dict[str, Any]:
    """A session in which these steps are ticked off; its answer to the stop."""
    started = await desk.start(user, **choices)
    async with joined(desk.server, started) as client:
        for step in steps:
            answer = await client.ask("step:complete", {"sessionId": started["sessionId"], "stepId": step})
            assert answer["ok"], answer
    return await desk.stop(started["sessionId"])


async def test_a_first_session_begins_at_the_first_step_with_the_customers_words(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.ask("POST", START, {"userId": "ann"})
        assert (started["currentPhaseId"], started["currentStepId"]) == (1, "1.1")
        assert started["scenario"]["id"] == SCENARIO and started["scenario"]["briefing"]
        assert started["opening"]["text"] and started["opening"]["speaker"] == "hugo"
        assert (started["provider"], started["avatar"]["status"]) == ("off", "off")
        assert (await desk.status(started["sessionId"]))["transcriptLength"] == 1
        flow = started["scenarioFlow"]
        assert [step["status"] for step in flow[0]["steps"]] == ["current"] + ["upcoming"] * 3
        assert {step["status"] for step in flow[3]["steps"]} == {"locked"}


async def test_a_locked_phase_or_step_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        for wish, field, missing in (
            ({"startPhaseId": 2}, "startPhaseId", ("1.1", "1.2", "1.3", "1.4")),
            ({"startPhaseId": 4}, "startPhaseId", ("1.1", "2.1.8", "3.4")),
            ({"startStepId": "1.3"}, "startStepId", ("1.1", "1.2")),
            ({"startPhaseId": 2, "startStepId": "2.1.1"}, "startStepId", ("1.4",)),
        ):
            body = {"userId": "ann", "scenarioId": SCENARIO, "language": "nl", **wish}
            answer = await desk.ask("POST", START, body, status=409)
            assert (answer["code"], answer["field"]) == ("CONFLICT", field)
            assert all(step in answer["message"] for step in missing), answer["message"]
        assert "Gentleman's agreement" in answer["message"]
        assert (await desk.progress())["totalSessions"] == 0


async def test_where_the_user_is_decides_where_a_session_begins(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        await complete(desk, "1.1", "1.2")
        begun = await desk.start()
        assert begun["currentStepId"] == "1.3"
        assert [step["status"] for step in begun["scenarioFlow"][0]["steps"]][:3] == [
            "completed", "completed", "current",
        ]  # fmt: skip
        await complete(desk, "1.3", "1.4")
        begun = await desk.start()
        assert (begun["currentPhaseId"], begun["currentStepId"]) == (2, "2.1.1")
        chosen = await desk.start(startPhaseId=2, startStepId="2.1.5")
        assert chosen["currentStepId"] == "2.1.5"
        again = await desk.start(startPhaseId=1)
        assert (again["currentPhaseId"], again["currentStepId"]) == (1, "1.1")
        stranger = await desk.start("bob")
        assert stranger["currentStepId"] == "1.1"


async def test_the_decision_is_reached_over_several_sessions(tmp_path: Path) -> None:
    """Phase 4 opens after 1 to 3, also when they were done in different sessions."""
    async with serving(tmp_path) as server:
        desk = Desk(server)
        await complete(desk, "1.1", "1.2", "1.3", "1.4")
        started = await desk.start()
        session_id = started["sessionId"]
        async with joined(server, started) as client:
            refused = await client.ask("step:complete", {"sessionId": session_id, "stepId": "4.1"})
            assert (refused["code"], refused["field"]) == ("INVALID", "stepId")
            for step in ("2.4", "3.4", "4.1"):
                assert (await client.ask("step:complete", {"sessionId": session_id, "stepId": step}))["ok"]
            await client.wait_for("phase:completed", 3)
            told = client.told("phase:completed")
            assert [(one["phaseId"], one["nextPhaseId"]) for one in told] == [(2, 3), (3, 4), (4, None)]
        stopped = await desk.stop(session_id)
        assert stopped["stepsCompleted"] == ["2.1.8", "3.4", "4.1"]
        progress = await desk.progress()
        assert progress["unlockedPhases"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("wish", "status", "field"),
    [
        ({"scenarioId": "nobody"}, 404, "scenarioId"),
        ({"methodology": "nothing"}, 404, "methodology"),
        ({"startPhaseId": 9}, 404, "startPhaseId"),
        ({"startPhaseId": 0}, 404, "startPhaseId"),
        ({"startStepId": "9.9"}, 404, "startStepId"),
        ({"startStepId": "2.1.1.1"}, 404, "startStepId"),
        ({"startPhaseId": 2, "startStepId": "1.1"}, 400, "startStepId"),
        ({"startPhaseId": "one"}, 400, "startPhaseId"),
        ({"startPhaseId": 1.5}, 400, "startPhaseId"),
        ({"startPhaseId": -1}, 400, "startPhaseId"),
        ({"startStepId": ""}, 400, "startStepId"),
        ({"startStepId": "1" * 41}, 400, "startStepId"),
        ({"userId": ""}, 400, "userId"),
        ({"userId": "u" * 300}, 400, "userId"),
        ({"userId": {"a": 1}}, 400, "userId"),
        ({"userId": None}, 400, "userId"),
        ({"language": "xx"}, 400, "language"),
        ({"storeTranscript": "never"}, 400, "storeTranscript"),
        ({"consent": "yes"}, 400, "consent"),
        ({"idempotencyKey": "k" * 300}, 400, "idempotencyKey"),
    ],
    ids=str,
)
async def test_a_start_that_cannot_be_is_refused_by_field(
    shared: Desk, wish: dict[str, Any], status: int, field: str
) -> None:
    body = {"userId": "nobody-yet", "scenarioId": SCENARIO, **wish}
    answer = await shared.ask("POST", START, body, status=status)
    assert answer["field"].split(".")[0] == field


@pytest.fixture(scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture
async def shared(_folder: Path) -> Any:
    """A server; the requests of these tests leave nothing behind in its database."""
    async with serving(_folder) as server:
        yield Desk(server)


async def test_bodies_that_are_no_object_are_refused(shared: Desk) -> None:
    for body in (None, [], 5, "text", [{"userId": "ann"}]):
        status, answer = await shared.try_("POST", START, body)
        assert status == 400 and answer["code"] == "INVALID", body
    assert (await shared.progress("nobody-yet"))["totalSessions"] == 0


async def test_the_same_idempotency_key_is_one_session_of_one_user_of_one_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        first = await desk.start(idempotencyKey="once")
        again = await desk.start(idempotencyKey="once")
        assert again["sessionId"] == first["sessionId"]
        assert again["duplicate"] is True and "duplicate" not in first
        assert (await desk.start("bob", idempotencyKey="once"))["sessionId"] != first["sessionId"]
        other = Desk(server, key=OTHER_KEY)
        assert (await other.start(idempotencyKey="once"))["sessionId"] != first["sessionId"]
        together = await asyncio.gather(*(desk.start(idempotencyKey="twice") for _ in range(5)))
        assert len({one["sessionId"] for one in together}) == 1
        await desk.stop(first["sessionId"])
        late = await desk.start(idempotencyKey="once")
        assert (late["sessionId"], late["status"]) == (first["sessionId"], "completed")


async def test_a_session_follows_the_method_of_its_scenario(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        listed = (await desk.ask("GET", "/api/methodologies"))["methodologies"]
        assert [one["id"] for one in listed][0] == "hugo"
        assert listed[0]["steps"] == 23
        for one in listed:
            started = await desk.start(methodology=one["id"])
            assert started["methodology"]["id"] == one["id"]
            assert [phase["id"] for phase in started["scenarioFlow"]] == [p["id"] for p in one["phases"]]
            await desk.ask("GET", f"/api/roleplay/techniques?methodology={one['id']}&language=he")


async def test_every_method_can_be_walked_through_to_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        for one in (await desk.ask("GET", "/api/methodologies"))["methodologies"]:
            started = await desk.start(one["id"], methodology=one["id"])
            session_id = started["sessionId"]
            steps = [step["id"] for phase in started["scenarioFlow"] for step in phase["steps"]]
            async with joined(server, started) as client:
                for step in steps:
                    answer = await client.ask("step:complete", {"sessionId": session_id, "stepId": step})
                    assert answer["ok"], (one["id"], step, answer)
                flow = [phase["id"] for phase in one["phases"]]
                await client.wait_for("phase:completed", len(flow))
                assert [told["phaseId"] for told in client.told("phase:completed")] == flow
            assert set((await desk.stop(session_id))["stepsCompleted"]) == set(steps)
            path = f"/api/roleplay/users/{one['id']}/progress?methodology={one['id']}"
            assert (await desk.ask("GET", path))["completedPhases"] == flow


async def test_where_consent_is_required_nothing_is_kept_without_it(tmp_path: Path) -> None:
    async with serving(tmp_path, CONSENT_REQUIRED=True) as server:
        desk = Desk(server)
        assert (await desk.start())["storeTranscript"] is False
        assert (await desk.start(consent=False))["storeTranscript"] is False
        assert (await desk.start(consent={"given": True}))["storeTranscript"] is True
        assert (await desk.start(consent=True, storeTranscript=False))["storeTranscript"] is False
        choices = {"consent": {"given": True}}
        await desk.ask("PUT", "/api/users/ann/settings", choices)
        assert (await desk.start())["storeTranscript"] is True


async def test_only_whoever_may_begin_something_starts_a_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        started = await Desk(server).start()
        body = {"userId": "ann", "scenarioId": SCENARIO}
        await Desk(server, key=None).ask("POST", START, body, status=401)
        await Desk(server, key="wrong").ask("POST", START, body, status=401)
        await Desk(server, token=started["joinToken"]).ask("POST", START, body, status=403)
        trainee = Desk(server, token=await server.token("ann", role="trainee"))
        assert (await trainee.start(None))["userId"] == "ann"
        assert (await trainee.start("ann"))["userId"] == "ann"
        await trainee.ask("POST", START, {**body, "userId": "bob"}, status=403)
        manager = Desk(server, token=await server.token("max", role="manager", team="east"))
        await manager.ask("POST", START, {**body, "userId": "bob"}, status=403)
        admin = Desk(server, token=await server.token("root", role="admin"))
        assert (await admin.start("bob"))["userId"] == "bob"
        nobody = await Desk(server, key=KEY).ask("POST", START, {"scenarioId": SCENARIO}, status=400)
        assert nobody["field"] == "userId"


async def test_an_unknown_session_is_not_found_by_any_route(shared: Desk) -> None:
    for name in (UNKNOWN, "x", "..", "%20", "a" * 200, "§"):
        for method, verb in (("GET", "status"), ("GET", "feedback"), ("POST", "stop"), ("POST", "analyze")):
            status, answer = await shared.try_(method, f"{SESSIONS}/{name}/{verb}")
            assert status == 404 and answer["code"] == "NOT_FOUND", (name, verb)
