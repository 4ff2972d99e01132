"""Practising through the real server, as clients do it: every answer, ack and event is held against the model
that documents it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import BaseModel

from coach_server.api import wire_out
from coach_server.api.declared import declared
from coach_server.api.http import Route
from coach_server.api.practice import out as practice_out
from coach_server.testing import ManualClock
from tests.serving import KEY, Client, Server

REST, SOCKETS = declared()
EVENTS: Mapping[str, type[wire_out.Outbound]] = {**wire_out.EVENTS, **practice_out.BARE_EVENTS}
SESSIONS = "/api/roleplay/sessions"
SCENARIO = "default-sales-scenario"
UNKNOWN = "5dd9cf0b-0000-4000-8000-000000000000"

# A seller and a customer, both as an avatar's page reports them. Each of the seller's lines is an example of
# the technique beside it.
TALK: Sequence[tuple[str, str]] = (
    ("user", "Dag mevrouw Peeters, fijn dat u tijd maakt vandaag. Hoe was uw week, druk met de beurs?"),
    ("hugo", "Dag, ja het is druk geweest. Zet u."),
    (
        "user",
        "Zullen we het zo doen: ik stel eerst enkele vragen, en op het einde beslissen we samen of het zin "
        "heeft om verder te gaan. Is dat goed voor u?",
    ),
    ("hugo", "Ja, dat is goed."),
    ("user", "Hoeveel mensen werken er bij u in de planning?"),
    ("hugo", "Drie, en elke week loopt er wel iets mis."),
    ("user", "Wat vindt u van de manier waarop dat nu loopt?"),
    ("hugo", "Het kost mij elke zondag een halve dag."),
    ("user", "Wij hebben een pakket dat alles automatisch plant."),
    ("hugo", "Dat is veel te duur voor ons."),
    ("user", "Ons pakket is het snelste van de markt."),
    ("hugo", "Ik moet er nog eens over nadenken."),
)


def route_of(method: str, path: str) -> Route:
    """The documented route that answers this path."""
    bare = path.partition("?")[0]
    for route in REST.routes:
        pattern = re.sub(r"\{\w+\}", "[^/]+", route.path)
        if route.method == method and re.fullmatch(pattern, bare):
            return route
    raise AssertionError(f"no route is documented for {method} {path}")


class Desk:
    """REST as one caller: with the API key, a user's token, a join token, or nothing at all."""

    def __init__(self, server: Server, *, key: str | None = KEY, token: str | None = None) -> None:
        self.server = server
        self._headers = {"x-api-key": key} if key is not None and token is None else {}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self.headers: Mapping[str, str] = {}

    async def ask(self, method: str, path: str, body: object = None, *, status: int = 200) -> dict[str, Any]:
        """The answer, which has this status and is as documented."""
        found, answer = await self.try_(method, path, body)
        assert found == status, (method, path, found, answer)
        return answer

    async def try_(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """Status and answer; `headers` are those of the last answer."""
        route = route_of(method, path)
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.server.url + path, headers=self._headers, json=body) as answer,
        ):
            self.headers = answer.headers.copy()
            found: dict[str, Any] = await answer.json()
            if answer.status < 300:
                assert isinstance(route.doc.answer, type) and issubclass(route.doc.answer, BaseModel)
                route.doc.answer.model_validate(found)
            else:
                wire_out.ErrorAnswer.model_validate(found)
            return answer.status, found

    async def start(self, user: str | None = "ann", **choices: Any) -> dict[str, Any]:
        body = {"userId": user, "scenarioId": SCENARIO, "language": "nl", **choices}
        return await self.ask("POST", f"{SESSIONS}/start", {k: v for k, v in body.items() if v is not None})

    async def say(self, session_id: str, speaker: str, text: str, **more: Any) -> dict[str, Any]:
        said = {"speaker": speaker, "message": text, **more}
        return await self.ask("POST", f"{SESSIONS}/{session_id}/transcript", said)

    async def talk(self, session_id: str, turns: Sequence[tuple[str, str]] = TALK) -> None:
        for speaker, text in turns:
            await self.say(session_id, speaker, text)

    async def message(self, session_id: str, text: str, **more: Any) -> dict[str, Any]:
        return await self.ask("POST", f"{SESSIONS}/{session_id}/message", {"text": text, **more})

    async def status(self, session_id: str) -> dict[str, Any]:
        return await self.ask("GET", f"{SESSIONS}/{session_id}/status")

    async def stop(self, session_id: str) -> dict[str, Any]:
        return await self.ask("POST", f"{SESSIONS}/{session_id}/stop")

    async def feedback(self, session_id: str) -> dict[str, Any]:
        """Once it is there; until then every answer is the 409 that sends the client on polling."""
        path = f"{SESSIONS}/{session_id}/feedback"
        async with asyncio.timeout(15):
            while True:
                status, answer = await self.try_("GET", path)
                if status == 200:
                    return answer
                assert (status, self.headers.get("Retry-After")) == (409, "2"), answer

    async def practise(self, turns: Sequence[tuple[str, str]] = TALK, **choices: Any) -> dict[str, Any]:
        """A whole session; its feedback."""
        session_id = (await self.start(**choices))["sessionId"]
        await self.talk(session_id, turns)
        await self.stop(session_id)
        return await self.feedback(session_id)

    async def progress(self, user: str = "ann") -> dict[str, Any]:
        return await self.ask("GET", f"/api/roleplay/users/{user}/progress")

    async def drills(self, user: str = "ann", query: str = "") -> list[dict[str, Any]]:
        answer = await self.ask("GET", f"/api/drills?userId={user}{query}")
        found: list[dict[str, Any]] = answer["drills"]
        return found


class Listener(Client):
    """A Socket.IO client of practice: what it hears is as documented, and bare as the contract wants it."""

    async def _heard(self, name: str, *arguments: Any) -> None:
        data = arguments[0] if arguments else {}
        if name in practice_out.BARE_EVENTS:
            practice_out.BARE_EVENTS[name].model_validate(data)
            self.events.append((name, data))
            self._changed.set()
            return
        await super()._heard(name, *arguments)
        EVENTS[name].model_validate(self.events[-1][1])

    async def ask(self, name: str, data: object = None) -> dict[str, Any]:
        answer = await super().ask(name, data)
        model = SOCKETS.events[name].ack if answer.get("ok") else wire_out.Refused
        model.model_validate(answer)
        return answer

    async def join(self, session_id: str, **more: Any) -> dict[str, Any]:
        return await self.ask("session:join", {"sessionId": session_id, **more})


@asynccontextmanager
async def listening(server: Server, auth: dict[str, Any] | None = None) -> AsyncIterator[Listener]:
    client = Listener()
    await client.connect(server, auth)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def joined(server: Server, started: Mapping[str, Any]) -> AsyncIterator[Listener]:
    """A client in the session, by its join token."""
    async with listening(server, {"joinToken": started["joinToken"]}) as client:
        assert (await client.join(started["sessionId"]))["ok"]
        yield client


async def let_pass(clock: ManualClock, desk: Desk, holds: Callable[[], object]) -> None:
    """Move time on, a little with each request, until this holds: jobs and retries wait for the clock and the
    network in turn."""
    async with asyncio.timeout(20):
        while not holds():
            await clock.advance(0.25)
            await desk.ask("GET", "/api/methodologies")
            await desk.drills("nobody")


def nothing_of(words: str, folder: Path) -> None:
    """No file of the server holds these words."""
    for file in folder.rglob("*"):
        if file.is_file():
            assert words.encode() not in file.read_bytes(), file.name
