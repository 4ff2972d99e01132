"""The simulation's pages on the wire: who is handed a token, what their policy allows, which texts and files;
and how long the server takes over the dashboard of somebody with five thousand sessions."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path

import pytest

from coach_server.api.console.strings import load_strings
from coach_server.api.practice.pages.page import LOCAL_USER
from coach_server.api.simulation.pages import page as pages
from coach_server.clock import SystemClock
from coach_server.domain.simulation.effects import LogKind
from coach_server.domain.simulation.scorecard import Category, CheckResult
from coach_server.domain.simulation.talk import Direction, EventType, Outcome
from coach_server.services.access import Gate, Role
from coach_server.storage import simulations
from coach_server.storage.simulations import Simulation
from tests.api.test_console import data_of, get
from tests.serving import KEY, Server, serving

HERE = Path(pages.__file__).parent
PAGES = ("/dashboard", "/dashboard/BAT-001", "/practice")
ENTRIES = ("dashboard.js", "session.js", "practice_voice.js", "capture.js")
MANY = 5000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        yield running


# --- the pages


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_speaks_the_language_that_was_asked_for(server: Server, path: str) -> None:
    for asked, language, direction in (("en", "en", "ltr"), ("nl", "nl", "ltr"), ("he", "he", "rtl")):
        status, headers, page = await get(server, f"{path}?lang={asked}")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert f'<html lang="{language}" dir="{direction}">' in page
        assert f'href="{path}?lang=nl"' in page


@pytest.mark.parametrize("path", PAGES)
async def test_the_policy_lets_only_our_own_files_run(server: Server, path: str) -> None:
    _, headers, page = await get(server, path)
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy and "require-trusted-types-for 'script'" in policy
    assert not re.search(r"<[^>]+\s(on\w+|style)=", page)
    assert "http://" not in page and "https://" not in page
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("path", "may"), [(PAGES[0], "()"), (PAGES[1], "()"), (PAGES[2], "(self)")])
async def test_only_the_page_to_talk_on_may_ask_for_the_microphone(
    server: Server, path: str, may: str
) -> None:
    _, headers, _ = await get(server, path)
    assert headers["Permissions-Policy"] == f"camera=(), geolocation=(), microphone={may}"


@pytest.mark.parametrize(
    "id", ["%3Cscript%3Ealert(1)%3C%2Fscript%3E", "..%2f..%2fetc", "%22%3E", "%E2%80%AE"]
)
async def test_whatever_stands_in_the_address_is_only_data(server: Server, id: str) -> None:
    status, _, page = await get(server, f"/dashboard/{id}?lang=en")
    assert status == 200
    assert "<script>" not in page
    assert isinstance(data_of(page)["sessionId"], str)


async def test_a_language_link_keeps_the_filters(server: Server) -> None:
    _, _, page = await get(server, "/dashboard?trainee=%22%3E%3Cscript%3E&lang=en")
    assert "<script>" not in page
    assert re.search(r'href="/dashboard\?trainee=[^"<>]*&amp;lang=he"', page)


# --- the token


async def test_a_browser_on_this_machine_is_the_trainee_of_the_practice_pages(server: Server) -> None:
    gate = Gate([("default", KEY)], "", SystemClock())
    for path in PAGES:
        _, _, page = await get(server, path)
        principal = gate.by_token(data_of(page)["credential"]["token"])
        assert (principal.user_id, principal.role) == (LOCAL_USER, Role.TRAINEE)


STRANGERS: list[dict[str, str]] = [
    {"Host": "coach.example.com"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"Origin": "http://localhost:3000"},
    {"Sec_Fetch_Dest": "iframe"},
]


@pytest.mark.parametrize("path", PAGES)
async def test_nobody_else_is_handed_a_token(server: Server, path: str) -> None:
    for headers in STRANGERS:
        _, _, page = await get(server, path, **headers)
        assert data_of(page)["credential"] is None, headers
        assert "eyJ" not in page, headers


async def test_a_server_behind_a_proxy_hands_out_no_token(tmp_path: Path) -> None:
    async with serving(tmp_path, TRUST_PROXY="true") as server:
        for path in PAGES:
            _, _, page = await get(server, path, Host=f"localhost:{server.port}")
            assert data_of(page)["credential"] is None


# --- texts


def test_every_language_says_everything() -> None:
    strings = load_strings(HERE / "strings")
    assert set(strings) == {"cs", "en", "nl", "he"}
    assert strings["he"].direction == "rtl"


CLOSED_SETS: dict[str, type[StrEnum]] = {
    "categories": Category,
    "directions": Direction,
    "events": EventType,
    "trail": LogKind,
}


@pytest.mark.parametrize("section", CLOSED_SETS)
def test_every_word_the_server_may_send_has_a_text(section: str) -> None:
    texts = load_strings(HERE / "strings")["en"].table[section]
    assert set(texts) - {"heading"} == {member.value for member in CLOSED_SETS[section]}


def test_every_result_of_a_check_has_a_text() -> None:
    texts = load_strings(HERE / "strings")["en"].table["facts"]
    assert {member.value for member in CheckResult} <= set(texts)


def test_every_outcome_has_a_text_and_a_place_in_the_figures() -> None:
    texts = load_strings(HERE / "strings")["en"].table["outcomes"]
    names = [member.value for member in Outcome]
    assert set(texts) == {"none", *names}
    assert ", ".join(f'"{name}"' for name in names) in (HERE / "static" / "dashboard.js").read_text("utf-8")


def test_every_text_that_modules_and_templates_ask_for_exists() -> None:
    table = load_strings(HERE / "strings")["en"].table
    known = {f"{section}.{name}" for section, texts in table.items() for name in texts}
    asked: set[str] = set()
    for path in (HERE / "static").glob("*.js"):
        asked |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', path.read_text(encoding="utf-8")))
    for path in (HERE / "templates").glob("*.html"):
        asked |= set(re.findall(r"\bt\.(\w+\.\w+)", path.read_text(encoding="utf-8")))
    assert len(asked) > 100
    assert asked - {"outcomes.items"} <= known


def test_no_text_is_hidden_behind_a_method_of_its_section() -> None:
    """A button once read "built-in method clear of dict": a template finds methods before texts."""
    table = load_strings(HERE / "strings")["en"].table
    for section, texts in table.items():
        assert set(texts).isdisjoint(dir(dict)), section


# --- files


async def test_every_module_the_pages_import_is_served(server: Server) -> None:
    seen: set[str] = set()
    waiting = [f"/static/simulation/{name}" for name in ENTRIES]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        status, headers, text = await get(server, path)
        assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8"), path
        folder = path.rpartition("/")[0]
        waiting += [f"{folder}/{name}" for name in re.findall(r'from "\./([\w.]+)"', text)]
        waiting += [f"/static/{name}" for name in re.findall(r'from "\.\./([\w./]+)"', text)]
    ours = {path.name for path in (HERE / "static").glob("*.js")}
    assert {path.rpartition("/")[2] for path in seen if "/simulation/" in path} == ours


async def test_the_style_is_served_and_other_files_are_not(server: Server) -> None:
    status, headers, _ = await get(server, "/static/simulation/simulation.css")
    assert (status, headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    for path in ("../page.py", "strings/en.toml", "", "%2fetc%2fpasswd"):
        assert (await get(server, f"/static/simulation/{path}"))[0] == 404, path


# --- five thousand sessions


async def _fill(server: Server, count: int) -> None:
    now = SystemClock().now()
    async with server.coaching.database.transaction() as conn:
        for number in range(count):
            ended = now - 60 * number
            await simulations.insert(
                conn,
                Simulation(
                    id=f"BAT-{number:05}",
                    principal="default",
                    trainee_id=f"REP_{number % 97}",
                    team_id="north",
                    scenario_id="fmc_resistant",
                    persona_id="fmc_smoker",
                    persona_name="Karel",
                    language="en",
                    created_at=ended - 300,
                    last_seen_at=ended,
                    store_transcript=True,
                    status="ended",
                    outcome=[*Outcome][number % 4].value,
                    started_at=ended - 300,
                    ended_at=ended,
                    duration_ms=300_000,
                    overall_score=number % 101,
                ),
            )


async def _median_s(server: Server, path: str, times: int = 5) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        status, _ = await server.get(path)
        taken.append(time.perf_counter() - began)
        assert status == 200, path
    return statistics.median(taken)


async def test_a_dashboard_of_five_thousand_sessions_comes_within_300_ms(server: Server) -> None:
    await _fill(server, MANY)
    status, found = await server.get("/api/dashboard?sort=score&order=asc&page=100")
    assert (status, found["total"], found["pages"], len(found["sessions"])) == (200, MANY, 100, 50)
    assert len(found["choices"]["trainees"]) == 97
    for query in ("", "?sort=score&order=asc&page=100", "?outcome=converted&trainee=REP_4", "?sort=trainee"):
        assert await _median_s(server, f"/api/dashboard{query}") < 0.3, query
    assert await _median_s(server, "/dashboard") < 0.3
