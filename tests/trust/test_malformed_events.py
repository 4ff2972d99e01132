"""Whatever a client sends, it is answered within a second, and nobody learns how we are made (G2, G19)."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path
from typing import Any

import aiohttp

from tests.serving import KEY, Client, Server, connected, serving
from tests.trust.calling import timed

EVENTS = (
    "START_CONVERSATION", "TRANSCRIPT", "OPTION_SELECTED", "REQUEST_NEXT_TIP", "REQUEST_ALTERNATIVE_TIP",
    "END_CONVERSATION", "SET_MODE", "RESUME_CONVERSATION", "PING", "START_TRANSCRIPTION", "AUDIO_CHUNK",
    "END_TRANSCRIPTION",
)  # fmt: skip
FIELDS = (
    "agentId", "metadata", "mode", "language", "playbook", "warmupMs", "intervalMs", "storeTranscript",
    "consent", "verbosity", "tipStreaming", "idempotencyKey", "conversationId", "speaker", "text", "isFinal",
    "timestamp", "segmentId", "confidence", "recommendationId", "selectedOption", "selectedScript",
    "selectedRecommendationId", "agentResponse", "customerReaction", "transcriptHistory", "currentStage",
    "currentScriptId", "muted", "resumeToken", "lastSeq", "sessionId", "sampleRate", "encoding", "chunk",
    "payload", "type", "__proto__", "constructor",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 4, 1.5, -0.0, 1e308, 5e-324, 2**31, 2**53, 2**63, 10**30,
    "", " ", "x", "\0", "é", "\u202e", "\u2028", "a" * 9000, "../../etc/passwd", "'; DROP TABLE x; --",
    "<script>alert(1)</script>", "${7*7}", "{{7*7}}", "%s%n", "null", "NaN", "1", "auto", "en", "agent",
    "caller", "5dd9cf0b-0000-4000-8000-000000000000", "AAAA", b"", b"\0\xff", b"x" * 2000,
    [], {}, [[]], [{}], [None], {"": ""}, {"a": {"b": {"c": []}}}, [1] * 200, {"text": 1}, {"given": "maybe"},
    [{"speaker": "caller", "text": "x"}] * 101, {"speaker": "x", "text": "y"}, {"type": "x", "payload": {}},
)  # fmt: skip
ROUNDS = 45
# Anything that tells which libraries, files or lines are behind an answer.
LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/work|/home|/usr|pydantic|sqlalchemy|sqlite|asyncpg|aiohttp|"
    r"socketio|engineio|orjson|Exception|Error:|coach_server|line \d+",
    re.I,
)


def a_payload(chance: random.Random) -> Any:
    if chance.random() < 0.15:
        return chance.choice(VALUES)
    return {name: chance.choice(VALUES) for name in chance.sample(FIELDS, chance.randint(0, 8))}


def nearly_right(name: str, call_id: str, chance: random.Random) -> Any:
    """A right payload with one or two fields spoilt, which gets further in than noise does."""
    right: dict[str, dict[str, Any]] = {
        "START_CONVERSATION": {"agentId": "a", "metadata": {"x": 1}},
        "TRANSCRIPT": {"conversationId": call_id, "speaker": "caller", "text": "hello"},
        "OPTION_SELECTED": {"recommendationId": "r", "selectedOption": 1},
        "REQUEST_NEXT_TIP": {"conversationId": call_id, "transcriptHistory": [{"text": "x"}]},
        "REQUEST_ALTERNATIVE_TIP": {"conversationId": call_id, "currentStage": "DISCOVERY"},
        "END_CONVERSATION": {"conversationId": "5dd9cf0b-0000-4000-8000-000000000000"},
        "SET_MODE": {"conversationId": call_id, "mode": "auto"},
        "RESUME_CONVERSATION": {"conversationId": call_id, "resumeToken": "x", "lastSeq": 0},
        "PING": {},
        "START_TRANSCRIPTION": {"sessionId": "s", "sampleRate": 16000},
        "AUDIO_CHUNK": {"sessionId": "s", "chunk": "AAAA"},
        "END_TRANSCRIPTION": {"sessionId": "s"},
    }
    payload = dict(right[name])
    for field in chance.sample(sorted({*payload, *chance.sample(FIELDS, 3)}), 2):
        payload[field] = chance.choice(VALUES)
    if name == "END_CONVERSATION" and payload.get("conversationId") == call_id:
        payload["conversationId"] = "x"
    return payload


async def torment(server: Server, name: str, seed: int) -> int:
    """How many of this event's answers were refusals."""
    chance = random.Random(f"{name} {seed}")
    refused = 0
    async with connected(server) as client:
        call_id = (await client.start())["conversationId"]
        for number in range(ROUNDS):
            payload = a_payload(chance) if number % 3 == 0 else nearly_right(name, call_id, chance)
            answer, seconds = await timed(client.sio.call(name, payload, timeout=3))
            shown = (name, str(payload)[:300], answer)
            assert seconds < 1, shown
            assert isinstance(answer, dict) and isinstance(answer["ok"], bool), shown
            if not answer["ok"]:
                refused += 1
                assert answer["code"] and answer["message"], shown
                assert answer["code"] not in ("INTERNAL", "STORAGE_FAILED"), shown
            assert not LEAKS.search(str({k: v for k, v in answer.items() if k != "conversationId"})), shown
        assert (await client.ask("PING"))["ok"]
        for told, payload in client.events:
            if told == "ERROR":
                assert not LEAKS.search(str(payload)), payload
    return refused


async def test_every_malformed_event_is_answered_within_a_second_and_a_call_beside_it_goes_on(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as beside:
        call_id = (await beside.start())["conversationId"]
        done = asyncio.Event()
        spoken = 0

        async def talk() -> int:
            nonlocal spoken
            while not done.is_set():
                answer, seconds = await timed(beside.say(call_id, "caller", f"word {spoken}"))
                assert answer["ok"] and seconds < 1
                spoken += 1
                await asyncio.sleep(0.02)
            return spoken

        talking = asyncio.create_task(talk())
        refused = sum([await torment(server, name, 1) for name in EVENTS])
        done.set()
        assert await talking > 10
        assert refused > len(EVENTS) * ROUNDS / 3
        _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
        assert len(kept["segments"]) == spoken


async def test_events_with_several_arguments_or_an_unknown_name_harm_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        for name in EVENTS:
            answer = await client.sio.call(name, ("text", 5, [], {}), timeout=2)
            assert answer["ok"] is (name == "PING" and answer["ok"]), name
            assert (await client.sio.call(name, timeout=2)) is not None, name
        await client.send("NOBODY_KNOWS_THIS", {"a": 1})
        await client.send("connect_error", {"a": 1})
        assert (await client.ask("PING"))["ok"]


async def test_malformed_requests_never_give_a_server_error_or_name_a_library(tmp_path: Path) -> None:
    chance = random.Random(7)
    bodies = [a_payload(chance) for _ in range(12)]
    paths = {
        "POST": ("/api/ai/generate", "/api/generate-report", "/api/auth/token", "/api/auth/deepgram-token",
                 "/api/transcribe/start", "/api/transcribe/chunk", "/api/transcribe/end"),
        "GET": ("/api/conversations/x", "/api/conversations/x/analysis", "/api/conversations/%00",
                "/api/conversations?limit=x&cursor=%F0", "/api/nothing", "/docs/../x", "/static/%00"),
    }  # fmt: skip
    client = Client()
    async with serving(tmp_path) as server, aiohttp.ClientSession(headers={"x-api-key": KEY}) as http:
        await client.connect(server)
        for method, some in paths.items():
            for path in some:
                for body in bodies if method == "POST" else bodies[:2]:
                    sent = {"json": body} if not _has_bytes(body) else {"data": b"\xff{"}
                    async with http.request(method, server.url + path, **sent) as answer:
                        text = await answer.text()
                        expected = answer.status < 500 or (answer.status == 503 and "configured" in text)
                        assert expected, (path, body, text)
                        assert not LEAKS.search(text), (path, body, text)
                assert (await client.ask("PING"))["ok"]
        await client.close()


def _has_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_bytes, value.values()))
    if isinstance(value, list):
        return any(map(_has_bytes, value))
    return isinstance(value, bytes)
