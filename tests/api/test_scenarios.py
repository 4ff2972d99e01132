"""Whom to practise with: the catalog's scenarios and those an integrator makes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from coach_server.paths import catalog
from tests.api.practising import SCENARIO, Desk
from tests.serving import OTHER_KEY, serving

OWN = "/api/roleplay/scenarios/our-own"


def document() -> dict[str, Any]:
    """A scenario of one's own, in the form of the catalog's files."""
    text = (catalog() / "scenarios" / f"{SCENARIO}.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)
    wanted = ("methodology", "persona", "nl", "en", "he")
    return {name: value for name, value in found.items() if name in wanted}


async def test_the_catalogs_scenarios_are_told_in_the_language_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        for language in ("nl", "en", "he"):
            told = (await desk.ask("GET", f"/api/roleplay/scenarios?language={language}"))["scenarios"]
            assert SCENARIO in {one["id"] for one in told} and len(told) >= 3
            assert not any(one["own"] for one in told)
        refused = await desk.ask("GET", "/api/roleplay/scenarios?language=xx", status=400)
        assert refused["field"] == "language"


async def test_a_scenario_of_ones_own_is_made_played_replaced_and_deleted(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        made = await desk.ask("PUT", OWN, document())
        assert (made["id"], made["own"]) == ("our-own", True)
        started = await desk.start(scenarioId="our-own")
        assert started["scenario"]["id"] == "our-own" and started["opening"]["text"]
        changed = document()
        changed["nl"]["title"] = "Een andere naam"
        await desk.ask("PUT", OWN, changed)
        listed = (await desk.ask("GET", "/api/roleplay/scenarios?language=nl"))["scenarios"]
        assert {one["id"]: one["title"] for one in listed}["our-own"] == "Een andere naam"
        assert (await desk.ask("DELETE", OWN))["deleted"] is True
        await desk.ask("DELETE", OWN, status=404)
        await desk.ask(
            "POST",
            "/api/roleplay/sessions/start",
            {"userId": "ann", "scenarioId": "our-own"},
            status=404,
        )


async def test_a_session_outlives_the_scenario_it_was_begun_with(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        await desk.ask("PUT", OWN, document())
        session_id = (await desk.start(scenarioId="our-own"))["sessionId"]
        await desk.talk(session_id)
        await desk.ask("DELETE", OWN)
        await desk.stop(session_id)
        drills = (await desk.feedback(session_id))["drills"]
        assert (await desk.ask("POST", f"/api/drills/{drills[0]['id']}/start"))["sessionId"]


async def test_a_scenario_belongs_to_its_api_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await Desk(server).ask("PUT", OWN, document())
        other = Desk(server, key=OTHER_KEY)
        await other.ask("DELETE", OWN, status=404)
        told = (await other.ask("GET", "/api/roleplay/scenarios"))["scenarios"]
        assert "our-own" not in {one["id"] for one in told}


@pytest.mark.parametrize("role", ["trainee", "agent", "manager"])
async def test_only_an_integrator_or_an_admin_makes_scenarios(tmp_path: Path, role: str) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server, token=await server.token("ann", role=role, team="east"))
        await desk.ask("PUT", OWN, document(), status=403)
        await desk.ask("DELETE", OWN, status=403)
        await desk.ask("GET", "/api/roleplay/scenarios")


async def test_a_scenario_that_cannot_be_is_refused_by_field(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        right = document()
        for path, body, field in (
            ("/api/roleplay/scenarios/Our%20Own", right, "id"),
            (OWN, {**right, "persona": {"difficulty": "impossible"}}, "persona"),
            (OWN, {name: value for name, value in right.items() if name != "methodology"}, "methodology"),
            (OWN, {"methodology": "hugo"}, None),
            (OWN, {**right, "nl": {"title": 5}}, "nl"),
        ):
            answer = await desk.ask("PUT", path, body, status=400)
            assert field is None or answer["field"].startswith(field), (field, answer)
        await desk.ask("PUT", OWN, {**right, "methodology": "nothing"}, status=404)


async def test_texts_of_a_scenario_are_cleaned_as_all_others_are(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        desk = Desk(server)
        made = document()
        made["nl"]["title"] = "Een \u0000andere\u0007 naam"
        await desk.ask("PUT", OWN, made)
        listed = (await desk.ask("GET", "/api/roleplay/scenarios?language=nl"))["scenarios"]
        assert {one["id"]: one["title"] for one in listed}["our-own"] == "Een andere naam"
