"""Simulations through the real server, as a headset or a browser plays them: every frame it is told is held
against the model that documents it."""

from __future__ import annotations

import asyncio
import base64
import json
import tomllib
import wave
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp

import coach_server
from coach_server.api import wire_out
from coach_server.api.simulation.frames import FROM_CLIENT, FROM_SERVER
from coach_server.testing import ManualClock
from tests.api.practising import Desk, route_of
from tests.fakes.waiting import Watched
from tests.serving import Server

SCENARIO = "fmc_resistant"
WITHIN_S = 10.0
BYTES_PER_S = 48_000
CATALOG = Path(coach_server.__file__).parent / "catalog"
RECORDING = Path(__file__).parent.parent / "data" / "good-evening.wav"

# Nothing here breaks a rule: the checks come before any product, what he says is taken up.
GOOD = (
    "Good evening, thank you for stopping. May I ask whether you are over eighteen, and do you smoke?",
    "I understand. What do you like about it, and when do you usually smoke?",
    "And what bothers you? Does the smell in the van bother you or your customers?",
    "I can imagine. glo HYPER X2 heats real tobacco and burns none, so there is no ash and less smell.",
    "That makes sense, the taste is a fair point. It has two modes, and about 20 sessions a charge.",
    "You told me that the van smells; this does not. Would you like to try it for a week?",
)
PUSHY = (
    "Good evening. Are you over eighteen, and do you smoke?",
    "You have to buy glo today, everybody knows that it is the best one.",
    "No, you are wrong about that. You simply have to buy it now.",
    "Just buy it, sign here, you have no choice.",
    "I do not care about that. Buy it now, you must.",
    "You must buy it now, stop thinking about it.",
    "You are wrong. Buy it, last chance, now.",
)
BREACH = ("We have glo HYPER X2 for you, it heats tobacco.",)


class Headset(Watched):
    """A client's end of /ws/sessions/{id}. `frames`: what it was told, in order, without the audio; `heard`:
    the customer's voice; `close_code`: once the server has closed."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.heard = bytearray()
        self.is_closed = False

    @property
    def close_code(self) -> int | None:
        return self.socket.close_code

    async def read(self) -> None:
        async for message in self.socket:
            frame = json.loads(message.data)
            told = FROM_SERVER[frame["type"]].model_validate(frame)
            # Nothing is told that the model does not document.
            assert set(frame) <= set(type(told).model_fields), frame
            if frame["type"] == "audio":
                self.heard += base64.b64decode(frame["data"], validate=True)
            else:
                self.frames.append(frame)
            self.changed()
        self.is_closed = True
        self.changed()

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def words(self, speaker: str | None = None) -> list[str]:
        said = self.told("transcript")
        return [one["text"] for one in said if speaker in (None, one["speaker"])]

    async def wait_for(self, kind: str, count: int = 1, within_s: float = WITHIN_S) -> dict[str, Any]:
        """The `count`th frame of this kind, once it has come."""
        await self.until(lambda: len(self.told(kind)) >= count, within_s)
        return self.told(kind)[count - 1]

    async def closed(self, within_s: float = WITHIN_S) -> int | None:
        await self.until(lambda: self.is_closed, within_s)
        return self.close_code

    async def send(self, frame: dict[str, Any]) -> None:
        """A frame that is as documented."""
        FROM_CLIENT[frame["type"]].model_validate(frame)
        await self.socket.send_json(frame)

    async def raw(self, text: str | bytes) -> None:
        """Anything at all."""
        await (self.socket.send_str(text) if isinstance(text, str) else self.socket.send_bytes(text))

    async def refused(self, text: str | bytes) -> dict[str, Any]:
        """The error that this brings."""
        before = len(self.told("error"))
        await self.raw(text)
        return await self.wait_for("error", before + 1)

    async def say(self, text: str) -> str:
        """Typed words, and the customer's answer to them."""
        before = len(self.words("AVATAR"))
        await self.send({"type": "text", "text": text})
        await self.until(lambda: len(self.words("AVATAR")) > before, WITHIN_S)
        return self.words("AVATAR")[-1]

    async def speak(self, pcm: bytes, piece: int = 4800) -> None:
        for at in range(0, len(pcm), piece):
            data = base64.b64encode(pcm[at : at + piece]).decode()
            # As most clients write it: without a blank.
            await self.raw(f'{{"type":"audio","data":"{data}"}}')

    async def event(self, kind: str, **data: Any) -> None:
        await self.send({"type": "event", "data": {"type": kind, "data": data}})

    async def end(self) -> None:
        await self.send({"type": "end_session"})


@asynccontextmanager
async def headset(url: str, ready: bool = True, **headers: str) -> AsyncIterator[Headset]:
    """A client that has connected; `ready`: once the customer is there."""
    async with aiohttp.ClientSession() as http, http.ws_connect(url, headers=headers) as socket:
        client = Headset(socket)
        reading = asyncio.create_task(client.read())
        try:
            if ready:
                await client.wait_for("ready")
            yield client
        finally:
            await socket.close()
            await reading


def socket_url(server: Server, session_id: str, ticket: str | None = None) -> str:
    bare = f"{server.url.replace('http', 'ws', 1)}/ws/sessions/{session_id}"
    return f"{bare}?ticket={ticket}" if ticket is not None else bare


class Office(Desk):
    """REST about simulations as one caller; answers are held against their models."""

    async def create(self, trainee: str | None = "eva", **choices: Any) -> dict[str, Any]:
        body = {"scenarioId": SCENARIO, "traineeId": trainee, "language": "en", **choices}
        wanted = {name: value for name, value in body.items() if value is not None}
        return await self.ask("POST", "/api/sessions", wanted)

    async def session(self, session_id: str) -> dict[str, Any]:
        return await self.ask("GET", f"/api/sessions/{session_id}")

    async def upload(self, session_id: str, events: Sequence[Any], status: int = 200) -> dict[str, Any]:
        return await self.ask("POST", f"/api/sessions/{session_id}/events", {"events": events}, status=status)

    async def file(self, path: str) -> tuple[int, str, bytes]:
        """Status, kind and body of an answer that is no JSON."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(self.server.url + path, headers=self._headers) as answer,
        ):
            doc = route_of("GET", path).doc
            if answer.status == 200:
                assert answer.content_type == doc.answer
            else:
                wire_out.ErrorAnswer.model_validate(await answer.json())
            self.headers = answer.headers.copy()
            return answer.status, answer.content_type, await answer.read()

    async def once(self, session_id: str, **wanted: Any) -> dict[str, Any]:
        """The session, as soon as it is told with these values."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                found = await self.session(session_id)
                if all(found[name] == value for name, value in wanted.items()):
                    return found


async def let_pass(
    clock: ManualClock, server: Server, holds: Callable[[], object], step: float = 0.5, most: float = 120.0
) -> None:
    """Move time on, a little with each request, until this holds."""
    for _ in range(int(most / step)):
        if holds():
            return
        await clock.advance(step)
        await server.get("/health", key=None)
        await _written(server)
    raise AssertionError("it does not come to this")


async def _written(server: Server) -> None:
    """What is said is on disk, so that the clock does not run away from a slow one. A write that is tried
    again waits for the clock."""
    running = [*server.coaching.simulating.sessions._live.values()]
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            for live in running:
                await live._diary.settle()


async def on_disk(
    clock: ManualClock, office: Office, session_id: str, words: Sequence[str]
) -> dict[str, Any]:
    """The session, once everything that was told is stored: writes that a moved clock overtook are tried
    again."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            told = await office.session(session_id)
            if [line["text"] for line in told["transcript"]] == list(words):
                return told
            await clock.advance(0.25)


async def talk(
    clock: ManualClock, server: Server, client: Headset, lines: Sequence[str], pause_s: float = 6.0
) -> None:
    """Typed lines with a pause after each answer, as long as the customer is there to listen."""
    for line in lines:
        before, begun = len(client.words("AVATAR")), clock.now()
        await client.send({"type": "text", "text": line})

        def is_said(before: int = before, begun: float = begun) -> bool:
            answered = len(client.words("AVATAR")) > before
            return bool(client.told("session_ended")) or (answered and clock.now() >= begun + pause_s)

        await let_pass(clock, server, is_said)
        if client.told("session_ended"):
            return


@cache
def recording() -> bytes:
    """Three seconds of speech, 16-bit mono at 24 kHz (tests/data/README.md)."""
    with wave.open(str(RECORDING)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        return file.readframes(file.getnframes())


def catalog(folder: str, name: str) -> dict[str, Any]:
    return tomllib.loads((CATALOG / folder / f"{name}.toml").read_text(encoding="utf-8"))


_PERSONA, _SCENARIO = catalog("personas", "fmc_smoker"), catalog("simulations", "fmc_resistant")


def persona_document() -> dict[str, Any]:
    """Karel, as a client would send him."""
    return deepcopy(_PERSONA)


def scenario_document() -> dict[str, Any]:
    return deepcopy(_SCENARIO)
