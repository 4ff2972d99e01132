"""Simulations over REST (seed 001): made, listed, read by whoever may, batches of events, own personas."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.practising import Desk
from tests.api.simulating import GOOD, Office, headset, persona_document, scenario_document
from tests.serving import OTHER_KEY, Server, serving

PICKUP = {
    "type": "VR_INTERACTION",
    "time": 5.2,
    "data": {"interactedObject": "GLO_Device", "action": "PICKUP"},
}
CHOICE = {"type": "TABLET_CHOICE", "time": 12.4, "data": {"question": "Q1", "answer": "Option_B"}}
BIRTH = {"type": "DOB_CHECK", "time": 120.5, "data": {"entered": "1998-05-12", "correct": True}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as server:
        yield server


@pytest.fixture
def office(server: Server) -> Office:
    return Office(server)


async def ended(office: Office, trainee: str = "eva", lines: int = 2, **choices: Any) -> dict[str, Any]:
    """A short talk that is over and scored."""
    started = await office.create(trainee, **choices)
    async with headset(started["wsUrl"]) as client:
        for line in GOOD[:lines]:
            await client.say(line)
        await client.end()
        await client.closed()
    return await office.once(started["sessionId"], status="ended", analysisStatus="done")


async def test_a_session_is_made_with_what_a_client_needs(office: Office) -> None:
    made = await office.create("REP_55", metadata={"shift": 2}, client="unity-vr")
    assert made["sessionId"] == "BAT-001" and made["status"] == "created"
    assert made["wsUrl"].startswith("ws://") and "/ws/sessions/BAT-001?ticket=" in made["wsUrl"]
    assert made["persona"]["name"] == "Karel"
    told = json.dumps(made).lower()
    for secret in ("prompt", "weak", "criteria", "weights"):
        assert secret not in told
    assert (await office.create())["sessionId"] == "BAT-002"
    session = await office.session("BAT-001")
    assert (session["client"], session["metadata"]) == ("unity-vr", {"shift": 2})
    assert session["outcome"] is None and session["score"] is None


@pytest.mark.parametrize(
    ("wish", "status", "field"),
    [
        ({"scenarioId": None}, 400, "scenarioId"),
        ({"scenarioId": "../../etc/passwd"}, 400, "scenarioId"),
        ({"scenarioId": "nobody"}, 404, None),
        ({"personaId": "nobody"}, 404, None),
        ({"traineeId": None}, 400, "traineeId"),
        ({"traineeId": "a/b"}, 400, "traineeId"),
        ({"language": "english"}, 400, "language"),
        ({"language": "he"}, 400, "language"),
        ({"metadata": [1]}, 400, "metadata"),
        ({"metadata": {"x": "a" * 20_000}}, 400, "metadata"),
        ({"storeTranscript": "maybe"}, 400, "storeTranscript"),
    ],
)
async def test_a_wrong_wish_is_refused_by_its_field(
    office: Office, wish: dict[str, Any], status: int, field: str | None
) -> None:
    body = {"scenarioId": "fmc_resistant", "traineeId": "eva", "language": "en", **wish}
    found, answer = await office.try_(
        "POST", "/api/sessions", {name: value for name, value in body.items() if value is not None}
    )
    if field == "traineeId" and found == 200:
        assert wish["traineeId"] == "a/b", "any text may name a trainee"
        return
    assert found == status, answer
    assert field is None or answer["field"] == field
    assert (await office.ask("GET", "/api/sessions"))["total"] == 0


async def test_sessions_are_filtered_sorted_and_paged(office: Office) -> None:
    for trainee in ("eva", "bob", "eva"):
        await office.create(trainee)
    done = await ended(office, "zoe")

    async def ids(query: str) -> list[str]:
        return [one["sessionId"] for one in (await office.ask("GET", f"/api/sessions?{query}"))["sessions"]]

    assert await ids("trainee=bob") == ["BAT-002"]
    assert await ids("status=ended") == [done["sessionId"]]
    assert await ids("outcome=converted") == []
    assert await ids("sort=id&order=asc&pageSize=1&page=2&trainee=eva") == ["BAT-003"]
    assert (await ids("sort=trainee&order=asc"))[0] == "BAT-002"
    assert (await ids("sort=score&order=desc"))[0] == done["sessionId"]
    assert await ids("from=2199-01-01") == [] and await ids("to=2001-01-01") == []
    page = await office.ask("GET", "/api/sessions?pageSize=2&page=99")
    assert page["sessions"] == [] and page["total"] >= 4
    for query in (
        "page=0",
        "pageSize=1000",
        "sort=words",
        "outcome=won",
        "from=yesterday",
        "from=NaN",
        "page=x",
    ):
        status, answer = await office.try_("GET", f"/api/sessions?{query}")
        assert (status, answer["code"]) == (400, "INVALID"), query


async def test_a_trainee_sees_the_own_a_manager_the_team_and_another_key_nothing(
    server: Server, office: Office
) -> None:
    eva = Office(server, token=await server.token("eva", team="north"))
    bob = Office(server, token=await server.token("bob", team="south"))
    boss = Office(server, token=await server.token("max", "manager", "north"))
    stranger = Office(server, key=OTHER_KEY)
    own = (await eva.create(None))["sessionId"]
    hers = f"/api/sessions/{own}"
    assert (await bob.create(None))["traineeId"] == "bob"
    for viewer, total in ((eva, 1), (bob, 1), (boss, 1), (office, 2), (stranger, 0)):
        assert (await viewer.ask("GET", "/api/sessions"))["total"] == total
        assert (await viewer.ask("GET", "/api/dashboard/stats"))["totalSessions"] == total
        assert (await viewer.ask("GET", "/api/dashboard"))["total"] == total
        status, _, table = await viewer.file("/api/dashboard/csv")
        assert status == 200 and len(table.decode().strip().splitlines()) == total + 1
    for viewer, status in ((eva, 200), (boss, 200), (office, 200), (bob, 404), (stranger, 404)):
        assert (await viewer.try_("GET", hers))[0] == status
    for viewer in (bob, stranger, boss):
        await viewer.upload(own, [PICKUP], status=404)
        assert (await viewer.try_("POST", f"{hers}/export"))[0] == 404
    assert (await bob.try_("GET", "/api/sessions?trainee=eva"))[1]["total"] == 0
    assert (await eva.try_("POST", "/api/sessions", {"scenarioId": "fmc_resistant", "traineeId": "bob"}))[
        0
    ] == 403
    assert (await Desk(server, key=None).try_("GET", hers))[0] == 401


@pytest.mark.parametrize("id", ["..%2F..%2Fetc", "BAT.001", "BAT-001%00", "a" * 65, "BAT-001%20", "%2e%2e"])
async def test_an_odd_id_is_nobodys(server: Server, id: str) -> None:
    for method, path in (
        ("GET", ""),
        ("POST", "/events"),
        ("GET", "/report"),
        ("GET", "/data"),
        ("POST", "/export"),
    ):
        status, answer = await server.request(method, f"/api/sessions/{id}{path}", body={"events": []})
        assert status in (400, 404), (path, answer)


async def test_a_batch_is_stored_once_in_its_order_however_often_it_is_sent(office: Office) -> None:
    id = (await office.create())["sessionId"]
    batch = [PICKUP, CHOICE, BIRTH, {**PICKUP, "id": "one"}]
    first = await office.upload(id, batch)
    assert (first["accepted"], first["duplicates"]) == (4, 0)
    again = await office.upload(id, [*batch, {**CHOICE, "time": 200}])
    assert (again["accepted"], again["duplicates"]) == (1, 4)
    told = (await office.session(id))["events"]
    assert [(one["time"], one["type"]) for one in told] == [
        (5.2, "VR_INTERACTION"),
        (5.2, "VR_INTERACTION"),
        (12.4, "TABLET_CHOICE"),
        (120.5, "DOB_CHECK"),
        (200, "TABLET_CHOICE"),
    ]
    assert told[0]["data"] == PICKUP["data"]


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (7, "events.1"),
        ({"type": "SYSTEM", "time": 1}, "events.1.type"),
        ({"type": "VR_INTERACTION"}, "events.1.time"),
        ({"type": "VR_INTERACTION", "time": -1}, "events.1.time"),
        ({"type": "VR_INTERACTION", "time": 10**9}, "events.1.time"),
        ({"type": "VR_INTERACTION", "time": 1, "data": []}, "events.1.data"),
        ({"type": "DOB_CHECK", "time": 1, "data": {}}, "events.1.data.correct"),
        ({"type": "VR_INTERACTION", "time": 1, "id": 7}, "events.1.id"),
        ({"type": "VR_INTERACTION", "time": 1, "id": "a" * 200}, "events.1.id"),
    ],
)
async def test_one_bad_event_refuses_the_whole_batch(office: Office, event: Any, field: str) -> None:
    id = (await office.create())["sessionId"]
    answer = await office.upload(id, [PICKUP, event, CHOICE], status=400)
    # An item that is no object is refused by the list's model, under the same number.
    assert answer["field"] == field, answer
    assert (await office.session(id))["events"] == []


async def test_a_huge_batch_and_numbers_that_are_none_are_refused(server: Server, office: Office) -> None:
    id = (await office.create())["sessionId"]
    await office.upload(id, [PICKUP] * 1001, status=400)
    assert (await office.try_("POST", f"/api/sessions/{id}/events", {"events": "x"}))[0] == 400
    status, answer = await office.try_(
        "POST", f"/api/sessions/{id}/events", {"events": [{**PICKUP, "time": float("nan")}]}
    )
    assert (status, answer["field"]) == (400, "body")


async def test_what_is_not_over_has_no_report_no_data_and_no_export(office: Office) -> None:
    id = (await office.create())["sessionId"]
    assert (await office.file(f"/api/sessions/{id}/report"))[0] == 409
    assert (await office.file(f"/api/sessions/{id}/data"))[0] == 409
    assert (await office.try_("POST", f"/api/sessions/{id}/export"))[0] == 409
    assert (await office.try_("POST", f"/api/sessions/{id}/score"))[0] == 409


async def test_what_is_over_has_score_report_data_and_figures(office: Office) -> None:
    told = await ended(office, "=cmd()")
    id = told["sessionId"]
    assert 0 <= told["score"]["overall"] <= 100
    status, _, pdf = await office.file(f"/api/sessions/{id}/report")
    assert status == 200 and pdf.startswith(b"%PDF-")
    status, _, packed = await office.file(f"/api/sessions/{id}/data")
    assert status == 200
    with zipfile.ZipFile(io.BytesIO(packed)) as files:
        names = {Path(name).name for name in files.namelist()}
    assert names == {"session.json", "events.json", "transcript.json"}
    stats = await office.ask("GET", "/api/dashboard/stats")
    assert (stats["endedSessions"], stats["scoredSessions"]) == (1, 1)
    assert stats["averageScore"] == told["score"]["overall"]
    assert (await office.try_("POST", f"/api/sessions/{id}/export"))[0] == 503, "no outside API is set"
    table = list(csv.DictReader(io.StringIO((await office.file("/api/dashboard/csv"))[2].decode())))
    assert table[0]["traineeId"] == "'=cmd()", "no formula for a spreadsheet"


async def test_an_own_persona_and_scenario_are_kept_played_and_deleted(
    server: Server, office: Office
) -> None:
    document = persona_document()
    document["name"] = "Radka"
    await office.ask("PUT", "/api/personas/own_radka", document)
    scenario = scenario_document() | {"persona_id": "own_radka"}
    await office.ask("PUT", "/api/scenarios/own_talk", scenario)
    mine = {one["id"]: one for one in (await office.ask("GET", "/api/personas"))["personas"]}
    assert mine["own_radka"]["own"] is True and mine["fmc_smoker"]["own"] is False
    made = await office.create(scenarioId="own_talk")
    assert made["persona"]["name"] == "Radka"
    async with headset(made["wsUrl"]) as client:
        assert await client.say(GOOD[0])
    stranger = Office(server, key=OTHER_KEY)
    assert (await stranger.try_("POST", "/api/sessions", {"scenarioId": "own_talk", "traineeId": "x"}))[
        0
    ] == 404
    assert (await stranger.try_("DELETE", "/api/personas/own_radka"))[0] == 404
    trainee = Office(server, token=await server.token("eva"))
    assert (await trainee.try_("PUT", "/api/personas/own_radka", document))[0] == 403
    await office.ask("DELETE", "/api/scenarios/own_talk")
    await office.ask("DELETE", "/api/personas/own_radka")
    assert (await office.try_("DELETE", "/api/personas/fmc_smoker"))[0] == 404
    assert (await office.try_("POST", "/api/sessions", {"scenarioId": "own_talk", "traineeId": "x"}))[
        0
    ] == 404


async def test_a_bad_document_is_refused_by_its_field_and_not_kept(office: Office) -> None:
    document = persona_document()
    for wrong in (
        {},
        {"name": "X"},
        {**document, "initial_attitude": 99, "initialAttitude": 99},
        {**document, "languages": []},
        {**document, "traits": 7},
        {**document, "domain": "weapons"},
    ):
        status, answer = await office.try_("PUT", "/api/personas/own_bad", wrong)
        assert (status, answer["code"]) == (400, "INVALID"), wrong
        assert answer["message"]
    assert (await office.try_("PUT", "/api/personas/a%2Fb", document))[0] in (400, 404)
    assert (await office.try_("PUT", "/api/scenarios/own_bad", {"title": "x"}))[0] == 400
    assert all(not one["own"] for one in (await office.ask("GET", "/api/personas"))["personas"])


async def test_a_session_keeps_its_customer_when_the_key_changes_or_deletes_him(server: Server) -> None:
    office = Office(server)
    await office.ask("PUT", "/api/personas/own_radka", persona_document() | {"name": "Radka"})
    await office.ask("PUT", "/api/scenarios/own_talk", scenario_document() | {"persona_id": "own_radka"})
    made = await office.create(scenarioId="own_talk")
    await office.ask("DELETE", "/api/personas/own_radka")
    await office.ask("DELETE", "/api/scenarios/own_talk")
    assert (await office.try_("POST", "/api/sessions", {"scenarioId": "own_talk", "traineeId": "x"}))[
        0
    ] == 404
    async with headset(made["wsUrl"]) as client:
        for line in GOOD[:3]:
            await client.say(line)
        await client.end()
    session = await office.once(made["sessionId"], analysisStatus="done")
    assert session["personaName"] == "Radka" and session["score"]["overall"] is not None
    status, kind, card = await office.file(f"/api/sessions/{made['sessionId']}/report")
    assert (status, kind, card[:5]) == (200, "application/pdf", b"%PDF-")


async def test_texts_in_metadata_and_documents_are_cleaned_as_all_others_are(server: Server) -> None:
    office = Office(server)
    made = await office.create(metadata={"store\u0000": ["Brno\u0000", {"till": "4\u0007"}]})
    assert (await office.session(made["sessionId"]))["metadata"] == {"store": ["Brno", {"till": "4"}]}
    await office.ask("PUT", "/api/personas/own_radka", persona_document() | {"name": "Rad\u0000ka"})
    mine = {one["id"]: one for one in (await office.ask("GET", "/api/personas"))["personas"]}
    assert mine["own_radka"]["name"] == "Radka"
