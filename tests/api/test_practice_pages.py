"""The practice pages on the wire: who is handed a token, what their policy allows, which texts and files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from coach_server.api.console.strings import load_strings
from coach_server.api.practice.pages import page as practice
from coach_server.clock import SystemClock
from coach_server.domain.customer.persona import Difficulty
from coach_server.domain.method.methodology import SubScore
from coach_server.domain.method.progress import PracticeKind, StepStatus
from coach_server.services.access import Gate, Role
from tests.api.test_console import data_of, get
from tests.serving import KEY, Server, serving

HERE = Path(practice.__file__).parent
PAGES = ("roleplay", "progress")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        yield running


# --- the pages


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_speaks_the_language_that_was_asked_for(server: Server, name: str) -> None:
    for asked, language, direction in (("en", "en", "ltr"), ("nl", "nl", "ltr"), ("he", "he", "rtl")):
        status, headers, page = await get(server, f"/{name}?lang={asked}")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert f'<html lang="{language}" dir="{direction}">' in page
        assert f'href="/{name}?lang=nl"' in page


@pytest.mark.parametrize("name", PAGES)
async def test_the_policy_lets_only_our_own_files_run(server: Server, name: str) -> None:
    _, headers, page = await get(server, f"/{name}")
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy and "require-trusted-types-for 'script'" in policy
    assert not re.search(r"<[^>]+\s(on\w+|style)=", page)
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("name", "may"), [("roleplay", "(self)"), ("progress", "()")])
async def test_only_the_page_to_talk_on_may_ask_for_the_microphone(
    server: Server, name: str, may: str
) -> None:
    _, headers, _ = await get(server, f"/{name}")
    assert headers["Permissions-Policy"] == f"camera=(), geolocation=(), microphone={may}"


async def test_a_language_link_keeps_whose_progress_is_shown(server: Server) -> None:
    _, _, page = await get(server, "/progress?user=%22%3E%3Cscript%3E&lang=en")
    assert "<script>" not in page.replace('<script type="', "")
    assert re.search(r'href="/progress\?user=[^"<>]*&amp;lang=he"', page)


# --- the token


async def test_a_browser_on_this_machine_is_always_the_same_trainee(server: Server) -> None:
    gate = Gate([("default", KEY)], "", SystemClock())
    for name in (*PAGES, *PAGES):
        _, _, page = await get(server, f"/{name}")
        principal = gate.by_token(data_of(page)["credential"]["token"])
        assert (principal.user_id, principal.role) == (practice.LOCAL_USER, Role.TRAINEE)


STRANGERS: list[dict[str, str]] = [
    {"Host": "coach.example.com"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"Origin": "http://localhost:3000"},
    {"Sec_Fetch_Dest": "iframe"},
]


@pytest.mark.parametrize("name", PAGES)
async def test_nobody_else_is_handed_a_token(server: Server, name: str) -> None:
    for headers in STRANGERS:
        _, _, page = await get(server, f"/{name}", **headers)
        assert data_of(page)["credential"] is None, headers
        assert "eyJ" not in page, headers


@pytest.mark.parametrize("name", PAGES)
async def test_a_server_behind_a_proxy_hands_out_no_token(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, TRUST_PROXY="true") as server:
        _, _, page = await get(server, f"/{name}", Host=f"localhost:{server.port}")
    assert data_of(page)["credential"] is None


# --- texts


def test_every_language_says_everything() -> None:
    strings = load_strings(HERE / "strings")
    assert set(strings) == {"en", "nl", "he"}
    assert strings["he"].direction == "rtl"


CLOSED_SETS: dict[str, type[StrEnum]] = {
    "statuses": StepStatus,
    "kinds": PracticeKind,
    "sub_scores": SubScore,
}


@pytest.mark.parametrize("section", CLOSED_SETS)
def test_every_word_the_server_may_send_has_a_text(section: str) -> None:
    texts = load_strings(HERE / "strings")["en"].table[section]
    assert set(texts) == {member.value for member in CLOSED_SETS[section]}


def test_every_difficulty_has_a_text_and_a_place_on_the_scale() -> None:
    texts = load_strings(HERE / "strings")["en"].table["difficulty"]
    levels = [member.value for member in Difficulty]
    assert set(texts) == {"label", *levels}
    module = (HERE / "static" / "scenarios.js").read_text(encoding="utf-8")
    assert ", ".join(f'"{level}"' for level in levels) in module


def known_texts() -> set[str]:
    table = load_strings(HERE / "strings")["en"].table
    return {f"{section}.{name}" for section, texts in table.items() for name in texts}


def test_every_text_that_modules_and_templates_ask_for_exists() -> None:
    asked: set[str] = set()
    for path in (HERE / "static").glob("*.js"):
        asked |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', path.read_text(encoding="utf-8")))
    for path in (HERE / "templates").glob("*.html"):
        asked |= set(re.findall(r"\bt\.(\w+\.\w+)", path.read_text(encoding="utf-8")))
    assert len(asked) > 100
    assert asked <= known_texts()


# --- files


async def test_every_module_the_pages_import_is_served(server: Server) -> None:
    seen: set[str] = set()
    waiting = ["/static/practice/roleplay.js", "/static/practice/progress.js"]
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
    assert {path.rpartition("/")[2] for path in seen if "/practice/" in path} == ours


async def test_the_style_is_served_and_other_files_are_not(server: Server) -> None:
    status, headers, _ = await get(server, "/static/practice/practice.css")
    assert (status, headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    again, _, body = await get(server, "/static/practice/practice.css", If_None_Match=headers["ETag"])
    assert (again, body) == (304, "")
    for path in ("../page.py", "strings/en.toml", "", "%2fetc%2fpasswd"):
        assert (await get(server, f"/static/practice/{path}"))[0] == 404, path


@pytest.fixture
def without_npm(tmp_path: Path) -> practice.PracticePages:
    """The pages of a machine without npm; made before the loop runs, because they read their files."""
    gate = Gate([("default", KEY)], "", SystemClock())
    return practice.PracticePages(gate=gate, hands_out_tokens=True, node_modules=tmp_path)


async def test_without_the_npm_packages_the_page_says_what_is_missing(
    without_npm: practice.PracticePages, aiohttp_client: Any
) -> None:
    app = web.Application()
    without_npm.register(app)
    client = await aiohttp_client(app)
    answer = await client.get("/roleplay")
    page = await answer.text()
    assert answer.status == 200
    assert "npm ci" in page and "importmap" not in page
    assert data_of(page)["live"] is False
