"""kill -9 of the whole server while somebody talks to a simulated customer: whatever a client was told is on
disk, and the session goes on after the restart, on either engine."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest

from tests.api.simulating import GOOD, Headset, Office, headset, socket_url
from tests.crash.test_kill import engine_of
from tests.process import server_process

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]
ROUNDS = 2


async def chat(client: Headset, number: int) -> None:
    """Words without end, until the line is cut."""
    try:
        while True:
            await client.send({"type": "text", "text": f"And number {number}, how is that?"})
            number += 1
            before = len(client.words("AVATAR"))
            await client.until(lambda before=before: client.is_closed or len(client.words("AVATAR")) > before)
            if client.is_closed:
                return
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        return


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_what_a_client_was_told_survives_every_kill_and_the_talk_goes_on(
    tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    environment = {"NODE_ID": "one", **engine_of(request, engine)}
    async with server_process(tmp_path, **environment) as process:
        server = await process.start()
        started = await Office(server).create()
        id, url, told = str(started["sessionId"]), str(started["wsUrl"]), list[str]()
        for round_ in range(ROUNDS):
            async with headset(url) as client:
                ticket = client.told("ready")[0]["ticket"]
                target = random.Random(round_).randint(2, 5)
                chatting = asyncio.create_task(chat(client, round_ * 100))
                await client.until(
                    lambda client=client, target=target: client.is_closed or len(client.words()) >= target, 20
                )
                await process.kill()
                await chatting
                await client.closed()
            told += client.words()
            server = await process.start()
            stored = [line["text"] for line in (await Office(server).session(id))["transcript"]]
            # At most what was on disk and not told yet comes on top.
            assert set(told) <= set(stored) and len(stored) >= len(told)
            told = stored
            session = await Office(server).session(id)
            if session["status"] == "ended":
                return
            url = socket_url(server, id, ticket)
        async with headset(url) as client:
            await client.say(GOOD[0])
            await client.end()
            assert await client.wait_for("session_ended")
            assert (await client.wait_for("score", within_s=30))["data"]["overall"] >= 0


async def test_a_killed_session_that_nobody_comes_back_to_is_closed_and_scored(tmp_path: Path) -> None:
    async with server_process(tmp_path, SIMULATION_GRACE_MS="5000") as process:
        server = await process.start()
        started = await Office(server).create()
        async with headset(started["wsUrl"]) as client:
            for line in GOOD[:2]:
                await client.say(line)
            await process.kill()
            await client.closed()
        server = await process.start()
        async with asyncio.timeout(90):
            while True:
                told = await Office(server).session(started["sessionId"])
                if told["status"] == "ended" and told["analysisStatus"] == "done":
                    break
                await asyncio.wait([asyncio.create_task(server.get("/health", key=None))])
        assert (told["outcome"], told["endTrigger"]) == (None, "disconnect")
        assert told["exchanges"] == 2 and told["score"]["overall"] >= 0
