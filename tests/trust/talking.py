"""Practice sessions as these tests hold them: a REST client that may be several users, and what it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.serving import KEY, Server

SESSIONS = "/api/roleplay/sessions"
# Long enough to be scored, with the moves of each phase.
SELLER = (
    "Good morning, shall we look at your invoices together and agree on the agenda first?",
    "How do you process your invoices today?",
    "So if I understand you well you lose two days a month, is that right?",
    "What does it cost you when an invoice goes out late?",
    "Suppose you had those two days back, what would you do with them?",
    "I suggest that we start with a pilot on Tuesday at ten, does that suit you?",
)


@dataclass(slots=True)
class Talker:
    """Practises over one connection pool, as the API key: it may act for any user of it."""

    server: Server
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        async with self.http.request(
            method, self.server.url + path, json=body, headers={"x-api-key": KEY, **headers}
        ) as answer:
            text = await answer.text()
            document = json.loads(text) if "json" in answer.content_type else text
            return answer.status, document, dict(answer.headers)

    async def start(self, user: str, **wish: Any) -> dict[str, Any]:
        body = {"userId": user, "scenarioId": "default-sales-scenario", "language": "en", **wish}
        status, answer, _ = await self.ask("POST", f"{SESSIONS}/start", body)
        assert status == 200, answer
        return dict(answer)

    async def say(self, id: str, text: str, speaker: str = "user", **more: Any) -> tuple[int, Any]:
        """`transcript`: what the avatar's page heard."""
        body = {"speaker": speaker, "message": text, **more}
        status, answer, _ = await self.ask("POST", f"{SESSIONS}/{id}/transcript", body)
        return status, answer

    async def message(self, id: str, text: str, **more: Any) -> tuple[int, Any]:
        """`message`: the customer answers."""
        status, answer, _ = await self.ask("POST", f"{SESSIONS}/{id}/message", {"text": text, **more})
        return status, answer

    async def stop(self, id: str) -> dict[str, Any]:
        status, answer, _ = await self.ask("POST", f"{SESSIONS}/{id}/stop")
        assert status == 200, answer
        return dict(answer)

    async def feedback(self, id: str, within_s: float = 30.0) -> dict[str, Any]:
        """Polls as the web client does."""
        async with asyncio.timeout(within_s):
            while True:
                status, answer, _ = await self.ask("GET", f"{SESSIONS}/{id}/feedback")
                if status == 200:
                    return dict(answer)
                assert status == 409, answer
                await asyncio.sleep(0.05)

    async def talk(self, id: str, *lines: str) -> None:
        for line in lines or SELLER:
            status, answer = await self.message(id, line)
            assert status == 200, answer

    async def practise(self, user: str, *lines: str, **wish: Any) -> tuple[str, dict[str, Any]]:
        """A whole session: its id and its feedback."""
        id = str((await self.start(user, **wish))["sessionId"])
        await self.talk(id, *lines)
        await self.stop(id)
        return id, await self.feedback(id)


@asynccontextmanager
async def talking(server: Server) -> AsyncIterator[Talker]:
    async with aiohttp.ClientSession() as http:
        yield Talker(server, http)
