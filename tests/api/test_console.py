"""The console page on the wire: who is handed a token, what its policy allows, which files there are."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from coach_server.api.auth import is_at_this_machine
from coach_server.api.console.assets import Assets
from coach_server.api.console.page import Console, content_security_policy
from coach_server.api.console.strings import FOLDER, load_strings
from coach_server.clock import SystemClock
from coach_server.domain.debrief import Aftermath, Met
from coach_server.domain.detection import Objection
from coach_server.domain.ledger import Fate
from coach_server.domain.tip import Label, Source, Stage, Trigger
from coach_server.errors import ConfigError
from coach_server.services.access import Gate, Role
from coach_server.services.content import Content
from tests.serving import KEY, Server, serving

HERE = FOLDER.parent
MODULES = ("analysis", "call", "demo", "dom", "main", "outbox", "tips", "transcript", "words")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        yield running


async def get(server: Server, path: str, **headers: str) -> tuple[int, CIMultiDict[str], str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as http,
        http.get(server.url + path, headers=named, allow_redirects=False) as answer,
    ):
        return answer.status, answer.headers.copy(), await answer.text()


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


# --- the page


async def test_the_page_offers_the_demo_call_and_links_to_the_rest(server: Server) -> None:
    status, headers, page = await get(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Play a demo call" in page
    assert 'href="/docs"' in page and 'href="/health"' in page
    data = data_of(page)
    assert data["demo"]["language"] == "en"
    assert len(data["demo"]["turns"]) > 20
    assert {turn["speaker"] for turn in data["demo"]["turns"]} == {"agent", "caller"}
    assert data["stages"][0] == "GREETING" and len(data["stages"]) == 7


ASKED = [
    ("/", "", "en"),
    ("/?lang=nl", "", "nl"),
    ("/?lang=en", "nl", "en"),
    ("/", "nl-BE,nl;q=0.9,en;q=0.5", "nl"),
    ("/", "fr;q=1.0, en;q=0.4, nl;q=0.8", "nl"),
    ("/?lang=../../etc/passwd", "", "en"),
    ("/?lang=%22%3E%3Cscript%3E", "q=;;,;q=x", "en"),
]


async def test_the_page_speaks_the_language_that_was_asked_for(server: Server) -> None:
    for path, accept, language in ASKED:
        _, headers, page = await get(server, path, Accept_Language=accept)
        assert f'<html lang="{language}" dir="ltr">' in page, (path, accept)
        assert data_of(page)["demo"]["language"] == language, (path, accept)
        assert "Accept-Language" in ", ".join(headers.getall("Vary"))


def test_every_language_says_everything() -> None:
    strings = load_strings()
    assert list(strings)[0] == "en"
    assert {"en", "nl"} <= set(strings)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('name = "X"\ndirection = "ltr"\n[a]\nb = "no gap"\n', "a.b"),
        ('name = "X"\ndirection = "ltr"\n', "a.b"),
        ('name = "X"\ndirection = "ltr"\n[a]\nb = "{n}"\nc = "more"\n', "a.c"),
        ('name = "X"\ndirection = "ltr"\n[a]\nb = 3\n', "a.b"),
    ],
    ids=["other gaps", "missing", "unknown", "no text"],
)
def test_a_language_that_differs_from_english_is_named(tmp_path: Path, text: str, field: str) -> None:
    (tmp_path / "en.toml").write_text('name = "E"\ndirection = "ltr"\n[a]\nb = "so {n}"\n')
    (tmp_path / "xx.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"xx\.toml") as caught:
        load_strings(tmp_path)
    assert caught.value.field == field


CLOSED_SETS: dict[str, type[StrEnum]] = {
    "stages": Stage,
    "labels": Label,
    "label_hints": Label,
    "triggers": Trigger,
    "sources": Source,
    "objections": Objection,
    "met": Met,
    "aftermath": Aftermath,
    "fates": Fate,
}


@pytest.mark.parametrize("section", CLOSED_SETS)
def test_every_word_the_server_may_send_has_a_text(section: str) -> None:
    texts = load_strings()["en"].table[section]
    assert set(texts) == {member.value for member in CLOSED_SETS[section]}


def test_every_text_the_modules_ask_for_exists() -> None:
    known = {f"{section}.{name}" for section, texts in load_strings()["en"].table.items() for name in texts}
    asked: set[str] = set()
    for path in (HERE / "static").glob("*.js"):
        asked |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', path.read_text(encoding="utf-8")))
    assert len(asked) > 40
    assert asked <= known


def colours(scheme: str) -> dict[str, tuple[float, float, float]]:
    css = (HERE / "static" / "console.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    found = dict(
        re.findall(r"--([\w-]+): #([0-9a-f]{6})", blocks[0] + (blocks[1] if scheme == "dark" else ""))
    )
    return {
        name: (int(code[0:2], 16) / 255, int(code[2:4], 16) / 255, int(code[4:6], 16) / 255)
        for name, code in found.items()
    }


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """WCAG 2.2: the ratio of the relative luminances."""

    def luminance(colour: tuple[float, float, float]) -> float:
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


READ_ON = {
    "ink": ("paper", "surface", "sunken", "teal-soft", "amber-soft", "mark"),
    "muted": ("paper", "surface", "sunken", "teal-soft", "amber-soft"),
    "teal": ("paper", "surface", "teal-soft"),
    "on-teal": ("teal",),
    "amber": ("surface", "amber-soft"),
    "red": ("surface", "red-soft"),
    "green": ("surface", "green-soft"),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_it_stands_on(scheme: str) -> None:
    palette = colours(scheme)
    for text, grounds in READ_ON.items():
        for ground in grounds:
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    assert contrast(palette["line-strong"], palette["surface"]) >= 3, "the edge of a button or a field"


# --- the policy


async def test_the_policy_lets_only_our_own_files_run(server: Server) -> None:
    _, headers, page = await get(server, "/")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    nonce = re.findall(r'nonce="([^"]+)"', page)
    assert len(nonce) == 1, "the nonce is for the import map alone"
    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == f"'self' 'nonce-{nonce[0]}'"
    assert policy["style-src"] == "'self'"
    assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == f"'self' ws://127.0.0.1:{server.port} wss://127.0.0.1:{server.port}"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


async def test_every_page_has_a_nonce_of_its_own(server: Server) -> None:
    nonces = {re.search(r'nonce="([^"]+)"', (await get(server, "/"))[2])[1] for _ in range(5)}  # type: ignore[index]
    assert len(nonces) == 5


@pytest.mark.parametrize("host", ["evil.example; script-src *", "a b", "x" * 300, "<b>", ""])
def test_a_strange_host_does_not_get_into_the_policy(host: str) -> None:
    assert "connect-src 'self';" in content_security_policy("n", host)


async def test_no_markup_of_the_page_runs_or_styles_inline(server: Server) -> None:
    page = (await get(server, "/"))[2]
    assert not re.search(r"<[^>]+\s(on\w+|style)=", page)
    assert "javascript:" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


async def test_data_in_the_page_cannot_close_its_script(server: Server) -> None:
    page = (await get(server, "/"))[2]
    raw = page.split('id="data">', 1)[1].split("</script>", 1)[0]
    assert "<" not in raw


# --- the token


async def test_a_browser_on_this_machine_is_handed_a_user_token_for_an_hour(server: Server) -> None:
    _, _, page = await get(server, "/", Host=f"localhost:{server.port}")
    credential = data_of(page)["credential"]
    now_ms = SystemClock().now() * 1000
    assert now_ms + 3_590_000 < credential["expiresAt"] <= now_ms + 3_601_000
    async with aiohttp.ClientSession() as http:
        bearer = {"Authorization": f"Bearer {credential['token']}"}
        async with http.get(f"{server.url}/api/conversations", headers=bearer) as answer:
            assert answer.status == 200
        async with http.post(f"{server.url}/api/auth/token", headers=bearer, json={}) as answer:
            assert answer.status == 403, "an agent, not a key"


async def test_two_visitors_do_not_see_each_others_calls(server: Server) -> None:
    gate = Gate([("default", KEY)], "", SystemClock())
    users = {
        gate.by_token(data_of((await get(server, "/"))[2])["credential"]["token"]).user_id for _ in range(3)
    }
    assert len(users) == 3
    assert all(user and user.startswith("console-") for user in users)


STRANGERS: list[dict[str, str]] = [
    {"Host": "coach.example.com"},
    {"Host": "localhost.evil.example"},
    {"Host": "evil.example:8080"},
    {"Host": "localhost@evil.example"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X_Forwarded_Host": "localhost"},
    {"X_Real_IP": "127.0.0.1"},
    {"Forwarded": "for=127.0.0.1"},
    {"Via": "1.1 proxy"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "null"},
    {"Sec_Fetch_Dest": "empty"},
    {"Sec_Fetch_Dest": "iframe"},
]


async def test_nobody_else_is_handed_a_token(server: Server) -> None:
    for headers in STRANGERS:
        status, _, page = await get(server, "/", **headers)
        assert status == 200, headers
        assert data_of(page)["credential"] is None, headers
        assert "eyJ" not in page, headers


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.168.1.7", False),
        ("::ffff:10.0.0.1", False),
        ("", False),
    ],
)
def test_only_loopback_addresses_are_this_machine(address: str, allowed: bool) -> None:
    request = make_mocked_request("GET", "/", headers={"Host": "localhost:8080"}).clone(remote=address)
    assert is_at_this_machine(request) is allowed


@pytest.mark.parametrize("values", [{"APP_ENV": "production"}, {"TRUST_PROXY": "true"}], ids=str)
async def test_a_server_in_production_or_behind_a_proxy_hands_out_no_token(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    async with serving(tmp_path, **values) as server:
        status, _, page = await get(server, "/", Host=f"localhost:{server.port}")
    assert status == 200
    assert data_of(page)["credential"] is None
    assert "eyJ" not in page


def test_the_first_key_is_the_one_that_speaks_for_our_pages() -> None:
    gate = Gate([("web", "a" * 40), ("crm", "b" * 40)], "", SystemClock())
    assert gate.first_key().key == "web"
    assert gate.first_key().role is Role.SERVICE


# --- the files


async def test_every_module_the_page_imports_is_served(server: Server) -> None:
    seen = set()
    waiting = ["/static/console/main.js"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        status, headers, text = await get(server, path)
        assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8"), path
        names = re.findall(r'from "\./([\w.]+)"', text)
        waiting += [f"/static/console/{name}" for name in names]
    assert seen == {f"/static/console/{name}.js" for name in MODULES}


FILES = [
    ("/static/console/console.css", "text/css; charset=utf-8"),
    ("/static/console/mark.svg", "image/svg+xml; charset=utf-8"),
    ("/favicon.ico", "image/svg+xml; charset=utf-8"),
    ("/static/vendor/socket.io.esm.min.js", "text/javascript; charset=utf-8"),
]


async def test_a_browser_that_has_a_file_is_not_sent_it_again(server: Server) -> None:
    for path, kind in FILES:
        status, headers, _ = await get(server, path)
        if status == 404 and "vendor" in path:
            pytest.skip("NOT TESTED: the npm packages are not installed")
        assert (status, headers["Content-Type"]) == (200, kind)
        assert headers["Cache-Control"] == "no-cache", "a browser asks each time"
        again, _, body = await get(server, path, If_None_Match=headers["ETag"])
        assert (again, body) == (304, ""), path
        other, _, body = await get(server, path, If_None_Match='"something-else"')
        assert other == 200 and body, path


ELSEWHERE = [
    "/static/console/../page.py",
    "/static/console/..%2fpage.py",
    "/static/console/%2e%2e/page.py",
    "/static/console/..%5cpage.py",
    "/static/console//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/console/strings/en.toml",
    "/static/vendor/../package.json",
    "/static/vendor/socket.io.esm.min.js/",
    "/static/console/main.js%00.css",
    "/static/",
    "/static/console/docs.html",
]


async def test_there_is_no_way_to_other_files(server: Server) -> None:
    for path in ELSEWHERE:
        # By hand: a client's library would tidy the path up.
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        assert answer.split()[1] in ("400", "404"), path
        assert "import" not in answer and "root:" not in answer, path


@pytest.fixture
def without_npm(tmp_path: Path) -> Console:
    """The page of a machine without npm; made before the loop runs, because it reads its files."""
    gate = Gate([("default", KEY)], "", SystemClock())
    return Console(gate=gate, content=Content.load(), hands_out_tokens=True, node_modules=tmp_path)


async def test_without_the_npm_packages_the_page_says_what_is_missing(without_npm: Console) -> None:
    app = web.Application()
    without_npm.register(app)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{url}/") as answer:
                assert answer.status == 200
                page = await answer.text()
            async with http.get(f"{url}/static/vendor/socket.io.esm.min.js") as answer:
                assert answer.status == 404
    finally:
        await runner.cleanup()
    assert "npm ci" in page
    assert "importmap" not in page
    assert data_of(page)["live"] is False
    assert "the vans have just gone out" in page, "the script can be read all the same"


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    client = tmp_path / "socket.io-client" / "dist"
    client.mkdir(parents=True)
    assert not Assets(tmp_path).has_socket_client
    (client / "socket.io.esm.min.js").write_text("export const io = 1;")
    assert Assets(tmp_path).has_socket_client
