"""The documented requests, answers and events of seed 000, word for word, against the whole server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coach_server.app import Replacements
from coach_server.errors import RateLimited
from coach_server.services.access import Principal, Role
from coach_server.testing import ManualClock
from tests.api.practising import Desk, joined, listening
from tests.serving import serving

SESSION = "/api/roleplay/sessions"

# What the seed shows, with the type of each value. Ids are any text: the web client's are not UUIDs.
START = {"userId": "user-42", "scenarioId": "default-sales-scenario", "startPhaseId": 1, "startStepId": "1.1"}
STARTED = {
    "sessionId": str,
    "heygenSessionId": str | None,
    "heygenSdpOffer": str | None,
    "currentPhaseId": int,
    "currentStepId": str,
    "status": str,
}
STOPPED = {"sessionId": str, "status": str, "duration": int, "stepsCompleted": list, "feedbackQueued": bool}
STATUS = {
    "sessionId": str,
    "status": str,
    "currentPhaseId": int,
    "currentStepId": str,
    "duration": int,
    "transcriptLength": int,
}
SAID = {
    "speaker": "user",
    "message": "Hallo, fijn dat we kunnen spreken.",
    "timestamp": "2025-01-15T14:02:30Z",
}
STORED = {"transcriptId": str, "sessionId": str, "created": bool}
FEEDBACK = {
    "sessionId": str,
    "overallScore": int,
    "delta": int | None,
    "subScores": dict,
    "highlights": list,
    "advice": str,
    "techniquesUsed": list,
    "sessionDuration": str,
    "completedAt": str,
    "comparedToPrevious": dict,
    # of the analysis the seed asks of its model
    "techniqueScores": dict,
    "nextStepSuggestion": str | None,
}
PROGRESS = {
    "userId": str,
    "totalSessions": int,
    "averageScore": int,
    "currentPhase": int,
    "currentStep": str,
    "unlockedPhases": list,
    "stepProgress": dict,
    "lastSessionAt": str | None,
}
SUB_SCORES = {"luisteren": int, "samenvatten": int, "objections": int, "nextStep": int}
STEP_UPDATED = {"sessionId": str, "currentStepId": str, "previousStepId": str, "status": str}
PHASE_COMPLETED = {"sessionId": str, "phaseId": int, "nextPhaseId": int, "unlockedSteps": list}
FEEDBACK_READY = {"sessionId": str, "overallScore": int}
HINT_SHOWN = {"stepId": str, "hintText": str, "type": str}
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

# The seed's four tables: id, name, minutes, whether it is required.
STEPS: tuple[tuple[str, str, int, bool], ...] = (
    ("1.1", "Koopklimaat creëren", 2, True),
    ("1.2", "Gentleman's agreement", 1, True),
    ("1.3", "Firmavoorstelling + reference", 2, True),
    ("1.4", "Instapvraag", 1, True),
    ("2.1.1", "Feitgerichte vragen", 3, False),
    ("2.1.2", "Meningsgerichte vragen (open vragen)", 3, False),
    ("2.1.3", "Feitgerichte vragen onder alternatieve vorm", 2, False),
    ("2.1.4", "Ter zijde schuiven", 2, False),
    ("2.1.5", "Pingpong techniek", 2, False),
    ("2.1.6", "Actief en empathisch luisteren", 3, False),
    ("2.1.7", "LEAD questioning (storytelling)", 4, False),
    ("2.1.8", "Lock questioning", 2, False),
    ("3.1", "Empathie tonen", 2, False),
    ("3.2", "Oplossing", 3, False),
    ("3.3", "Voordeel", 2, False),
    ("3.4", "Baat", 2, False),
    ("3.5", "Mening vragen / standpunt onder alternatieve vorm", 2, False),
    ("4.1", "Proefafsluiting", 2, False),
    ("4.2.1", "Klant stelt vragen", 3, False),
    ("4.2.2", "Twijfels", 3, False),
    ("4.2.3", "Poging tot uitstel", 2, False),
    ("4.2.4", "Bezwaren", 4, False),
    ("4.2.5", "Angst / Bezorgdheden", 3, False),
)


def has(shape: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Every key of the seed is there, with a value of its type."""
    for name, kind in shape.items():
        assert name in answer, name
        value = answer[name]
        assert isinstance(value, kind), (name, value)
        assert kind is bool or not isinstance(value, bool), (name, value)


def is_bare(shape: Mapping[str, Any], payload: Mapping[str, Any]) -> None:
    """The seed's payload and nothing round it."""
    has(shape, payload)
    assert payload.keys() == shape.keys()


async def test_start_is_answered_as_the_seed_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await Desk(server).ask("POST", f"{SESSION}/start", START)
        has(STARTED, answer)
        assert (answer["currentPhaseId"], answer["currentStepId"]) == (1, "1.1")
        assert answer["status"] == "recording"
        assert answer["heygenSdpOffer"] is None  # the vendor offers none any more


@pytest.mark.parametrize("body", [{"sessionId": "as the seed sends"}, None], ids=["a body", "no body"])
async def test_stop_is_answered_as_the_seed_shows(tmp_path: Path, body: object) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        await desk.ask("POST", f"{SESSION}/{session_id}/transcript", SAID)
        answer = await desk.ask("POST", f"{SESSION}/{session_id}/stop", body)
        has(STOPPED, answer)
        assert (answer["sessionId"], answer["status"]) == (session_id, "completed")
        assert answer["feedbackQueued"] is True


async def test_status_is_answered_as_the_seed_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start(avatar=False))["sessionId"]
        before = await desk.status(session_id)
        await desk.ask("POST", f"{SESSION}/{session_id}/transcript", SAID)
        answer = await desk.status(session_id)
        has(STATUS, answer)
        assert answer["status"] == "recording"
        assert answer["transcriptLength"] == before["transcriptLength"] + 1


@pytest.mark.parametrize("speaker", ["user", "hugo"])
async def test_a_transcript_message_is_answered_as_the_seed_shows(tmp_path: Path, speaker: str) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        path = f"{SESSION}/{session_id}/transcript"
        answer = await desk.ask("POST", path, {**SAID, "speaker": speaker})
        has(STORED, answer)
        assert answer["created"] is True and answer["sessionId"] == session_id


async def test_feedback_is_answered_as_the_seed_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        await desk.practise()
        answer = await desk.practise()
        has(FEEDBACK, answer)
        has(SUB_SCORES, answer["subScores"])
        assert answer["subScores"].keys() == SUB_SCORES.keys()
        assert all(0 <= score <= 100 for score in (answer["overallScore"], *answer["subScores"].values()))
        assert re.fullmatch(r"\d{2,}:\d\d", answer["sessionDuration"])
        assert UTC_TIME.fullmatch(answer["completedAt"])
        kinds = [highlight["type"] for highlight in answer["highlights"]]
        assert set(kinds) <= {"good", "warning"} and max(kinds.count("good"), kinds.count("warning")) <= 2
        known = {id for id, *_ in STEPS}
        assert set(answer["techniquesUsed"]) <= known and set(answer["techniqueScores"]) <= known
        compared = answer["comparedToPrevious"]["overallScore"]
        assert compared.keys() == {"previous", "current", "delta"}
        assert compared["delta"] == compared["current"] - compared["previous"] == answer["delta"]


async def test_progress_is_answered_as_the_seed_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        await desk.practise(user="user-42")
        answer = await desk.progress("user-42")
        has(PROGRESS, answer)
        assert (answer["userId"], answer["totalSessions"]) == ("user-42", 1)
        assert UTC_TIME.fullmatch(answer["lastSessionAt"])
        assert answer["stepProgress"]["4.1"] == {"status": "locked"}
        tried = answer["stepProgress"]["1.1"]
        assert tried.keys() >= {"status", "attempts", "bestScore"}
        assert list(answer["stepProgress"]) == [id for id, *_ in STEPS]


async def test_the_sales_flow_is_the_seeds_four_tables(tmp_path: Path) -> None:
    async with serving(tmp_path, DEFAULT_LANGUAGE="nl") as server:
        flow = (await Desk(server).progress("user-42"))["scenarioFlow"]
        told = [
            (step["id"], step["name"], int(step["duration"].removesuffix(" min")), "isVerplicht" in step)
            for phase in flow
            for step in phase["steps"]
        ]
        assert told == list(STEPS)
        assert [phase["name"] for phase in flow] == [
            "Openingsfase", "Ontdekkingsfase", "Aanbevelingsfase", "Beslissingsfase",
        ]  # fmt: skip
        assert flow[1]["themas"] == [
            "Bron", "Motivatie", "Ervaring", "Verwachtingen", "Alternatieven", "Budget", "Timing",
            "Beslissingscriteria",
        ]  # fmt: skip
        assert (flow[2]["themas"], flow[3]["themas"]) == (["USP's"], ["Beslissing"])
        assert {step["status"] for step in flow[3]["steps"]} == {"locked"}


async def test_the_clients_events_are_taken_as_the_seed_sends_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        started = await Desk(server).start("user-42")
        session_id = started["sessionId"]
        async with listening(server, {"joinToken": started["joinToken"]}) as client:
            # Without an ack, as the seed's client does.
            await client.send("session:join", {"sessionId": session_id, "userId": "user-42"})
            await client.send("session:heartbeat", {"sessionId": session_id})
            await client.send("step:complete", {"sessionId": session_id, "stepId": "1.1"})
            told = await client.wait_for("step:updated")
            is_bare(STEP_UPDATED, told)
            assert told == {
                "sessionId": session_id,
                "currentStepId": "1.2",
                "previousStepId": "1.1",
                "status": "completed",
            }
            assert client.told("ERROR") == []


async def test_a_completed_phase_is_told_as_the_seed_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        started = await Desk(server).start()
        session_id = started["sessionId"]
        async with joined(server, started) as client:
            for step in ("1.1", "1.2", "1.3", "1.4"):
                await client.ask("step:complete", {"sessionId": session_id, "stepId": step})
            told = await client.wait_for("phase:completed")
            is_bare(PHASE_COMPLETED, told)
            assert (told["phaseId"], told["nextPhaseId"]) == (1, 2)
            assert told["unlockedSteps"] == [id for id, *_ in STEPS if id.startswith("2.")]
            assert client.told("step:updated")[-1]["currentStepId"] == "2.1.1"


async def test_ready_feedback_is_told_as_the_seed_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        async with joined(server, started) as client:
            await desk.talk(started["sessionId"])
            await desk.stop(started["sessionId"])
            told = await client.wait_for("feedback:ready")
            is_bare(FEEDBACK_READY, told)
            feedback = await desk.feedback(started["sessionId"])
            assert told["overallScore"] == feedback["overallScore"]


async def test_a_hint_is_shown_as_the_seed_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        async with joined(server, started) as client:
            await desk.talk(started["sessionId"])
            told = await client.wait_for("hint:show")
            reading = told.pop("reading")  # ours, beside the seed's
            assert reading is None or reading["answer"]
            is_bare(HINT_SHOWN, told)
            assert told["type"] in ("tip", "warning")
            assert told["stepId"] in {id for id, *_ in STEPS}


async def test_more_than_a_thousand_events_a_minute_in_one_session_are_refused(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        started = await desk.start()
        session_id, talk = started["sessionId"], server.coaching.practising.talk
        async with joined(server, started) as client:
            with pytest.raises(RateLimited):
                for _ in range(1001):
                    talk.take(Principal("default", Role.SERVICE), session_id)
            beat = {"sessionId": session_id}
            refused = await client.ask("session:heartbeat", beat)
            assert refused["code"] == "RATE_LIMITED" and refused["retryAfterMs"] > 0
            answer = await desk.ask("POST", f"{SESSION}/{session_id}/transcript", SAID, status=429)
            assert int(desk.headers["Retry-After"]) == answer["retryAfter"] >= 1
            await clock.advance(answer["retryAfter"])
            assert (await client.ask("session:heartbeat", beat))["ok"]
