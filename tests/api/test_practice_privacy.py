"""Erasure, export, retention, encryption and logs of what is practised, through the real server on both
engines. The user's id is an e-mail address, and a canary stands in everything that is said."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from sqlalchemy import select, update

from coach_server.api import export_out
from coach_server.clock import SystemClock
from coach_server.providers.mail.outbox import Outbox
from coach_server.services.retention import Retention
from coach_server.storage import jobs as job_rows
from coach_server.storage import practice
from coach_server.storage.tables import drills, jobs, roleplay_sessions, users
from coach_server.testing import ManualClock
from tests.api.test_privacy import DATA_KEY as KEY_OF_DATA
from tests.api.test_privacy import DAY_S, as_user, letters, stored
from tests.fakes import liveavatar
from tests.fakes.heygen import status as failing
from tests.fakes.liveavatar import FakeLiveAvatar
from tests.fakes.openai import FakeOpenAI
from tests.serving import OTHER_KEY, Server, connected, serving
from tests.trust.calling import until
from tests.trust.talking import SESSIONS, Talker, talking

CANARY = "Zanzibar-4417"
ANN = "ann@zanzibar-4417.example"
LETTERS_TO = "boss@zanzibar-4417.example"
LINES = (
    f"Good morning, shall we look at your invoices of {CANARY} together and agree on the agenda?",
    f"How do you process your invoices at {CANARY} today?",
    f"So if I understand you well {CANARY} loses two days a month, is that right?",
    f"What does it cost {CANARY} when an invoice goes out late?",
    f"I suggest a pilot for {CANARY} on Tuesday at ten, does that suit you?",
)
WITHIN_S = 60


def everywhere(server: Server) -> str:
    """Every byte below DATA_DIR, and of SQLite's files wherever they lie."""
    files = [file for file in server.data_dir.rglob("*") if file.is_file()]
    return "\n".join(file.read_bytes().decode("latin-1") for file in files)


async def left(server: Server) -> str:
    """All that the server keeps, in small letters: every column of every table, and every file."""
    kept = await stored(server.coaching.database)
    return (kept + await asyncio.to_thread(everywhere, server)).lower()


@dataclass(slots=True)
class Practised:
    """What a user did: ids of the sessions by what they were."""

    ids: dict[str, str] = field(default_factory=dict)
    call: str = ""
    feedback: dict[str, Any] = field(default_factory=dict)


async def practise(server: Server, talker: Talker, user: str, **wish: Any) -> Practised:
    """A practice session, a drill of it, one that keeps no words, a live call and one that runs still."""
    done = Practised()
    status, answer, _ = await talker.ask(
        "PUT", f"/api/users/{user}/settings", {"feedbackEmail": LETTERS_TO, "consent": {"given": True}}
    )
    assert status == 200, answer
    done.ids["practice"], done.feedback = await talker.practise(user, *LINES, **wish)
    (drill, *_) = done.feedback["drills"]
    status, started, _ = await talker.ask("POST", f"/api/drills/{drill['id']}/start")
    assert status == 200, started
    done.ids["drill"] = str(started["sessionId"])
    await talker.talk(done.ids["drill"], LINES[1])
    await talker.stop(done.ids["drill"])
    done.ids["unkept"], _ = await talker.practise(user, *LINES, storeTranscript=False)
    async with connected(server, {"token": await server.token(user)}) as client:
        done.call = (await client.start())["conversationId"]
        for number, line in enumerate(LINES * 2):
            await client.say(done.call, "caller" if number % 2 else "agent", line)
        await client.ask("END_CONVERSATION", {"conversationId": done.call})
        await client.wait_for("ANALYSIS_READY")
    done.ids["running"] = str((await talker.start(user, **wish))["sessionId"])
    await talker.talk(done.ids["running"], *LINES[:2])
    await until(lambda: is_quiet(server))
    return done


async def is_quiet(server: Server) -> bool:
    counts = await server.coaching.jobs.counts()
    return counts["queued"] == counts["running"] == 0


@asynccontextmanager
async def with_avatar(tmp_path: Path, **values: Any) -> AsyncIterator[tuple[Server, Talker, FakeLiveAvatar]]:
    async with (
        FakeLiveAvatar(SystemClock()) as fake,
        serving(
            tmp_path,
            LIVEAVATAR_API_KEY=liveavatar.KEY,
            LIVEAVATAR_AVATAR_ID=liveavatar.AVATAR,
            LIVEAVATAR_BASE_URL=fake.url,
            **values,
        ) as server,
        talking(server) as talker,
    ):
        yield server, talker, fake


# --- erasure


@pytest.mark.timeout(120)
async def test_erasing_a_user_leaves_no_byte_of_what_was_practised(tmp_path: Path, database_url: str) -> None:
    async with with_avatar(tmp_path, DATABASE_URL=database_url) as (server, talker, fake):
        done = await practise(server, talker, ANN)
        assert CANARY.lower() in await left(server) and len(letters(server)) >= 1
        auth = {"token": await server.token(ANN)}
        async with connected(server, auth) as listener, asyncio.timeout(WITHIN_S):
            joined = await listener.ask("session:join", {"sessionId": done.ids["running"]})
            assert joined["ok"], joined
            status, receipt, _ = await talker.ask("DELETE", f"/api/users/{ANN}")
            assert status == 200, receipt
            beat = await listener.ask("session:heartbeat", {"sessionId": done.ids["running"]})
            assert (beat["ok"], beat["code"]) == (False, "NOT_FOUND")
            said = {"sessionId": done.ids["running"], "text": f"{CANARY} once more"}
            assert (await listener.ask("roleplay:message", said))["code"] == "NOT_FOUND"
            for id in done.ids.values():
                assert (await talker.ask("GET", f"{SESSIONS}/{id}/feedback"))[0] == 404
                assert (await talker.say(id, CANARY))[0] == 404
            for name in ("roleplay_sessions", "roleplay_transcripts", "roleplay_feedback", "drills"):
                assert receipt["counts"][name] >= 1, receipt
            assert receipt["counts"]["roleplay_sessions"] == len(done.ids)
            for name in ("users", "user_progress", "call_feedback", "conversations", "letters"):
                assert receipt["counts"][name] >= 1, receipt
            await until(lambda: are_erased(fake))
            await until(lambda: is_quiet(server))
        assert fake.open == []
        kept = await left(server)
        assert "zanzibar" not in kept
        assert not any(id in kept for id in (*done.ids.values(), done.call))
        assert letters(server) == []
        status, again, _ = await talker.ask("DELETE", f"/api/users/{ANN}")
        assert (status, again["counts"]) == (200, {})
        status, document, _ = await talker.ask("GET", f"/api/users/{ANN}/export")
        assert status == 200 and document["sessions"] == document["drills"] == document["progress"] == []
        assert document["settings"] is None


async def are_erased(fake: FakeLiveAvatar) -> bool:
    started = [one for one in fake.sessions.values() if one.started]
    return bool(started) and all(one.erased for one in started)


@pytest.mark.timeout(120)
async def test_other_users_keep_theirs_byte_for_byte(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, talking(server) as talker:
        await practise(server, talker, ANN)
        bob = await practise(server, talker, "bob")
        namesake = (await server.post(f"{SESSIONS}/start", {"userId": ANN}, key=OTHER_KEY))[1]
        before = (await talker.ask("GET", "/api/users/bob/export"))[1]
        assert (await talker.ask("DELETE", f"/api/users/{ANN}"))[0] == 200
        after = (await talker.ask("GET", "/api/users/bob/export"))[1]
        assert {**after, "exportedAt": 0} == {**before, "exportedAt": 0}
        assert (await talker.message(bob.ids["running"], "Are you still there?"))[0] == 200
        one = f"{SESSIONS}/{namesake['sessionId']}"
        assert (await server.get(f"{one}/status", key=OTHER_KEY))[0] == 200


async def test_a_user_who_goes_on_talking_while_being_erased_leaves_nothing(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, talking(server) as talker:
        ids = [str((await talker.start(ANN))["sessionId"]) for _ in range(3)]
        await talker.talk(ids[0], *LINES)
        await talker.stop(ids[0])

        async def talk(id: str) -> int:
            for number in range(200):
                status, _ = await talker.message(id, f"{CANARY} {number}?")
                if status != 200:
                    return status
            return 200

        lanes = [asyncio.create_task(talk(id)) for id in ids[1:] for _ in range(3)]
        status, receipt, _ = await talker.ask("DELETE", f"/api/users/{ANN}")
        assert status == 200, receipt
        assert set(await asyncio.gather(*lanes)) == {404}
        await until(lambda: is_quiet(server))
        assert await server.coaching.database.scrub()
        assert "zanzibar" not in await left(server)


async def test_an_avatar_vendor_that_fails_is_asked_to_erase_again(tmp_path: Path) -> None:
    async with with_avatar(tmp_path) as (server, talker, fake):
        id = str((await talker.start(ANN))["sessionId"])
        await talker.message(id, LINES[0])
        fake.script("events", failing(500))
        assert (await talker.ask("DELETE", f"/api/users/{ANN}"))[0] == 200
        await until(lambda: are_erased(fake), within_s=20)
        assert fake.names.count("events") >= 2
        assert "zanzibar" not in await left(server)


@pytest.mark.timeout(60)
async def test_what_a_model_said_of_a_user_is_erased_with_the_user(tmp_path: Path, database_url: str) -> None:
    async with FakeOpenAI() as fake:
        model = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with (
            serving(tmp_path, DATABASE_URL=database_url, **model) as server,
            talking(server) as talker,
        ):
            first, feedback = await talker.practise(ANN, *LINES)
            assert feedback["source"] == "openai"
            async with server.coaching.database.read() as conn:
                kept = await practice.feedback(conn, first)
            assert kept is not None and kept.judgement
            await talker.practise(ANN, *LINES)
            assert (await talker.ask("DELETE", f"/api/users/{ANN}"))[0] == 200
            await until(lambda: is_quiet(server))
            assert "zanzibar" not in await left(server)
            # Nothing of it is remembered for somebody else who says the same.
            asked = len([seen for seen in fake.requests if seen.schema_name == "assessment"])
            _, other = await talker.practise("bob", *LINES)
            assert other["source"] == "openai"
            assert len([seen for seen in fake.requests if seen.schema_name == "assessment"]) > asked


# --- export


@pytest.mark.parametrize("keys", ["", f"k1:{KEY_OF_DATA}"], ids=["plain", "encrypted"])
async def test_an_export_has_all_that_was_practised(tmp_path: Path, database_url: str, keys: str) -> None:
    values = {"DATABASE_URL": database_url, "DATA_ENCRYPTION_KEY": keys}
    async with serving(tmp_path, **values) as server, talking(server) as talker:
        done = await practise(server, talker, ANN)
        await practise(server, talker, "bob")
        status, document = await as_user(server, "GET", f"/api/users/{ANN}/export", ANN)
        assert status == 200
        export_out.UserExport.model_validate(document)
        assert document["userId"] == ANN
        assert document["settings"]["feedbackEmail"] == LETTERS_TO
        assert document["settings"]["consent"] == {"given": True}
        (progress,) = document["progress"]
        assert progress["methodology"] == "hugo" and progress["totalSessions"] >= 1
        assert progress["stepStats"]
        sessions = {one["sessionId"]: one for one in document["sessions"]}
        assert set(sessions) == set(done.ids.values())
        practised = sessions[done.ids["practice"]]
        said = [turn["message"] for turn in practised["transcript"] if turn["speaker"] == "user"]
        assert said == list(LINES)
        numbers = [turn["sequenceNumber"] for turn in practised["transcript"]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert practised["feedback"]["overallScore"] == done.feedback["overallScore"]
        assert CANARY in json.dumps(practised["feedback"]) and practised["steps"]
        assert sessions[done.ids["drill"]]["kind"] == "drill"
        unkept = sessions[done.ids["unkept"]]
        assert {turn["message"] for turn in unkept["transcript"]} == {""} and unkept["feedback"]
        assert CANARY not in json.dumps(unkept)
        assert [one["source"]["id"] for one in document["drills"]]
        (call,) = document["conversations"]
        assert call["conversationId"] == done.call and call["feedback"]["overallScore"] is not None


async def test_what_cannot_be_read_is_named_in_an_export_and_does_not_stop_it(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, DATA_ENCRYPTION_KEY=f"k1:{KEY_OF_DATA}") as server,
        talking(server) as talker,
    ):
        done = await practise(server, talker, ANN)
        spoiled = {"enc": "\x1fenc1.k1.AAAA"}
        async with server.coaching.database.transaction() as conn:
            s = roleplay_sessions
            await conn.execute(update(s).where(s.c.id == done.ids["practice"]).values(state=spoiled))
            await conn.execute(update(drills).values(document=spoiled))
            await conn.execute(update(users).values(feedback_email="\x1fenc1.k1.AAAA"))
        status, document = await as_user(server, "GET", f"/api/users/{ANN}/export", ANN)
        assert status == 200
        export_out.UserExport.model_validate(document)
        assert document["settings"] == {"userId": ANN, "unreadable": True}
        assert {"sessionId": done.ids["practice"], "unreadable": True} in document["sessions"]
        assert len(document["sessions"]) == len(done.ids)
        assert all(one["unreadable"] and one["drillId"] for one in document["drills"])
        status, receipt, _ = await talker.ask("DELETE", f"/api/users/{ANN}")
        assert status == 200 and receipt["counts"]["roleplay_sessions"] == len(done.ids)
        assert ANN not in await left(server)


# --- retention


@pytest.mark.parametrize("keys", ["", f"k1:{KEY_OF_DATA}"], ids=["plain", "encrypted"])
@pytest.mark.timeout(120)
async def test_after_91_days_words_and_quotes_are_gone_and_scores_and_progress_stay(
    tmp_path: Path, database_url: str, keys: str
) -> None:
    values = {"DATABASE_URL": database_url, "DATA_ENCRYPTION_KEY": keys}
    async with serving(tmp_path, **values) as server, talking(server) as talker:
        done = await practise(server, talker, ANN)
        way = f"/api/roleplay/users/{ANN}/progress"
        progress = (await talker.ask("GET", way))[1]
        sweep = await sweep_after(server, 91)
        assert "zanzibar-4417 " not in await left(server)
        for name in ("roleplay_transcripts", "roleplay_feedback", "call_feedback", "drills", "utterances"):
            assert sweep.counts[name] >= 1, sweep
        assert sweep.counts["roleplay_sessions"] == len(done.ids)
        status, after, _ = await talker.ask("GET", f"{SESSIONS}/{done.ids['practice']}/feedback")
        assert status == 200
        for name in ("overallScore", "subScores", "techniqueScores", "phases", "metrics"):
            assert after[name] == done.feedback[name]
        assert {found["quote"] for found in after["evidence"]} == {None} and after["drills"] == []
        again = (await talker.ask("GET", way))[1]
        assert again == progress
        status, call = await as_user(server, "GET", f"/api/conversations/{done.call}/feedback", ANN)
        assert status == 200 and CANARY not in json.dumps(call) and call["overallScore"] is not None
        sweeps = (await as_user(server, "GET", "/api/privacy/sweeps", "root", "admin"))[1]["sweeps"]
        assert sweeps[0]["counts"] == sweep.counts
        assert (await sweep_after(server, 91)).counts == {}


async def sweep_after(server: Server, days: float) -> Any:
    """What the daily sweep does `days` from now."""
    clock = ManualClock(server.coaching.clock.now() + days * DAY_S)
    outbox = Outbox(server.data_dir / "outbox", clock)
    return await Retention(
        server.coaching.database, server.coaching.simulating.privacy, outbox, clock, days=90, owner="test"
    ).sweep()


async def test_a_session_nobody_stopped_is_over_when_its_words_are_deleted(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, talking(server) as talker:
        id = str((await talker.start(ANN))["sessionId"])
        await talker.talk(id, *LINES[:2])
        await sweep_after(server, 91)
        status, told, _ = await talker.ask("GET", f"{SESSIONS}/{id}/status")
        assert (status, told["status"]) == (200, "abandoned")
        assert (await talker.say(id, "again"))[0] == 409
        assert (await talker.message(id, "again"))[0] == 409
        assert (await talker.stop(id))["status"] == "abandoned"
        assert (await talker.ask("GET", f"{SESSIONS}/{id}/feedback"))[0] == 404
        async with connected(server) as client:
            assert (await client.ask("session:join", {"sessionId": id}))["ok"]


async def test_an_analysis_ordered_after_its_words_are_gone_keeps_the_old_score(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, talking(server) as talker:
        id, before = await talker.practise(ANN, *LINES)
        await until(lambda: is_quiet(server))
        await sweep_after(server, 91)
        await talker.ask("POST", f"{SESSIONS}/{id}/analyze")
        await until(lambda: is_quiet(server))
        status, after, _ = await talker.ask("GET", f"{SESSIONS}/{id}/feedback")
        assert status == 200 and after["overallScore"] == before["overallScore"]


# --- encryption


@pytest.mark.timeout(120)
async def test_what_is_practised_under_encryption_is_nowhere_to_be_read_but_here(
    tmp_path: Path, database_url: str
) -> None:
    values = {"DATABASE_URL": database_url, "DATA_ENCRYPTION_KEY": f"k1:{KEY_OF_DATA}"}
    async with serving(tmp_path, **values) as server, talking(server) as talker:
        done = await practise(server, talker, "ann")
        # The letters are files of DATA_DIR/outbox, as the operator chose.
        assert CANARY not in await stored(server.coaching.database)
        assert LETTERS_TO not in await stored(server.coaching.database)
        assert CANARY in json.dumps(done.feedback)
    async with serving(tmp_path, **values) as server, talking(server) as talker:
        assert (await talker.message(done.ids["running"], f"And {CANARY}?"))[0] == 200
        assert CANARY not in await stored(server.coaching.database)


async def test_production_refuses_to_start_without_a_key_in_one_clear_line(tmp_path: Path) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    given = {"APP_ENV": "production", "DATA_DIR": str(tmp_path), "BACKEND_API_KEY": "a1" * 24, "PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "coach_server",
        env=environment | given,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    told = (out + err).decode()
    assert process.returncode not in (0, None)
    (line,) = [line for line in told.splitlines() if "DATA_ENCRYPTION_KEY" in line]
    assert "missing" in line and "Traceback" not in told
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


# --- logs and what is opted out


@pytest.mark.timeout(60)
async def test_a_session_that_keeps_no_words_leaves_none(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, talking(server) as talker:
        id, feedback = await talker.practise("ann", *LINES, storeTranscript=False)
        assert {found["quote"] for found in feedback["evidence"]} <= {None}
        assert feedback["drills"] == []
        running = str((await talker.start("ann", storeTranscript=False))["sessionId"])
        await talker.talk(running, *LINES[:2])
        assert CANARY.lower() not in await left(server)
        assert (await talker.ask("GET", f"{SESSIONS}/{id}/status"))[1]["transcriptLength"] > len(LINES)


@pytest.mark.timeout(60)
async def test_no_word_no_address_and_no_token_is_in_the_log_of_practising(tmp_path: Path) -> None:
    heard = io.StringIO()
    sink = logger.add(heard, level="TRACE", format="{message} {extra} {exception}", diagnose=True)
    tokens = []
    try:
        async with with_avatar(tmp_path) as (server, talker, fake):
            done = await practise(server, talker, ANN)
            tokens.append(await server.token(ANN))
            tokens += [one.token for one in fake.sessions.values()]
            started = await talker.start(ANN)
            tokens += [started["joinToken"], started["livekitToken"]]
            async with connected(server, {"joinToken": started["joinToken"]}) as client:
                await client.ask("session:join", {"sessionId": started["sessionId"]})
                await client.ask("roleplay:message", {"sessionId": started["sessionId"], "text": LINES[0]})
                await client.ask("roleplay:message", {"sessionId": CANARY, "text": CANARY})
            await talker.say(started["sessionId"], CANARY, speaker=CANARY)
            await talker.ask("POST", f"{SESSIONS}/start", {"userId": ANN, "scenarioId": CANARY})
            async with server.coaching.database.transaction() as conn:
                await job_rows.enqueue(conn, "no such kind", "x", {"words": CANARY}, 0.0)
            await talker.ask("GET", f"/api/users/{ANN}/export")
            await talker.ask("DELETE", f"/api/users/{ANN}")
    finally:
        logger.remove(sink)
    told = heard.getvalue()
    assert "Practice started" in told and "Practice analysed" in told and "Feedback was mailed" in told
    assert "zanzibar" not in told.lower() and done.feedback["advice"] not in told
    assert [token for token in tokens if token and token in told] == []
    assert liveavatar.KEY not in told and server.key not in told


async def test_jobs_hold_ids_and_nothing_else_of_a_user(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, talking(server) as talker:
        await practise(server, talker, ANN)
        async with server.coaching.database.read() as conn:
            rows = (await conn.execute(select(jobs.c.key, jobs.c.payload))).all()
        assert rows and "zanzibar" not in str(rows).lower()
