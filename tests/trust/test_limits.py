"""Too much, too big, too deep: refused in words, and nobody else notices (trust.md G20-G22)."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.fakes.openai import FakeOpenAI
from tests.serving import KEY, Client, Server, connected, serving
from tests.trust.calling import next_tip, timed, until

PING_WITHIN_S = 0.5


@asynccontextmanager
async def witness(server: Server) -> AsyncIterator[list[float]]:
    """Another caller, who pings all the time; the seconds each answer took."""
    waits: list[float] = []
    # Not cancelled: Python 3.11's wait_for may swallow that when an answer comes in the same moment.
    done = asyncio.Event()

    async def ping(client: Client) -> None:
        while not done.is_set():
            answer, seconds = await timed(client.ask("PING"))
            assert answer["ok"]
            waits.append(seconds)
            # Within the witness's own limit, for as long as a slow machine needs.
            await asyncio.sleep(0.03)

    async with connected(server) as client:
        pinging = asyncio.create_task(ping(client))
        try:
            yield waits
        finally:
            done.set()
            await pinging


async def test_of_four_thousand_segments_in_a_burst_some_are_taken_and_the_sender_is_told(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server, connected(server) as client, witness(server) as waits:
        call_id = (await client.start())["conversationId"]
        answers: list[dict[str, Any]] = []
        complete = asyncio.Event()

        def answered(answer: dict[str, Any]) -> None:
            answers.append(answer)
            if len(answers) == 4000:
                complete.set()

        for number in range(4000):
            said = {"conversationId": call_id, "speaker": "caller", "text": f"word {number}"}
            await client.sio.emit("TRANSCRIPT", said, callback=answered)
        async with asyncio.timeout(20):
            await complete.wait()
        taken = [answer for answer in answers if answer["ok"]]
        refused = [answer for answer in answers if not answer["ok"]]
        assert 900 <= len(taken) <= 1500
        assert {answer["code"] for answer in refused} == {"RATE_LIMITED"}
        assert all(answer["retryAfterMs"] > 0 for answer in refused)
        assert sorted(answer["sequence"] for answer in taken) == list(range(1, len(taken) + 1))
        _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
        assert len(kept["segments"]) == len(taken)
        assert client.told("ERROR") == []
    assert sorted(waits)[int(len(waits) * 0.95)] < PING_WITHIN_S


async def test_a_burst_without_acks_is_told_of_once_and_not_a_thousand_times(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as client, witness(server) as waits:
        call_id = (await client.start())["conversationId"]
        for number in range(4000):
            said = {"conversationId": call_id, "speaker": "caller", "text": f"word {number}"}
            await client.send("TRANSCRIPT", said)
        error = await client.wait_for("ERROR")
        assert (error["code"], error["reason"]) == ("RATE_LIMITED", "RATE_LIMITED")
        assert error["retryAfterMs"] > 0
        answer = await client.ask("PING")
        assert answer["code"] == "RATE_LIMITED"
        assert len(client.told("ERROR")) <= 3

        async def stored() -> int:
            _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
            return len(kept["segments"])

        await until(lambda: at_least(stored, 900))
        assert await stored() <= 1500
    assert sorted(waits)[int(len(waits) * 0.95)] < PING_WITHIN_S


async def at_least(count: Callable[[], Awaitable[int]], least: int) -> bool:
    return await count() >= least


async def test_three_hundred_clicks_cost_at_most_forty_model_calls(tmp_path: Path) -> None:
    async with FakeOpenAI() as fake:
        model = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.base_url}
        async with serving(tmp_path, **model) as server, connected(server) as client:
            call_id = (await client.start())["conversationId"]
            answers = []
            for number in range(100):
                wish = next_tip(call_id, selectedRecommendationId=str(number))
                answers.append(await client.ask("REQUEST_NEXT_TIP", wish))
                other = {"conversationId": call_id, "currentStage": "DISCOVERY"}
                answers.append(await client.ask("REQUEST_ALTERNATIVE_TIP", other))
                answers.append(await client.ask("REQUEST_NEXT_TIP", wish))
            assert fake.calls <= 40
            assert {answer["code"] for answer in answers if not answer["ok"]} == {"RATE_LIMITED"}
            assert fake.peak <= 2


async def test_an_api_key_holds_so_many_calls_and_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path, MAX_CALLS_PER_KEY=3) as server, connected(server) as client:
        calls = [await client.start() for _ in range(3)]
        answer = await client.ask("START_CONVERSATION", {"agentId": "a"})
        assert (answer["ok"], answer["code"]) == (False, "RATE_LIMITED")
        await client.send("START_CONVERSATION", {"agentId": "a"})
        assert (await client.wait_for("ERROR"))["reason"] == "RATE_LIMITED"
        await client.ask("END_CONVERSATION", {"conversationId": calls[0]["conversationId"]})
        await client.start()


async def test_starts_that_come_together_do_not_pass_the_limit_side_by_side(tmp_path: Path) -> None:
    async with serving(tmp_path, MAX_CALLS_PER_KEY=3) as server, connected(server) as client:
        wishes = (client.ask("START_CONVERSATION", {"agentId": "a"}) for _ in range(12))
        answers = await asyncio.gather(*wishes)
        assert sum(answer["ok"] for answer in answers) <= 3


def said(call_id: str, **more: Any) -> dict[str, Any]:
    return {"conversationId": call_id, "speaker": "caller", "text": "hello", **more}


NUL = "before\0after"
LONG_TEXT, LARGE_METADATA = "w" * 8001, {"note": "x" * 17_000}
REFUSED_STARTS: dict[str, dict[str, Any]] = {
    "metadata over 16 kB": {"metadata": LARGE_METADATA},
    "metadata over 16 kB of other letters": {"metadata": {"note": "é" * 9000}},
    "metadata as text": {"metadata": "note"},
    "metadata as a list": {"metadata": [1]},
    "metadata with binary data": {"metadata": {"note": b"\0\1"}},
    "an agent of binary data": {"agentId": b"agent\0"},
    "an agent of control characters": {"agentId": "\0\1\2"},
    "an endless agent": {"agentId": "a" * 129},
    "a NUL in the idempotency key": {"idempotencyKey": NUL},
    "an unknown language": {"language": "xx"},
    "an unknown playbook": {"playbook": "../../etc/passwd"},
    "a warm-up of years": {"warmupMs": 10**12},
    "a negative interval": {"intervalMs": -1},
}


async def test_what_is_too_large_or_no_text_is_refused_by_its_name(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as client:
        call_id = (await client.start())["conversationId"]
        for name, more in REFUSED_STARTS.items():
            answer = await client.ask("START_CONVERSATION", {"agentId": "a", **more})
            assert (answer["ok"], answer["code"]) == (False, "INVALID"), (name, answer)
            assert answer["field"].split(".")[0] == next(iter(more)), name
        refused: dict[str, dict[str, Any]] = {
            "text": {"text": LONG_TEXT},
            "segmentId": {"segmentId": NUL},
            "speaker": {"speaker": NUL},
            "timestamp": {"timestamp": 10**20},
            "confidence": {"confidence": 2},
        }
        for field, more in refused.items():
            answer = await client.ask("TRANSCRIPT", said(call_id, **more))
            assert (answer["ok"], answer["code"], answer["field"]) == (False, "INVALID", field), answer
        assert (await client.say(call_id, "caller", "w" * 8000))["sequence"] == 1


async def test_characters_that_a_database_refuses_are_left_out_of_words_and_metadata(
    tmp_path: Path, database_url: str
) -> None:
    strange: dict[str, Any] = {
        "note": NUL,
        "na\0me": [{"deep": "a\x1f\x7fb"}],
        "number": 10**30,
        "small": 5e-324,
        "agentName": "Ma\0rk",
    }
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as client:
        call_id = (await client.start(metadata=strange))["conversationId"]
        for number, text in enumerate((NUL, "x\x0b\x1b[31my", "z\u2028z\u2029z", "\ufffe\uffff"), start=1):
            answer = await client.say(call_id, "caller", text, segmentId=f"ünï/../{number} \u202e")
            assert (answer["ok"], answer["stored"]) == (True, True), (text, answer)
        _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
        assert [segment["text"] for segment in kept["segments"][:3]] == ["beforeafter", "x[31my", "zzz"]
        assert kept["segments"][0]["segmentId"] == "ünï/../1 \u202e"
        _, detail = await server.get(f"/api/conversations/{call_id}")
        assert detail["metadata"]["note"] == "beforeafter"
        assert detail["metadata"]["name"] == [{"deep": "ab"}]
        assert detail["metadata"]["number"] == 1e30
        wish = next_tip(call_id, selectedScript=NUL, customerReaction={"text": NUL, "speaker": "caller"})
        assert (await client.ask("REQUEST_NEXT_TIP", wish))["ok"]
        await client.wait_for("AI_TIP")
        assert (await client.ask("END_CONVERSATION", {"conversationId": call_id}))["ok"]
        await client.wait_for("ANALYSIS_READY")


BAD_IDS = [
    "../../etc/passwd",
    "a/b",
    "a.b",
    "..",
    ".",
    "x" * 65,
    "ünïcode",
    NUL,
    "%2e%2e",
    " ",
    "a b",
    "a\nb",
]


async def test_a_strange_id_is_an_unknown_one(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server, connected(server) as client:
        for bad in BAD_IDS:
            for name, more in (
                ("TRANSCRIPT", {"speaker": "caller", "text": "hello"}),
                ("REQUEST_NEXT_TIP", {}),
                ("END_CONVERSATION", {}),
                ("RESUME_CONVERSATION", {"resumeToken": NUL}),
            ):
                answer = await client.ask(name, {"conversationId": bad, **more})
                assert (answer["ok"], answer["code"] in ("NOT_FOUND", "INVALID")) == (False, True), (
                    bad,
                    answer,
                )
            chosen = {"recommendationId": bad, "selectedOption": 1}
            answer = await client.ask("OPTION_SELECTED", chosen)
            assert answer["ok"] is False and answer["code"] in ("NOT_FOUND", "INVALID"), (bad, answer)
            status, _ = await server.get(f"/api/conversations/{quote(bad, safe='')}/transcript")
            assert status in (400, 404), bad


async def test_queries_of_the_list_are_checked_on_both_engines(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, DATABASE_URL=database_url) as server:
        for query in (
            "agentId=%00",
            "agentId=a%00b",
            "cursor=%00",
            "cursor=123.%00",
            "cursor=99999999999999999999.x",
            "cursor=\u0661\u0662.x",
            "cursor=-1.x",
            "limit=0",
            "limit=99999",
            "limit=1e3",
            "limit=" + "9" * 5000,
            "status=%00",
            "agentId=" + "x" * 129,
        ):
            status, answer = await server.get(f"/api/conversations?{query}")
            assert (status, answer["code"]) == (400, "INVALID"), (query, answer)
        for query in ("cursor=999999999999999.x", "agentId=%F0%9F%92%A9", "agentId=%ff", "agentId='--"):
            status, answer = await server.get(f"/api/conversations?{query}")
            assert status == 200, (query, answer)


async def test_bodies_are_bounded_in_size_and_depth(tmp_path: Path) -> None:
    large = json.dumps({"persona": "sales-coach", "context": "x" * 300_000}).encode()
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    bomb = gzip.compress(b'{"context":"' + b"x" * 20_000_000 + b'"}')
    headers = {"x-api-key": KEY, "Content-Type": "application/json"}
    async with serving(tmp_path) as server, aiohttp.ClientSession() as http, witness(server) as waits:
        for name, body, more, expected in (
            ("large", large, {}, {413}),
            ("deep", deep, {}, {400}),
            ("deeper", b"[" * 200_000, {}, {400}),
            ("a bomb", bomb, {"Content-Encoding": "gzip"}, {413, 400}),
            ("no JSON", b"\xff\xfe", {}, {400}),
            ("a list", b"[]", {}, {400}),
            ("NaN", b'{"persona": NaN}', {}, {400}),
            ("a surrogate", b'{"persona":"sales-coach","context":"\\ud800"}', {}, {400}),
            ("nothing", b"", {}, {400}),
        ):
            for path in ("/api/ai/generate", "/api/auth/token", "/api/transcribe/start"):
                async with http.post(server.url + path, data=body, headers=headers | more) as answer:
                    assert answer.status in expected, (name, path, await answer.text())
                    assert (await answer.json())["code"] in ("INVALID", "TOO_LARGE"), (name, path)
        huge = b'{"x":"' + b"x" * 2_100_000 + b'"}'
        async with http.post(
            f"{server.url}/api/generate-report", data=io.BytesIO(huge), headers=headers
        ) as answer:
            assert answer.status == 413
    assert sorted(waits)[int(len(waits) * 0.95)] < PING_WITHIN_S


async def is_gone(client: Client) -> bool:
    return not client.sio.connected


async def test_a_message_over_256_kb_and_json_over_32_levels_are_not_heard(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with connected(server) as client:
            deep: Any = 1
            for _ in range(40):
                deep = {"a": deep}
            answer = await client.ask("START_CONVERSATION", {"agentId": "a", "metadata": deep})
            assert answer["ok"] is False and answer["code"] == "INVALID"
            call_id = (await client.start())["conversationId"]
            await client.send("TRANSCRIPT", said(call_id, text="x" * 300_000))
            await until(lambda: is_gone(client))
        _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
        assert kept["segments"] == []


async def test_reports_are_limited_for_each_agent(tmp_path: Path) -> None:
    report = {
        "callMetadata": {
            "conversationId": "c",
            "agentEmail": "agent@example.com",
            "startTime": 1,
            "endTime": 2,
            "duration": 1,
        },
        "transcripts": [],
        "aiTips": [],
    }
    async with serving(tmp_path) as server:
        statuses = [(await server.post("/api/generate-report", report))[0] for _ in range(12)]
        assert statuses == [200] * 10 + [429] * 2
        status, answer = await server.post("/api/generate-report", report)
        assert answer["code"] == "RATE_LIMITED" and answer["retryAfter"] > 0


async def test_the_coach_on_request_is_limited_for_each_key(tmp_path: Path) -> None:
    wish = {"persona": "sales-coach", "context": "Too expensive."}
    async with serving(tmp_path) as server:
        answers = [await server.post("/api/ai/generate", wish) for _ in range(32)]
        assert [status for status, _ in answers] == [200] * 30 + [429] * 2
        assert (await server.get("/api/conversations"))[0] == 200


@pytest.mark.parametrize("name", ["START_TRANSCRIPTION", "END_TRANSCRIPTION"])
async def test_a_strange_session_id_is_refused(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as server, connected(server) as client:
        for bad in (*BAD_IDS[:2], NUL, "x" * 129, "", "ünï"):
            answer = await client.ask(name, {"sessionId": bad})
            assert answer["ok"] is False and answer["field"] == "sessionId"
