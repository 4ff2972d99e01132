"""Who gets in and who sees what, on every wire (trust.md G10-G14, G26)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import socketio.exceptions

from coach_server.app import Replacements
from coach_server.errors import Unauthorized
from coach_server.services import access
from coach_server.services.access import Gate
from coach_server.testing import ManualClock
from tests.process import server_process
from tests.serving import KEY, OTHER_KEY, Client, connected, serving
from tests.trust.calling import PAIN, next_tip

UNKNOWN = "5dd9cf0b-0000-4000-8000-000000000000"

WRONG_AUTH: dict[str, Any] = {
    "nothing": None,
    "an empty object": {},
    "a wrong key": {"apiKey": "wrong"},
    "an empty key": {"apiKey": ""},
    "a key with a space before it": {"apiKey": f" {KEY}"},
    "a key with a line end": {"apiKey": f"{KEY}\n"},
    "a key in capitals": {"apiKey": KEY.upper()},
    "the start of a key": {"apiKey": KEY[:-1]},
    "a key and more": {"apiKey": KEY + "x"},
    "a key and a NUL": {"apiKey": KEY + "\0"},
    "its name and the key": {"apiKey": f"default:{KEY}"},
    "a number": {"apiKey": 7},
    "true": {"apiKey": True},
    "a list": {"apiKey": [KEY]},
    "an object": {"apiKey": {"key": KEY}},
    "a million characters": {"apiKey": "x" * 200_000},
    "another field": {"api_key": KEY},
    "a key where a token belongs": {"token": KEY},
    "a wrong token beside the right key": {"token": "no", "apiKey": KEY},
    "an unknown alphabet": {"apiKey": "ключ" * 8},
}


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_every_wrong_form_of_a_key_is_refused_with_the_same_words(
    tmp_path: Path, transport: str
) -> None:
    async with serving(tmp_path) as server:
        for name, auth in WRONG_AUTH.items():
            client = Client()
            refusals: list[Any] = []
            client.sio.on("connect_error", refusals.append)
            with pytest.raises(socketio.exceptions.ConnectionError):
                await client.connect(server, auth if auth is not None else {}, transports=[transport])
            assert [refusal["message"] for refusal in refusals] == ["Authentication failed"], name
            assert not refusals[0].get("data"), name
            assert client.events == []
        _, health = await server.get("/health", key=None)
        assert health["activeConversations"] == 0


async def test_no_event_is_heard_before_connect(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, aiohttp.ClientSession() as http:
        url = f"{server.url}/socket.io/?EIO=4&transport=websocket"
        async with http.ws_connect(url) as wire:
            assert (await wire.receive()).data.startswith("0{")
            for event in ('["START_CONVERSATION",{"agentId":"a"}]', '["PING",null]', '["connect",{}]'):
                await wire.send_str(f"42{event}")
                await wire.send_str(f"421{event}")
            await wire.send_str("40")
            heard = []
            async with asyncio.timeout(5):
                async for message in wire:
                    heard.append(message.data)
                    if str(message.data).startswith("44"):
                        break
            assert [text for text in heard if text.startswith(("42", "43"))] == []
            assert "Authentication failed" in heard[-1]
        _, health = await server.get("/health", key=None)
        assert health["activeConversations"] == 0


# --- tokens


def forged(secret: str | bytes, **changes: Any) -> str:
    claims = {
        "aud": "coach-server",
        "sub": "ann",
        "role": "admin",
        "team": None,
        "key": "default",
        "exp": 4_000_000_000,
        **changes,
    }
    return jwt.encode({name: value for name, value in claims.items() if value != "-"}, secret)


def unsigned(algorithm: str) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"aud": "coach-server", "sub": "a", "role": "admin", "key": "default", "exp": 4_000_000_000}
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}."


SECRET = "a token secret of the tests, 0123456789abcdef"
FORGED = {
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "no signature": unsigned("HS256"),
    "another secret": forged("another secret of thirty-two characters"),
    "the key as secret": forged(KEY),
    "another audience": forged(SECRET, aud="somebody-else"),
    "no audience": forged(SECRET, aud="-"),
    "no user": forged(SECRET, sub="-"),
    "no expiry": forged(SECRET, exp="-"),
    "expired": forged(SECRET, exp=1_000_000_000),
    "an unknown role": forged(SECRET, role="root"),
    "a key that is gone": forged(SECRET, key="revoked"),
    "two dots": "..",
    "words": "a.b.c",
}


async def test_forged_and_expired_tokens_are_refused_on_every_wire(tmp_path: Path) -> None:
    async with serving(tmp_path, TOKEN_SECRET=SECRET) as server:
        good = forged(SECRET)
        assert (await server.get("/metrics", key=None, Authorization=f"Bearer {good}"))[0] == 200
        for name, token in FORGED.items():
            status, answer = await server.get("/metrics", key=None, Authorization=f"Bearer {token}")
            assert (status, answer["message"]) == (401, "Authentication failed"), name
            with pytest.raises(socketio.exceptions.ConnectionError):
                await Client().connect(server, {"token": token})


async def test_a_token_ends_at_its_time(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, Replacements(clock=clock)) as server:
        body = {"userId": "ann", "role": "admin", "ttlSeconds": 60}
        _, answer = await server.post("/api/auth/token", body)
        assert answer["expiresAt"] == int(clock.now() + 60) * 1000
        bearer = {"Authorization": f"Bearer {answer['token']}"}
        assert (await server.get("/metrics", key=None, **bearer))[0] == 200
        await clock.advance(61)
        assert (await server.get("/metrics", key=None, **bearer))[0] == 401


async def test_only_a_key_or_an_admin_may_hand_out_tokens(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        wish = {"userId": "bob", "role": "admin"}
        for role, expected in (("agent", 403), ("trainee", 403), ("manager", 403), ("admin", 200)):
            token = await server.token("ann", role)
            bearer = {"Authorization": f"Bearer {token}"}
            assert (await server.post("/api/auth/token", wish, key=None, **bearer))[0] == expected, role
            assert (await server.get("/metrics", key=None, **bearer))[0] == expected, role


# --- whose conversation


async def test_everyone_sees_the_own_calls_a_manager_the_teams_and_an_admin_all(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        who = {
            "ann": await server.token("ann", "agent", "red"),
            "bob": await server.token("bob", "trainee", "red"),
            "cas": await server.token("cas", "agent", "blue"),
            "manager of red": await server.token("max", "manager", "red"),
            "manager of nobody": await server.token("may", "manager"),
            "admin": await server.token("ada", "admin"),
            "admin of another key": await server.token("ada", "admin", "red", key=OTHER_KEY),
            "ann of another key": await server.token("ann", "agent", "red", key=OTHER_KEY),
        }
        calls: dict[str, str] = {}
        for owner in ("ann", "bob", "cas"):
            async with connected(server, {"token": who[owner]}) as client:
                calls[owner] = await a_call(client)
        async with connected(server) as client:
            calls["key"] = await a_call(client)
        sees = {
            "ann": {"ann"},
            "bob": {"bob"},
            "cas": {"cas"},
            "manager of red": {"ann", "bob"},
            "manager of nobody": set(),
            "admin": {"ann", "bob", "cas", "key"},
            "admin of another key": set(),
            "ann of another key": set(),
            "key": {"key"},
            "other key": set(),
        }
        for viewer, expected in sees.items():
            credential: dict[str, Any] = {"key": None, "Authorization": f"Bearer {who.get(viewer)}"}
            if viewer.endswith("key") and viewer not in who:
                credential = {"key": KEY if viewer == "key" else OTHER_KEY}
            _, page = await server.get("/api/conversations", **credential)
            listed = {one["conversationId"] for one in page["conversations"]}
            assert listed == {calls[name] for name in expected}, viewer
            for owner, call_id in calls.items():
                for part in ("", "/transcript", "/tips", "/analysis"):
                    path = f"/api/conversations/{call_id}{part}"
                    status, answer = await server.get(path, **credential)
                    if owner in expected:
                        assert status in (200, 409), (viewer, owner, part)
                    else:
                        unknown = f"/api/conversations/{UNKNOWN}{part}"
                        assert (status, answer) == await server.get(unknown, **credential), (viewer, owner)
                        assert status == 404


async def a_call(client: Client) -> str:
    call_id = str((await client.start())["conversationId"])
    await client.say(call_id, "caller", PAIN)
    return call_id


async def test_a_colleague_with_the_same_key_can_neither_read_nor_write_a_users_call(tmp_path: Path) -> None:
    """Manager and admin may look, but only the user speaks in the own call."""
    async with serving(tmp_path) as server:
        ann = await server.token("ann", "agent", "red")
        async with connected(server, {"token": ann}) as owner:
            started = await owner.start()
            call_id = started["conversationId"]
            await owner.ask("REQUEST_NEXT_TIP", next_tip(call_id))
            tip = await owner.wait_for("AI_TIP")
            for auth in (
                {"token": await server.token("bob", "agent", "red")},
                {"token": await server.token("max", "manager", "red")},
                {"token": await server.token("ada", "admin")},
                {"apiKey": KEY},
                {"apiKey": OTHER_KEY},
            ):
                async with connected(server, auth) as other:
                    for name, more in EVENTS_OF_A_CALL.items():
                        answer = await other.ask(name, {"conversationId": call_id, **more})
                        assert answer == await other.ask(name, {"conversationId": UNKNOWN, **more}), name
                        assert (answer["ok"], answer["code"]) == (False, "NOT_FOUND"), name
                    stolen = {"conversationId": call_id, "resumeToken": started["resumeToken"]}
                    assert (await other.ask("RESUME_CONVERSATION", stolen))["code"] == "NOT_FOUND"
                    chosen = {"recommendationId": tip["recommendationId"], "selectedOption": 1}
                    assert (await other.ask("OPTION_SELECTED", chosen))["code"] == "NOT_FOUND"
                    assert other.events == []
            assert (await owner.say(call_id, "agent", "still mine"))["sequence"] == 1
            assert (await owner.ask("OPTION_SELECTED", chosen))["ok"]


EVENTS_OF_A_CALL: dict[str, dict[str, Any]] = {
    "TRANSCRIPT": {"speaker": "agent", "text": "hello"},
    "REQUEST_NEXT_TIP": {},
    "REQUEST_ALTERNATIVE_TIP": {},
    "SET_MODE": {"muted": True},
    "END_CONVERSATION": {},
    "RESUME_CONVERSATION": {"resumeToken": "guess"},
}


async def test_every_route_but_health_asks_for_credentials(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        guarded = {
            (method, path)
            for method, path in documented_routes()
            if path.startswith("/api/") or path == "/metrics"
        }
        assert len(guarded) >= 13
        for method, path in sorted(guarded):
            for headers in ({}, {"x-api-key": "wrong"}, {"Authorization": f"Basic {KEY}"}, {"x-api-key": ""}):
                status, answer = await server.request(method, path, key=None, headers=headers, body={})
                assert status == 401, (method, path, headers)
                assert answer["message"] in ("Authentication failed", "Invalid API key")
        for path in ("/health", "/ready"):
            assert (await server.get(path, key=None))[0] == 200
        for method, path in documented_routes() - guarded:
            assert method == "GET" and path.startswith(("/health", "/ready", "/docs")), path
        for path in ("/../etc/passwd", "/static/../../pyproject.toml", "/static/%2e%2e/page.py", "/.env"):
            assert (await server.get(path, key=None))[0] in (400, 403, 404), path


def documented_routes() -> set[tuple[str, str]]:
    """Method and path of every route (tests/api/test_contract.py holds them to the running application)."""
    document = json.loads(Path("docs/openapi.json").read_text(encoding="utf-8"))
    return {
        (method.upper(), path.replace("{id}", UNKNOWN).replace("{userId}", UNKNOWN))
        for path, operations in document["paths"].items()
        for method in operations
    }


# --- origins and the proxy

EXTENSION = "chrome-extension://" + "abcdefghijklmnop" * 2
SITE = "https://agent.example"
BAD_ORIGINS = [
    "https://agent.example.evil.test",
    "https://evil-agent.example",
    "http://agent.example",
    "https://agent.example:444",
    "https://agent.example/",
    "https://localhost.evil.example",
    "chrome-extension://" + "bcdefghijklmnopa" * 2,
    EXTENSION + ".evil.test",
    "HTTPS://AGENT.EXAMPLE",
    "null",
    "",
]
PRODUCTION = {"APP_ENV": "production", "CORS_ORIGIN": f"{SITE},{EXTENSION}"}


async def test_a_foreign_origin_is_refused_on_every_wire(tmp_path: Path) -> None:
    async with serving(tmp_path, **PRODUCTION) as server, aiohttp.ClientSession() as http:
        for origin in BAD_ORIGINS:
            socket = f"{server.url}/socket.io/?EIO=4&transport="
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await http.ws_connect(f"{socket}websocket", headers={"Origin": origin})
            async with http.get(f"{socket}polling", headers={"Origin": origin}) as answer:
                assert answer.status in (400, 403), origin
                assert "Access-Control-Allow-Origin" not in answer.headers, origin
            asked = {"Origin": origin, "x-api-key": KEY, "Access-Control-Request-Method": "GET"}
            for method in ("GET", "OPTIONS"):
                url = f"{server.url}/api/conversations"
                async with http.request(method, url, headers=asked) as answer:
                    assert "Access-Control-Allow-Origin" not in answer.headers, origin
                    assert "Access-Control-Allow-Credentials" not in answer.headers, origin


@pytest.mark.parametrize("origin", [SITE, EXTENSION])
async def test_a_listed_origin_is_allowed_with_credentials_on_every_wire(tmp_path: Path, origin: str) -> None:
    async with serving(tmp_path, **PRODUCTION) as server, aiohttp.ClientSession() as http:
        for transport in ("polling", "websocket"):
            async with connected(server, transports=[transport], headers={"Origin": origin}) as client:
                assert (await client.ask("PING"))["ok"]
        url = f"{server.url}/socket.io/?EIO=4&transport=polling"
        async with http.get(url, headers={"Origin": origin}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with http.options(f"{server.url}/api/ai/generate", headers=asked) as answer:
            assert answer.status == 204
            assert "x-api-key" in answer.headers["Access-Control-Allow-Headers"]
        sent = {"Origin": origin, "x-api-key": KEY}
        for path, status in (("/api/conversations", 200), (f"/api/conversations/{UNKNOWN}", 404)):
            async with http.get(server.url + path, headers=sent) as answer:
                assert answer.status == status
                assert answer.headers["Access-Control-Allow-Origin"] == origin
                assert answer.headers["Access-Control-Allow-Credentials"] == "true"
                assert "Origin" in answer.headers["Vary"]


async def test_behind_the_proxy_http_becomes_https_and_says_so_for_a_year(tmp_path: Path) -> None:
    async with serving(tmp_path, **PRODUCTION) as server, aiohttp.ClientSession() as http:
        plain, secure = {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Proto": "https"}
        for path in ("/api/conversations?limit=1", "/socket.io/?EIO=4&transport=polling", "/"):
            async with http.get(server.url + path, headers=plain, allow_redirects=False) as answer:
                assert answer.status == 308
                assert answer.headers["Location"] == f"https://127.0.0.1:{server.port}{path}"
        async with http.get(f"{server.url}/health", headers=plain) as answer:
            assert answer.status == 200
        for path, key in (
            ("/health", ""),
            ("/api/conversations", KEY),
            ("/api/conversations", ""),
            ("/no", ""),
        ):
            headers = {**secure, "x-api-key": key} if key else secure
            async with http.get(server.url + path, headers=headers) as answer:
                assert "max-age=31536000" in answer.headers["Strict-Transport-Security"], (path, key)
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.crash
async def test_production_refuses_to_start_unsafely_and_names_every_variable(tmp_path: Path) -> None:
    unsafe = {"APP_ENV": "production", "BACKEND_API_KEY": "short", "CORS_ORIGIN": "*"}
    async with server_process(tmp_path, **unsafe) as process:
        with pytest.raises(AssertionError):
            await process.start()
        assert process.process is not None and process.process.returncode == 2
        lines = process.log.read_text().splitlines()
        assert [line.split()[2] for line in lines] == [
            "DATA_ENCRYPTION_KEY",
            "BACKEND_API_KEY",
            "CORS_ORIGIN",
        ]
        assert all(line.startswith("Cannot start: ") for line in lines)


@pytest.mark.parametrize("key", ["a" * 32, "b" * 32, "c" * 32, "no"])
def test_every_key_is_compared_in_constant_time_whichever_is_right(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    gate = Gate([(name, name * 32) for name in "abc"], "", ManualClock())
    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    with contextlib.suppress(Unauthorized):
        gate.by_key(key)
    assert len(compared) == 3
    assert {len(side) for pair in compared for side in pair} == {32}, "digests, so that no length shows"
