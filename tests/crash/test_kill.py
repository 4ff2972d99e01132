"""kill -9 of the whole server: nothing acknowledged is lost, on either engine (trust.md G1, G3, G4)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import socketio.exceptions

from tests.process import ServerProcess, server_process
from tests.serving import Client

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]
ROUNDS = 10


def engine_of(request: pytest.FixtureRequest, engine: str) -> dict[str, str]:
    if engine == "sqlite":
        return {}
    return {"DATABASE_URL": request.getfixturevalue("empty_postgres_url")}


async def talk_until_killed(process: ServerProcess, client: Client, call_id: str, round_: int) -> set[str]:
    """Send segments as fast as they are acknowledged and kill the server; the acknowledged ones."""
    acknowledged: set[str] = set()
    enough = asyncio.Event()
    target = random.Random(round_).randint(5, 60)

    async def speak(lane: int) -> None:
        number = 0
        while True:
            segment = f"{round_}-{lane}-{number}"
            number += 1
            try:
                answer = await client.say(call_id, "caller", f"words {segment}", segmentId=segment)
            except (socketio.exceptions.SocketIOError, AssertionError):
                return
            if answer["ok"]:
                acknowledged.add(segment)
            if len(acknowledged) >= target:
                enough.set()

    lanes = [asyncio.create_task(speak(lane)) for lane in range(4)]
    await enough.wait()
    await process.kill()
    for lane in lanes:
        lane.cancel()
    await asyncio.gather(*lanes, return_exceptions=True)
    return acknowledged


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_ten_kills_lose_no_acknowledged_word_and_double_none(
    tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    async with server_process(tmp_path, **engine_of(request, engine)) as process:
        server = await process.start()
        client = await Client().connect(server)
        started = await client.start(warmupMs=0, intervalMs=100)
        call_id = started["conversationId"]
        acknowledged: set[str] = set()
        last_seq = 1
        for round_ in range(ROUNDS):
            acknowledged |= await talk_until_killed(process, client, call_id, round_)
            last_seq = max([last_seq, *(payload["seq"] for _, payload in client.events if "seq" in payload)])
            await client.close()
            server = await process.start()
            client = await Client().connect(server)
            resume = {
                "conversationId": call_id,
                "resumeToken": started["resumeToken"],
                "lastSeq": last_seq,
            }
            answer = await client.ask("RESUME_CONVERSATION", resume)
            assert answer["ok"] and answer["recovered"], answer
        _, kept = await server.get(f"/api/conversations/{call_id}/transcript")
        stored = [segment["segmentId"] for segment in kept["segments"]]
        assert acknowledged <= set(stored)
        assert len(stored) == len(set(stored))
        assert [segment["sequence"] for segment in kept["segments"]] == list(range(1, len(stored) + 1))
        seqs = [payload["seq"] for _, payload in client.events if "seq" in payload]
        assert seqs == sorted(set(seqs))
        await client.close()


async def test_an_analysis_cut_off_by_a_kill_appears_once_after_the_restart(tmp_path: Path) -> None:
    async with server_process(tmp_path) as process:
        server = await process.start()
        client = await Client().connect(server)
        call_id = (await client.start())["conversationId"]
        for number in range(6):
            await client.say(call_id, "agent" if number % 2 else "caller", f"That is too expensive {number}")
        assert (await client.ask("END_CONVERSATION", {"conversationId": call_id}))["ok"]
        await process.kill()
        await client.close()
        server = await process.start()
        async with asyncio.timeout(30):
            while True:
                status, document = await server.get(f"/api/conversations/{call_id}/analysis")
                if status == 200:
                    break
                assert status == 409
                await asyncio.sleep(0.1)
        assert document["conversationId"] == call_id and document["objections"]


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_sigterm_tells_every_client_saves_all_and_exits_in_time(
    tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    async with server_process(tmp_path, **engine_of(request, engine)) as process:
        server = await process.start()
        clients = [await Client().connect(server) for _ in range(20)]
        started = [await client.start() for client in clients]
        for client, call in zip(clients, started, strict=True):
            assert (await client.say(call["conversationId"], "agent", "before the drain"))["ok"]
        async with asyncio.timeout(25):
            leaving = asyncio.create_task(process.terminate())
            for client in clients:
                notice = await client.wait_for("SERVER_DRAINING")
                assert 0 <= notice["reconnectInMs"] <= 5000
            status, _ = await server.get("/ready", key=None)
            assert status == 503
            assert await leaving == 0
        for client in clients:
            await client.close()
        server = await process.start()
        client = await Client().connect(server)
        for call in started:
            resume = {
                "conversationId": call["conversationId"],
                "resumeToken": call["resumeToken"],
                "lastSeq": 1,
            }
            assert (await client.ask("RESUME_CONVERSATION", resume))["recovered"]
            _, kept = await server.get(f"/api/conversations/{call['conversationId']}/transcript")
            assert len(kept["segments"]) == 1
        await client.close()


async def test_the_log_of_a_whole_call_holds_no_word_of_it_and_no_key(tmp_path: Path) -> None:
    async with server_process(tmp_path, LOG_LEVEL="debug") as process:
        server = await process.start()
        client = await Client().connect(server)
        started = await client.start(warmupMs=0, intervalMs=100, metadata={"agentName": "Canaryname"})
        call_id = started["conversationId"]
        for number in range(5):
            await client.say(
                call_id, "caller", f"canaryword {number} is too expensive, mail me@canary.example"
            )
        await client.wait_for("AI_TIP")
        await client.ask(
            "TRANSCRIPT", {"conversationId": call_id, "speaker": "canaryword", "text": "canaryword"}
        )
        await server.post("/api/ai/generate", {"persona": "canaryword", "context": "canaryword"})
        await client.ask("END_CONVERSATION", {"conversationId": call_id})
        await client.wait_for("ANALYSIS_READY")
        await client.close()
        assert await process.terminate() == 0
        log = process.log.read_text()
        assert "Call started" in log
        assert "canary" not in log.lower()
        assert server.key not in log and started["resumeToken"] not in log
        assert {line["level"] for line in process.lines()} <= {"debug", "info", "warning"}
