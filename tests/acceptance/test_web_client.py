"""What the web client of the roleplay does, done by the npm client and by fetch (contract §1)."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.extension import needs_node
from tests.api.practising import EVENTS, TALK, route_of
from tests.serving import KEY, serving

pytestmark = pytest.mark.node

SCRIPT = Path(__file__).with_name("roleplay_client.mjs")
START = {
    "userId": "user-1732000000000",
    "scenarioId": "default-sales-scenario",
    "startPhaseId": 1,
    "startStepId": "1.1",
}
NOBODY: dict[str, str] = {}
BACK_END = {"x-api-key": KEY}


class WebClient:
    """The Node process, command by command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self.heard: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.heard.append(json.loads(line))
            self._changed.set()

    def do(self, verb: str, **values: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"verb": verb, **values}).encode() + b"\n")

    async def ask(self, method: str, path: str, **values: Any) -> dict[str, Any]:
        """The answer of a request, which is as documented; `body` left out sends none."""
        number = next(self._ids)
        self.do("request", id=number, method=method, path=path, **values)
        found = await self._wait(lambda item: item.get("answer") == number)
        assert found["ok"], found
        model: Any = route_of(method, path).doc.answer
        model.model_validate(found["data"])
        data: dict[str, Any] = found["data"]
        return data

    async def poll(self, path: str, every_ms: int = 100, tries: int = 150) -> dict[str, Any]:
        number = next(self._ids)
        self.do("poll", id=number, path=path, everyMs=every_ms, tries=tries)
        return await self._wait(lambda item: item.get("answer") == number)

    async def event(self, name: str) -> dict[str, Any]:
        """The payload of the first event of that name."""
        found = await self._wait(lambda item: item.get("event") == name)
        if name in EVENTS and name != "ERROR":
            EVENTS[name].model_validate(found["payload"])
        payload: dict[str, Any] = found.get("payload", {})
        return payload

    def events(self, name: str) -> list[dict[str, Any]]:
        return [item for item in self.heard if item.get("event") == name]

    async def _wait(self, fits: Any) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while True:
                if found := next((item for item in self.heard if fits(item)), None):
                    return found
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def web_client(url: str, headers: dict[str, str]) -> AsyncIterator[WebClient]:
    needs_node()
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        url,
        json.dumps(headers),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=SCRIPT.parents[2],
    )
    client = WebClient(process)
    reading = asyncio.create_task(client.read())
    try:
        await client.event("ready")
        yield client
    finally:
        client.do("quit")
        await process.wait()
        await reading


def iso(second: int) -> str:
    return f"2026-01-15T14:02:{second:02d}.000Z"


async def play(client: WebClient, session_id: str) -> None:
    """What the avatar's page logs, message by message."""
    for number, (speaker, message) in enumerate(TALK):
        body = {"speaker": speaker, "message": message, "timestamp": iso(number)}
        path = f"/api/roleplay/sessions/{session_id}/transcript"
        assert (await client.ask("POST", path, body=body))["created"] is True


@pytest.mark.parametrize("is_open", [False, True], ids=["with a join token", "without any credentials"])
async def test_a_whole_session_of_the_web_client(tmp_path: Path, is_open: bool) -> None:
    async with serving(tmp_path, ROLEPLAY_OPEN=is_open) as server:
        async with web_client(server.url, NOBODY if is_open else BACK_END) as client:
            started = await client.ask("POST", "/api/roleplay/sessions/start", body=START)
            session_id = started["sessionId"]
            client.do("connect", **({} if is_open else {"auth": {"joinToken": started["joinToken"]}}))
            await client.event("connect")
            client.do("emit", name="session:join", data={"sessionId": session_id, "userId": START["userId"]})
            client.do("emit", name="session:heartbeat", data={"sessionId": session_id})
            client.do("emit", name="step:complete", data={"sessionId": session_id, "stepId": "1.1"})
            moved = await client.event("step:updated")
            assert (moved["previousStepId"], moved["currentStepId"]) == ("1.1", "1.2")
            await play(client, session_id)
            stopped = await client.ask("POST", f"/api/roleplay/sessions/{session_id}/stop")
            assert stopped["status"] == "completed" and stopped["feedbackQueued"] is True
            polled = await client.poll(f"/api/roleplay/sessions/{session_id}/feedback")
            assert [one["status"] for one in polled["seen"]][-1] == 200
            assert all((one["status"], one["retryAfter"]) == (409, "2") for one in polled["seen"][:-1]), (
                polled["seen"]
            )
            feedback = polled["data"]
            assert isinstance(feedback["highlights"], list) and feedback["overallScore"] is not None
            ready = await client.event("feedback:ready")
            assert ready == {"sessionId": session_id, "overallScore": feedback["overallScore"]}
            progress = await client.ask("GET", f"/api/roleplay/users/{START['userId']}/progress")
            assert [phase["id"] for phase in progress["scenarioFlow"]] == [1, 2, 3, 4]
            assert progress["currentStep"] and progress["totalSessions"] == 1
            assert client.events("ERROR") == [] and client.events("failed") == []


async def test_a_client_that_joins_after_the_feedback_is_told_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, web_client(server.url, BACK_END) as client:
        started = await client.ask("POST", "/api/roleplay/sessions/start", body=START)
        session_id = started["sessionId"]
        await play(client, session_id)
        await client.ask("POST", f"/api/roleplay/sessions/{session_id}/stop")
        feedback = (await client.poll(f"/api/roleplay/sessions/{session_id}/feedback"))["data"]
        client.do("connect", auth={"joinToken": started["joinToken"]})
        await client.event("connect")
        client.do("emit", name="session:join", data={"sessionId": session_id, "userId": START["userId"]})
        ready = await client.event("feedback:ready")
        assert ready["overallScore"] == feedback["overallScore"]


async def test_without_credentials_the_web_client_is_refused_by_default(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, web_client(server.url, NOBODY) as client:
        client.do("connect")
        refused = await client._wait(lambda item: item.get("event") == "connect_error")
        assert refused["message"] == "Authentication failed"


async def test_the_polling_of_a_running_session_never_sees_a_success(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, web_client(server.url, BACK_END) as client:
        session_id = (await client.ask("POST", "/api/roleplay/sessions/start", body=START))["sessionId"]
        polled = await client.poll(f"/api/roleplay/sessions/{session_id}/feedback", every_ms=1, tries=5)
        assert polled["seen"] == [{"status": 409, "retryAfter": "2"}] * 5 and polled["data"] is None
