"""The documented messages, files and answers of seed 001, against the whole server."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from coach_server.app import Replacements
from coach_server.testing import ManualClock
from tests.api.simulating import GOOD, Office, headset, let_pass, talk
from tests.serving import serving

# The seed's three events, as its headset sends them.
EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "VR_INTERACTION", "data": {"interactedObject": "GLO_Device", "action": "PICKUP"}},
    {"type": "TABLET_CHOICE", "data": {"question": "Q1", "answer": "Option_B"}},
    {"type": "DOB_CHECK", "data": {"entered": "1998-05-12", "correct": True}},
)
NUMBER = (int, float)
SESSION_FILE: dict[str, Any] = {
    "sessionId": str,
    "traineeId": str,
    "personaId": str,
    "personaName": str,
    "scenarioId": str,
    "sessionStartUtc": str,
    "sessionEndUtc": str,
    "durationMs": int,
    "outcome": str,
    "finalAttitude": int,
    "moodHistory": list,
    "score": dict,
    "client": str,
    "metadata": dict,
}
SCORE = {
    "overall": int,
    "categories": dict,
    "highlights": list,
    "improvements": list,
    "summary": str,
}
CATEGORIES = {"empathy", "argumentQuality", "persistence", "adaptability"}
OF_SESSION = {"sessionId", "traineeId", "scenarioId", "personaId", "personaName", "status", "outcome"} | {
    "transcript",
    "events",
    "moodHistory",
    "finalAttitude",
    "score",
    "supervisorLogs",
    "endTrigger",
    "durationMs",
    "client",
    "metadata",
    "exports",
    "dataFilesWritten",
}


def has_shape(document: dict[str, Any], shape: dict[str, Any]) -> None:
    for name, kind in shape.items():
        assert isinstance(document[name], kind), (name, document.get(name))


async def test_the_seeds_connection_flow_ends_in_its_files_field_by_field(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        office = Office(server)
        made = await office.create("REP_55", client="unity-vr")
        assert {"sessionId", "wsUrl", "persona"} <= set(made)
        async with headset(made["wsUrl"]) as client:
            assert client.frames[0]["type"] == "ready"
            for event in EVENTS:
                await client.send({"type": "event", "data": event})
            await talk(clock, server, client, GOOD)
            await let_pass(clock, server, lambda: client.told("session_ended"))
            await client.wait_for("score")
            kinds = [frame["type"] for frame in client.frames]
            assert kinds.index("session_ended") < kinds.index("score") == len(kinds) - 1
        told = await office.once(made["sessionId"], analysisStatus="done", dataFilesWritten=True)
        assert set(told) >= OF_SESSION
        assert (told["status"], told["outcome"]) == ("ended", "converted")
        status, _, packed = await office.file(f"/api/sessions/{made['sessionId']}/data")
        assert status == 200
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            files = {Path(name).name: archive.read(name).decode() for name in archive.namelist()}
        session = json.loads(files["session.json"])
        has_shape(session, SESSION_FILE)
        has_shape(session["score"], SCORE)
        assert set(session["score"]["categories"]) == CATEGORIES
        assert (session["traineeId"], session["client"]) == ("REP_55", "unity-vr")
        events = [json.loads(line) for line in files["events.json"].splitlines()]
        assert all(set(one) == {"time", "type", "data"} and isinstance(one["time"], NUMBER) for one in events)
        sent = [{"type": one["type"], "data": one["data"]} for one in events]
        assert [one for one in sent if one in EVENTS] == list(EVENTS)
        assert (sent[0]["data"], sent[-1]["data"]) == ("Session_Start", "Session_End")
        assert {"attitude", "direction", "guidance"} <= set(
            next(one["data"] for one in sent if one["type"] == "SUPERVISOR")
        )
        lines = [json.loads(line) for line in files["transcript.json"].splitlines()]
        assert all(set(one) == {"startTime", "endTime", "speaker", "text"} for one in lines)
        assert [one["text"] for one in lines] == client.words()
        row = (await office.ask("GET", "/api/dashboard"))["sessions"][0]
        assert {"sessionId", "traineeId", "personaName", "outcome", "score", "durationMs"} <= set(row)
        assert row["score"] == session["score"]["overall"]
