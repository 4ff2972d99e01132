"""A session's data files: the seed's examples field by field, the zip, and where files are kept."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import delete

from coach_server.domain.simulation.talk import Direction, EventType, Mood, Role, SessionEvent, Utterance
from coach_server.errors import NotFound, ProviderError, StorageFailed
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.files import FileStore
from coach_server.providers.files.local import LocalFiles
from coach_server.providers.files.s3 import S3Files
from coach_server.services.simulation.datafiles import (
    NAMES,
    DataFiles,
    SessionRecord,
    events_ndjson,
    session_json,
    transcript_ndjson,
    zip_of,
)
from coach_server.storage import simulation_scores, simulations, tables
from coach_server.storage.database import Database
from coach_server.storage.simulation_scores import Score
from coach_server.storage.simulations import Kept
from tests.fakes.s3 import FakeS3
from tests.services.simulated import START, row

SCORE: dict[str, Any] = {
    "overall": 75,
    "categories": {"empathy": 80, "argumentQuality": 70, "persistence": 65, "adaptability": 85},
    "highlights": ["Good use of product comparison", "Asked about preferences"],
    "improvements": ["Forgot DOB check", "Used forbidden word 'free'"],
    "summary": "Solid performance with room for improvement on protocol.",
}
# Seed 001, "Structured Data Format", with the one text that it abbreviates written out.
SEED_SESSION = {
    "sessionId": "BAT-001",
    "traineeId": "REP_55",
    "personaId": "fmc_smoker",
    "personaName": "Karel",
    "scenarioId": "fmc_resistant",
    "sessionStartUtc": "2024-10-27T10:00:00Z",
    "sessionEndUtc": "2024-10-27T10:08:32Z",
    "durationMs": 512000,
    "outcome": "converted",
    "finalAttitude": 7,
    "moodHistory": [2, 3, 3, 5, 6, 7],
    "score": SCORE,
    "client": "unity-vr",
    "metadata": {},
}
SEED_EVENTS = """\
{"time": 0.0, "type": "SYSTEM", "data": "Session_Start"}
{"time": 1.5, "type": "SYSTEM", "data": "Persona_Loaded"}
{"time": 5.2, "type": "VR_INTERACTION", "data": {"interactedObject": "GLO_Device", "action": "PICKUP"}}
{"time": 12.4, "type": "TABLET_CHOICE", "data": {"question": "Q1", "answer": "Option_B"}}
{"time": 45.3, "type": "SUPERVISOR", "data": {"attitude": 4, "direction": "rising", "guidance": "..."}}
{"time": 88.0, "type": "ERROR", "data": {"errorType": "forbidden_word", "word": "free"}}
{"time": 120.5, "type": "DOB_CHECK", "data": {"entered": "1998-05-12", "correct": true}}
{"time": 510.0, "type": "SYSTEM", "data": "Session_End"}
"""
SEED_TRANSCRIPT = """\
{"startTime": 2.1, "endTime": 4.5, "speaker": "AVATAR", "text": "Hi, I am looking for something new."}
{"startTime": 5.0, "endTime": 8.2, "speaker": "TRAINEE", "text": "Sure, have you tried the GLO Hyper?"}
{"startTime": 9.1, "endTime": 12.8, "speaker": "AVATAR", "text": "I don't know, I've been smoking Marlboro for 20 years..."}
{"startTime": 13.5, "endTime": 18.3, "speaker": "TRAINEE", "text": "I understand. Many of our customers switched from traditional cigarettes."}
"""  # noqa: E501


def seeds_session() -> SessionRecord:
    """The session of the seed's examples."""
    events = [json.loads(line) for line in SEED_EVENTS.splitlines()]
    told = [json.loads(line) for line in SEED_TRANSCRIPT.splitlines()]
    return SessionRecord(
        row=row(ended_at=START + 512.0, duration_ms=512_000),
        utterances=tuple(
            Utterance(n, Role(one["speaker"]), one["text"], one["startTime"] + 0.0004, one["endTime"])
            for n, one in enumerate(told, 1)
        ),
        events=tuple(SessionEvent(one["time"], EventType(one["type"]), one["data"]) for one in events),
        moods=tuple(
            Mood(10.0 * n, value, Direction.RISING) for n, value in enumerate((2.0, 2.5, 3.4, 5.0, 5.6, 7.2))
        ),
        score=SCORE,
    )


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def s3() -> AsyncIterator[FakeS3]:
    async with FakeS3() as fake:
        yield fake


@pytest.fixture
def bucket(s3: FakeS3, http: aiohttp.ClientSession) -> S3Files:
    keys = AwsCredentials(s3.keys.access_key, s3.keys.secret_key)
    return S3Files(keys, s3.keys.region, "coach", http, prefix="trainings", endpoint=s3.url)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    if request.param == "local":
        return LocalFiles(tmp_path / "files")
    found: FileStore = request.getfixturevalue("bucket")
    return found


async def kept(database: Database, record: SessionRecord) -> None:
    """The session as it lies in the database."""
    async with database.transaction() as conn:
        await simulations.insert(conn, record.row)
        await simulations.add_utterances(conn, record.row.id, record.utterances)
        await simulations.add_events(
            conn, record.row.id, [Kept(f"e{n}", event) for n, event in enumerate(record.events)]
        )
        for n, mood in enumerate(record.moods):
            await simulations.add_mood(conn, record.row.id, n, mood)
        if record.score is not None:
            score = dict(record.score)
            one = Score(record.row.id, 75, score["categories"], score, "hash", None, False, START)
            await simulation_scores.keep(conn, one)


# --- the seed's examples


def test_the_seeds_session_file_is_reproduced_field_by_field() -> None:
    made = json.loads(session_json(seeds_session()))

    assert made == SEED_SESSION
    assert list(made) == list(SEED_SESSION)
    assert list(made["score"]) == list(SCORE)


def test_the_seeds_event_file_is_reproduced_byte_by_byte() -> None:
    assert events_ndjson(seeds_session()).decode() == SEED_EVENTS


def test_the_seeds_transcript_file_is_reproduced_byte_by_byte() -> None:
    assert transcript_ndjson(seeds_session()).decode() == SEED_TRANSCRIPT


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\r\nb", "line\u2028end", "par\u2029end", "next\u0085line", "nul\x00", "half \ud83d", '"}\n{"'],
)
def test_an_utterance_stays_on_its_line_whatever_is_in_it(text: str) -> None:
    record = replace(seeds_session(), utterances=(Utterance(1, Role.TRAINEE, text, 0.0, 1.0),) * 2)
    made = transcript_ndjson(record).decode()

    assert len(made.splitlines()) == 2
    assert json.loads(made.splitlines()[0])["text"] == text.replace("\ud83d", "?")


def test_a_session_without_an_end_or_a_score_has_nulls() -> None:
    record = replace(seeds_session(), row=row(started_at=None, ended_at=None, outcome=None), score=None)
    made = json.loads(session_json(record))

    assert [made[key] for key in ("sessionStartUtc", "sessionEndUtc", "outcome", "score")] == [None] * 4


# --- the zip


def test_the_zip_has_fixed_names_and_the_same_bytes_each_time() -> None:
    made = zip_of(seeds_session())

    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert tuple(archive.namelist()) == NAMES
        assert archive.read("events.json").decode() == SEED_EVENTS
    assert made == zip_of(seeds_session())


# --- from the database to where files are kept


async def test_files_are_made_from_the_database_and_can_be_made_again(
    database: Database, store: FileStore
) -> None:
    await kept(database, seeds_session())
    files = DataFiles(database, store)

    await files.write("BAT-001")
    await files.write("BAT-001")

    assert (await store.get("sessions/BAT-001/events.json")).decode() == SEED_EVENTS
    session = json.loads(await store.get("sessions/BAT-001/session.json"))
    assert session == SEED_SESSION and json.dumps(session) == json.dumps(SEED_SESSION)
    async with database.read() as conn:
        found = await simulations.load(conn, "BAT-001")
    assert found is not None and found.data_files_written
    with zipfile.ZipFile(io.BytesIO(await files.zip("BAT-001"))) as archive:
        told = archive.read("transcript.json").decode()
    assert [json.loads(line)["text"] for line in told.splitlines()] == [
        one.text for one in seeds_session().utterances
    ]

    await files.delete("BAT-001")
    await files.delete("BAT-001")
    with pytest.raises(NotFound):
        await store.get("sessions/BAT-001/events.json")


class ErasingStore(LocalFiles):
    """While it keeps the last file, somebody erases the session."""

    def __init__(self, folder: Path, database: Database) -> None:
        super().__init__(folder)
        self._database = database

    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data)
        if key.endswith("transcript.json"):
            async with self._database.transaction() as conn:
                await conn.execute(delete(tables.simulations))


async def test_nothing_is_left_of_a_session_that_is_erased_while_its_files_are_written(
    database: Database, tmp_path: Path
) -> None:
    await kept(database, seeds_session())

    await DataFiles(database, ErasingStore(tmp_path, database)).write("BAT-001")

    assert not (tmp_path / "sessions" / "BAT-001").exists()


HOSTILE_IDS = [
    "",
    ".",
    "..",
    "../BAT-001",
    "a/b",
    "a\\b",
    "a\x00",
    "%2e%2e",
    "a" * 65,
    "BAT 001",
    "BAT-001\n",
    "ž",
]


@pytest.mark.parametrize("session_id", HOSTILE_IDS)
async def test_an_id_that_could_lead_elsewhere_is_unknown(
    database: Database, tmp_path: Path, session_id: str
) -> None:
    files = DataFiles(database, LocalFiles(tmp_path / "files"))

    for act in (files.write, files.zip, files.delete):
        with pytest.raises(NotFound):
            await act(session_id)
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize(
    "key",
    [
        *(f"sessions/{id}/x.json" for id in HOSTILE_IDS if id != "a/b"),
        "/etc/passwd",
        "a/b/c/d/e",
        ".hidden",
        "a.b.c",
    ],
)
async def test_a_key_that_could_lead_elsewhere_is_refused_by_the_store(store: FileStore, key: str) -> None:
    with pytest.raises(NotFound):
        await store.put(key, b"x")
    with pytest.raises(NotFound):
        await store.get(key)


# --- the local folder


async def test_a_link_inside_the_folder_cannot_lead_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "files" / "sessions").mkdir(parents=True)
    (tmp_path / "files" / "sessions" / "BAT-001").symlink_to(outside)

    with pytest.raises(NotFound):
        await LocalFiles(tmp_path / "files").put("sessions/BAT-001/session.json", b"x")
    assert list(outside.iterdir()) == []


async def test_a_write_that_fails_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalFiles(tmp_path)
    await store.put("sessions/a/x.json", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed):
        await store.put("sessions/a/x.json", b"new")

    assert [path.name for path in (tmp_path / "sessions" / "a").iterdir()] == ["x.json"]
    assert await store.get("sessions/a/x.json") == b"old"


async def test_files_are_for_the_servers_user_only(tmp_path: Path) -> None:
    await LocalFiles(tmp_path / "files").put("sessions/a/x.json", b"{}")

    path = tmp_path / "files" / "sessions" / "a" / "x.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_folder_goes_with_its_last_file(tmp_path: Path) -> None:
    store = LocalFiles(tmp_path)
    await store.put("sessions/a/x.json", b"{}")
    await store.put("sessions/a/y.json", b"{}")

    await store.delete("sessions/a/x.json")
    assert (tmp_path / "sessions" / "a").is_dir()
    await store.delete("sessions/a/y.json")
    assert not (tmp_path / "sessions" / "a").exists()


# --- S3


async def test_s3_objects_lie_under_bucket_and_prefix(s3: FakeS3, bucket: S3Files) -> None:
    await bucket.put("sessions/BAT-001/session.json", b"{}")

    assert s3.objects == {"/coach/trainings/sessions/BAT-001/session.json": b"{}"}


async def test_s3_is_asked_once_more_after_a_fault_that_may_pass(s3: FakeS3, bucket: S3Files) -> None:
    s3.answers.append(503)

    await bucket.put("sessions/a/x.json", b"{}")

    assert len(s3.requests) == 2 and s3.objects


@pytest.mark.parametrize(("status", "retryable", "asked"), [(500, True, 2), (403, False, 1), (400, False, 1)])
async def test_s3_says_whether_another_try_may_help(
    s3: FakeS3, bucket: S3Files, status: int, retryable: bool, asked: int
) -> None:
    s3.answers.extend([status, status])

    with pytest.raises(ProviderError) as caught:
        await bucket.put("sessions/a/x.json", b"{}")

    assert caught.value.retryable is retryable and len(s3.requests) == asked
    assert "vendor" not in caught.value.message


async def test_s3_refuses_a_wrong_key(s3: FakeS3, http: aiohttp.ClientSession) -> None:
    wrong = S3Files(AwsCredentials("AKIATESTS3", "wrong"), "eu-central-1", "coach", http, endpoint=s3.url)

    with pytest.raises(ProviderError) as caught:
        await wrong.put("sessions/a/x.json", b"{}")
    assert not caught.value.retryable and not s3.objects


async def test_an_s3_that_is_not_there_may_be_tried_again(http: aiohttp.ClientSession) -> None:
    nobody = S3Files(AwsCredentials("a", "b"), "eu-central-1", "coach", http, endpoint="http://127.0.0.1:9")

    with pytest.raises(ProviderError) as caught:
        await nobody.get("sessions/a/x.json")
    assert caught.value.retryable
