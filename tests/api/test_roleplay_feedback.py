"""What a session came to: scored by rules and by a model, again later, compared, mailed, without words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from coach_server.app import Replacements
from coach_server.testing import ManualClock
from tests.api.practising import SESSIONS, TALK, Desk, joined, let_pass, listening, nothing_of
from tests.api.test_roleplay_talk import properties, valid, with_model
from tests.fakes.openai import FakeOpenAI, Seen, Step, answer, status
from tests.serving import Server, serving

BETTER = (
    *TALK[:4],
    (
        "user",
        "Wij helpen veertig bakkers in Vlaanderen, zoals Peeters in Gent, die nu elk weekend vrij zijn.",
    ),
    ("hugo", "Die ken ik wel."),
    ("user", "Vertelt u eens, hoe verloopt de planning bij u vandaag?"),
    ("hugo", "Dat loopt moeizaam, we verliezen elke week uren."),
)


def asks_for_an_assessment(seen: Seen) -> bool:
    return "overallScore" in properties(seen)


def assessing(overall: int, quote: str = "") -> Any:
    """A model that gives every session this score."""

    def on_request(seen: Seen) -> Step | None:
        if not asks_for_an_assessment(seen):
            return valid(seen)
        subs = dict.fromkeys(("luisteren", "samenvatten", "objections", "nextStep"), overall)
        return answer(
            {
                "overallScore": overall,
                "subScores": subs,
                "techniqueScores": [{"id": "1.1", "score": overall, "quote": quote}],
                "highlights": [{"type": "good", "text": "U begon hartelijk.", "quote": quote}],
                "advice": "Stel daarna meteen een open vraag.",
                "nextStepSuggestion": "1.3",
            }
        )

    return on_request


def failing(seen: Seen) -> Step | None:
    return status(401) if asks_for_an_assessment(seen) else valid(seen)


# --- when it is ready


async def test_feedback_that_is_not_ready_is_no_success_and_says_when_to_ask_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        session_id = (await desk.start())["sessionId"]
        path = f"{SESSIONS}/{session_id}/feedback"
        running = await desk.ask("GET", path, status=409)
        assert (running["code"], running["retryAfter"], desk.headers["Retry-After"]) == ("CONFLICT", 2, "2")
        await desk.talk(session_id)
        assert (await desk.stop(session_id))["feedbackQueued"] is True
        feedback = await desk.feedback(session_id)
        assert feedback["sessionId"] == session_id and feedback["status"] == "completed"
        assert (feedback["source"], feedback["provisional"], feedback["insufficient"]) == (
            "offline",
            False,
            False,
        )
        assert 0 <= feedback["overallScore"] <= 100
        assert (await desk.status(session_id))["analysisStatus"] == "done"


async def test_whoever_joins_late_is_told_that_the_feedback_is_ready(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        await desk.talk(started["sessionId"])
        await desk.stop(started["sessionId"])
        feedback = await desk.feedback(started["sessionId"])
        ready = {"sessionId": started["sessionId"], "overallScore": feedback["overallScore"]}
        for _ in range(2):
            async with joined(server, started) as client:
                assert await client.wait_for("feedback:ready") == ready
        async with listening(server) as client:
            assert client.told("feedback:ready") == []


async def test_a_session_too_short_to_judge_has_feedback_without_a_score(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        async with joined(server, started) as client:
            await desk.talk(started["sessionId"], TALK[:2])
            await desk.stop(started["sessionId"])
            told = await client.wait_for("feedback:ready")
            assert told == {"sessionId": started["sessionId"], "overallScore": None}
        feedback = await desk.feedback(started["sessionId"])
        assert feedback["insufficient"] is True and feedback["overallScore"] is None
        assert feedback["delta"] is None and feedback["drills"] == []
        assert set(feedback["subScores"].values()) == {None}
        progress = await desk.progress()
        assert (progress["totalSessions"], progress["scoredSessions"], progress["averageScore"]) == (1, 0, 0)


async def test_a_talk_that_goes_on_to_the_discovery_is_judged_there_too(tmp_path: Path) -> None:
    """What was asked after the opening once was not heard at all."""
    async with serving(tmp_path) as server:
        feedback = await Desk(server).practise()
        assert feedback["phases"]["1"] is not None and feedback["phases"]["2"] is not None
        assert any(name.startswith("2.") for name in feedback["techniquesUsed"])


async def test_quotes_of_the_evidence_were_really_said(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        feedback = await Desk(server).practise()
        said = {number: text for number, (_, text) in enumerate(TALK, 2)}  # 1 is the customer's opening
        assert feedback["evidence"]
        for found in feedback["evidence"]:
            assert found["quote"].strip(" …") in said[found["sequence"]], found


async def test_the_analysis_can_be_ordered_again_once_the_session_is_over(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        started = await desk.start()
        one = f"{SESSIONS}/{started['sessionId']}"
        await desk.ask("POST", f"{one}/analyze", status=409)
        await desk.talk(started["sessionId"])
        await desk.stop(started["sessionId"])
        first = await desk.feedback(started["sessionId"])
        async with joined(server, started) as client:
            await client.wait_for("feedback:ready")
            assert (await desk.ask("POST", f"{one}/analyze"))["feedbackQueued"] is True
            await client.wait_for("feedback:ready", 2)
        again = await desk.feedback(started["sessionId"])
        assert again == first
        assert len(await desk.drills()) == len(first["drills"])
        assert (await desk.progress())["totalSessions"] == 1


async def test_more_than_fifty_analyses_an_hour_are_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        session_id = (await desk.practise())["sessionId"]
        statuses = []
        for _ in range(51):
            found, told = await desk.try_("POST", f"{SESSIONS}/{session_id}/analyze")
            statuses.append(found)
            if found == 429:
                break
        assert statuses[-1] == 429 and set(statuses[:-1]) == {200} and len(statuses) == 51
        assert 3500 <= int(desk.headers["Retry-After"]) == told["retryAfter"] <= 3600
        await clock.advance(told["retryAfter"])
        await desk.ask("POST", f"{SESSIONS}/{session_id}/analyze")


async def test_a_second_session_is_compared_with_the_first(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        first = await desk.practise()
        assert (first["delta"], first["comparedToPrevious"]) == (None, {})
        await clock.advance(60)
        second = await desk.practise(BETTER)
        compared = second["comparedToPrevious"]
        assert compared["overallScore"] == {
            "previous": first["overallScore"],
            "current": second["overallScore"],
            "delta": second["overallScore"] - first["overallScore"],
        }
        assert second["delta"] == compared["overallScore"]["delta"]
        assert (await desk.practise(user="bob"))["delta"] is None, "another user has no session before"


# --- with a model


async def test_the_same_talk_of_the_same_user_keeps_its_score_whatever_the_model_says_later(
    tmp_path: Path,
) -> None:
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        fake.on_request = assessing(90, "fijn dat u tijd maakt vandaag")
        first = await desk.practise(avatar=False)
        assert (first["source"], first["provisional"]) == ("openai", False)
        fake.on_request = assessing(10)
        second = await desk.practise()
        assert second["overallScore"] == first["overallScore"]
        assert second["techniqueScores"] == first["techniqueScores"]
        assert second["delta"] == 0


async def test_another_user_is_judged_anew(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, fake):
        desk = Desk(server)
        fake.on_request = assessing(90)
        first = await desk.practise()
        fake.on_request = assessing(10)
        assert (await desk.practise(user="bob"))["overallScore"] < first["overallScore"]


async def test_a_model_that_fails_leaves_a_provisional_score_that_is_made_good_later(tmp_path: Path) -> None:
    clock = ManualClock()
    async with FakeOpenAI() as fake:
        fake.on_request = failing
        values = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with serving(tmp_path, Replacements(clock=clock), **values) as server:
            desk = Desk(server)
            started = await desk.start()
            async with joined(server, started) as client:
                await desk.talk(started["sessionId"])
                await desk.stop(started["sessionId"])
                await client.wait_for("feedback:ready")
                first = await desk.feedback(started["sessionId"])
                assert (first["provisional"], first["source"]) == (True, "offline")
                assert first["overallScore"] is not None
                fake.on_request = assessing(100, "fijn dat u tijd maakt vandaag")
                # Time that jumps over the lease of a running job would have it run twice.
                await until_done(server, 2)
                await clock.advance(595)
                assert (await desk.feedback(started["sessionId"]))["provisional"] is True
                await let_pass(clock, desk, lambda: len(client.told("feedback:ready")) == 2)
                told = client.told("feedback:ready")[-1]
            second = await desk.feedback(started["sessionId"])
            assert (second["provisional"], second["source"]) == (False, "openai")
            assert told["overallScore"] == second["overallScore"] > first["overallScore"]
            progress = await desk.progress()
            assert (progress["totalSessions"], progress["averageScore"]) == (1, second["overallScore"])
            assert len(await desk.drills()) == len(first["drills"])


async def test_beyond_fifty_an_hour_the_rules_judge_alone_and_say_so(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, fake):
        fake.on_request = assessing(90)
        limits = server.coaching.practising.analysis._limits
        for _ in range(50):
            await limits.check("analysis", "default/ann")
        desk = Desk(server)
        feedback = await desk.practise()
        assert (feedback["provisional"], feedback["source"]) == (True, "offline")
        assert feedback["overallScore"] is not None
        assert (await desk.practise(user="bob"))["source"] == "openai"


async def test_what_a_model_invents_does_not_reach_the_feedback(tmp_path: Path) -> None:
    async with with_model(tmp_path) as (server, fake):

        def invents(seen: Seen) -> Step | None:
            if not asks_for_an_assessment(seen):
                return valid(seen)
            return answer(
                {
                    "overallScore": 4000,
                    "subScores": {"luisteren": -3, "samenvatten": 9000, "objections": None, "nextStep": 1},
                    "techniqueScores": [{"id": "9.9", "score": 90, "quote": "x"}],
                    "highlights": [
                        {"type": "good", "text": "<script>alert(1)</script>", "quote": "nooit gezegd"}
                    ],
                    "advice": "ok",
                    "nextStepSuggestion": "ROOT",
                }
            )

        fake.on_request = invents
        feedback = await Desk(server).practise()
        assert 0 <= feedback["overallScore"] <= 100
        assert "9.9" not in feedback["techniqueScores"] and "script" not in json.dumps(feedback)
        steps = [
            step["id"] for phase in (await Desk(server).progress())["scenarioFlow"] for step in phase["steps"]
        ]
        assert feedback["nextStepSuggestion"] in steps


# --- by mail


async def test_feedback_is_mailed_to_whoever_asked_for_it(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        desk = Desk(server)
        chosen = await desk.ask("PUT", "/api/users/ann/settings", {"feedbackEmail": "ann@example.com"})
        assert chosen["feedbackEmail"] == "ann@example.com"
        await desk.practise(user="bob")
        session_id = (await desk.practise())["sessionId"]
        await until_idle(server)
        letters = list((tmp_path / "outbox").glob("*.eml"))
        assert len(letters) == 1
        letter = letters[0].read_bytes()
        assert b"ann@example.com" in letter
        async with listening(server) as client:
            await client.join(session_id)
            await desk.ask("POST", f"{SESSIONS}/{session_id}/analyze")
            await client.wait_for("feedback:ready", 2)
        await until_idle(server)
        assert len(list((tmp_path / "outbox").glob("*.eml"))) == 1, "once, however often it is scored"
        await desk.ask("PUT", "/api/users/ann/settings", {"feedbackEmail": ""})
        await desk.practise()
        await until_idle(server)
        assert len(list((tmp_path / "outbox").glob("*.eml"))) == 1


async def until_done(server: Server, count: int) -> None:
    """So many jobs are done."""
    async with asyncio.timeout(10):
        while (await server.coaching.jobs.counts()).get("done", 0) < count:
            server.coaching.jobs.wake()


async def until_idle(server: Server) -> None:
    """Every job that is due is done."""
    async with asyncio.timeout(10):
        while (counts := await server.coaching.jobs.counts()).get("queued") or counts.get("running"):
            server.coaching.jobs.wake()


@pytest.mark.parametrize(
    "address", ["no address", "a@b@c", "ann@example.com\nBcc: x@y.z", "x" * 300 + "@a.be"]
)
async def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    async with serving(tmp_path) as server:
        body = {"feedbackEmail": address}
        refused = await Desk(server).ask("PUT", "/api/users/ann/settings", body, status=400)
        assert refused["field"] == "feedbackEmail"


# --- without words


@pytest.mark.parametrize("how", ["this session", "the user", "no consent"])
async def test_who_opts_out_is_scored_and_nothing_that_was_said_is_kept(tmp_path: Path, how: str) -> None:
    words = ("zanzibar", "kwijtschelding")
    said = [(speaker, f"{text} {words[speaker == 'hugo']}.") for speaker, text in TALK]
    values = {"CONSENT_REQUIRED": how == "no consent"}
    async with serving(tmp_path, **values) as server:
        desk = Desk(server)
        choices: dict[str, Any] = {}
        if how == "this session":
            choices = {"storeTranscript": False}
        if how == "the user":
            await desk.ask("PUT", "/api/users/ann/settings", {"storeTranscripts": False})
        started = await desk.start(**choices)
        assert started["storeTranscript"] is False and started["opening"] is not None
        session_id = started["sessionId"]
        await desk.talk(session_id, said)
        reply = (await desk.message(session_id, "En wat denkt u van zanzibar?"))["reply"]
        await desk.stop(session_id)
        feedback = await desk.feedback(session_id)
        assert feedback["overallScore"] is not None and feedback["techniquesUsed"]
        assert {found["quote"] for found in feedback["evidence"]} <= {None}
        moments = [m[who] for m in feedback["missedMoments"] for who in ("customer", "seller") if m[who]]
        assert {found["quote"] for found in moments} <= {None}
        assert feedback["drills"] == [] and await desk.drills() == []
        assert (await desk.progress())["scoredSessions"] == 1
    for word in (*words, reply["text"]):
        nothing_of(word, tmp_path)


async def test_what_a_user_chose_holds_unless_a_session_says_otherwise(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        await desk.ask("PUT", "/api/users/ann/settings", {"storeTranscripts": False})
        assert (await desk.start())["storeTranscript"] is False
        assert (await desk.start(storeTranscript=True))["storeTranscript"] is True
        assert (await desk.start("bob"))["storeTranscript"] is True
