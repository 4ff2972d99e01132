"""The simulation's pages in front of a stand-in that speaks the wire of simulations (seed 001): as many
sessions as a test wants, and a scripted customer on a real WebSocket. What the real server does with them is
tested in tests/api; here it is what a browser makes of it."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import WSMsgType, web
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from coach_server.api.auth import request_principal
from coach_server.api.console.assets import Assets
from coach_server.api.http import error_middleware
from coach_server.api.practice.pages.page import PracticePages
from coach_server.api.simulation.pages.page import SimulationPages
from coach_server.clock import SystemClock
from coach_server.errors import Conflict, NotFound
from coach_server.services.access import Gate, Role
from tests.browser.console import FLAGS, browsing, chromium
from tests.serving import KEY, node_modules

NARROW = {"width": 360, "height": 780}
WIDE = {"width": 1280, "height": 860}
OUTCOMES = ("converted", "rejected", "walked_away", "compliance_fail")
PERSONAS = (("fmc_smoker", "Karel"), ("velo_user", "Tereza"), ("glo_lapsed", "Martin"), ("it_buyer", "Els"))
FIRST = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
SORTS = {
    "id": "sessionId",
    "trainee": "traineeId",
    "persona": "personaName",
    "outcome": "outcome",
    "score": "score",
    "date": "createdAt",
    "duration": "durationMs",
}


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A session as the list tells it."""
    persona, name = PERSONAS[number % len(PERSONAS)]
    began = FIRST - timedelta(minutes=37 * number)
    told = {
        "sessionId": f"BAT-{number:03}",
        "traineeId": f"REP_{number % 23:02}",
        "teamId": "north",
        "scenarioId": "fmc_resistant",
        "personaId": persona,
        "personaName": name,
        "language": "en",
        "status": "ended",
        "outcome": OUTCOMES[number % len(OUTCOMES)],
        "score": 20 + (number * 7) % 80,
        "finalAttitude": number % 11,
        "createdAt": began.isoformat().replace("+00:00", "Z"),
        "sessionStartUtc": None,
        "sessionEndUtc": None,
        "durationMs": 60_000 + (number * 7919) % 500_000,
    }
    return told | changes


TALK = (
    (1.2, 3.0, "AVATAR", "Hello. One lighter, please, my bus goes in ten minutes."),
    (4.1, 8.9, "TRAINEE", "Good afternoon! Of course. May I ask first whether you are over eighteen?"),
    (9.8, 12.0, "AVATAR", "I am forty-five. Is it not visible?"),
    (13.0, 19.5, "TRAINEE", "We ask everybody. And what do you smoke, if I may ask?"),
    (
        20.4,
        26.0,
        "AVATAR",
        "Marlboro Gold, for twenty years. The smell bothers my wife, otherwise I am happy.",
    ),
    (27.2, 38.0, "TRAINEE", "I understand. So the smell at home is what you would change?"),
    (39.1, 44.0, "AVATAR", "Perhaps. But I tried something electric once and it tasted of nothing."),
    (
        45.2,
        61.0,
        "TRAINEE",
        "That is a fair point. With glo the tobacco is heated, so the taste stays close.",
    ),
    (62.0, 66.5, "AVATAR", "Hm. And what would it cost me?"),
    (67.5, 80.0, "TRAINEE", "The device is on offer for 990. Would you like to try it now?"),
    (81.0, 85.0, "AVATAR", "All right, show me quickly. But if I miss the bus, it is your fault."),
)
MOODS = (
    (0.0, 2.0, "stable"),
    (14.0, 2.5, "rising"),
    (28.0, 4.0, "rising"),
    (46.0, 3.5, "falling"),
    (64.0, 5.5, "rising"),
    (83.0, 7.0, "rising"),
)
QUOTE = "So the smell at home is what you would change?"
SCORE: dict[str, Any] = {
    "overall": 74,
    "categories": {"empathy": 80, "argumentQuality": 70, "persistence": 72, "adaptability": 0},
    "highlights": ["You found out what bothers him."],
    "improvements": ["The age was checked too late.", "Ask about the ritual before you offer something."],
    "summary": "A calm talk that kept to the rules and found the one thing that bothers him.",
    "complianceDetails": {
        "ageVerification": "failed",
        "smokerCheck": "passed",
        "forbiddenWords": [{"word": "healthier", "sequence": 8, "position": 3, "quote": "It is healthier."}],
        "checks": {"age": "late", "user": "passed"},
        "score": 5,
        "penalty": 10,
        "cap": 80,
    },
    "phaseHandling": {
        "skepseBreakthrough": True,
        "interestRecognized": False,
        "weakPointsUsed": ["smell_at_home"],
        "decisionHelped": True,
    },
    "fails": ["The age was checked too late."],
    "outcome": "converted",
    "steps": [
        {"id": "greet", "name": "Greeted properly", "state": "done", "quote": "Good afternoon!", "time": 4.1},
        {
            "id": "objections",
            "name": "Answered what held him back",
            "state": "failed",
            "quote": None,
            "time": None,
        },
        {"id": "close", "name": "Asked for the decision", "state": "open", "quote": None, "time": None},
    ],
    "remarks": [
        {
            "type": "good",
            "id": "weak_point",
            "text": "You found out what bothers him.",
            "quote": QUOTE,
            "speaker": "TRAINEE",
            "time": 27.2,
        },
        {
            "type": "warning",
            "id": "late_check",
            "text": "The age was checked too late.",
            "quote": None,
            "speaker": None,
            "time": None,
        },
        {
            "type": "warning",
            "id": "needs",
            "text": "Ask about the ritual before you offer something.",
            "quote": None,
            "speaker": None,
            "time": None,
        },
    ],
    "weights": {},
    "insufficient": False,
    "provisional": True,
    "source": "rules",
    "language": "en",
}


def session(**changes: Any) -> dict[str, Any]:
    """Everything of one session."""
    told = row(1, outcome="converted", durationMs=86_000)
    del told["score"]
    return (
        told
        | {
            "endTrigger": "end_conversation:converted",
            "exchanges": 6,
            "client": "unity-vr",
            "metadata": {},
            "analysisStatus": "done",
            "dataFilesWritten": True,
            "storeTranscript": True,
            "transcript": [
                {"startTime": start, "endTime": end, "speaker": speaker, "text": text}
                for start, end, speaker, text in TALK
            ],
            "events": [
                {"time": 0.0, "type": "SYSTEM", "data": {"action": "Session_Start"}},
                {
                    "time": 47.0,
                    "type": "VR_INTERACTION",
                    "data": {"interactedObject": "GLO_Device", "action": "PICKUP"},
                },
                {"time": 12.4, "type": "DOB_CHECK", "data": {"entered": "1981", "correct": True}},
                {"time": 70.0, "type": "ERROR", "data": {"reason": "forbidden_word"}},
            ],
            "moodHistory": [round(value) for _, value, _ in MOODS],
            "attitude": [{"time": time, "value": value, "direction": way} for time, value, way in MOODS],
            "supervisorLogs": [
                {"time": 14.0, "kind": "verdict", "attitude": 2.5, "guidance": "Stay curt."},
                {"time": 85.0, "kind": "tool", "reason": "converted"},
            ],
            "score": SCORE,
            "exports": [
                {
                    "exportId": "e1",
                    "status": "sent",
                    "attempts": 1,
                    "createdAt": told["createdAt"],
                    "sentAt": told["createdAt"],
                    "errorCode": None,
                }
            ],
        }
        | changes
    )


SCENARIOS = [
    {
        "id": "fmc_resistant",
        "personaId": "fmc_smoker",
        "title": "A loyal smoker who wants nothing new",
        "description": "Karel came for a lighter. He is polite as long as nobody pushes him.",
        "setting": "A tobacconist's in a shopping arcade in Brno. His bus goes in ten minutes.",
        "goal": "Find out what his cigarettes cost him besides money.",
        "success": ["Age and use are checked before a product is named", "He agrees to try"],
        "languages": ["en", "cs"],
        "persona": {"id": "fmc_smoker", "name": "Karel", "type": "FMC smoker"},
    }
]


def tone(seconds: float = 0.2) -> str:
    """A beep as base64 PCM16 at 24 kHz."""
    count = int(24_000 * seconds)
    values = (int(6000 * math.sin(2 * math.pi * 440 * at / 24_000)) for at in range(count))
    return base64.b64encode(b"".join(value.to_bytes(2, "little", signed=True) for value in values)).decode()


@dataclass
class Stand:
    """What the stand-in tells, and what it was told. `sockets`: clients of the session that are there now.
    `tickets`: that were used, in order. `refuses`: nobody is let in any more."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=session)
    scenarios: list[dict[str, Any]] = field(default_factory=lambda: list(SCENARIOS))
    created: list[dict[str, Any]] = field(default_factory=list)
    frames: list[dict[str, Any]] = field(default_factory=list)
    tickets: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    refuses: bool = False
    port: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def register(self, app: web.Application, gate: Gate) -> None:
        def guarded(handler: Any) -> Any:
            async def handle(request: web.Request) -> web.StreamResponse:
                request_principal(gate, request)
                self.asked.append(str(request.rel_url))
                return handler(request)  # type: ignore[no-any-return]

            return handle

        add = app.router.add_get
        add("/api/dashboard", guarded(self._dashboard))
        add("/api/dashboard/csv", guarded(lambda _: web.Response(text="sessionId\r\nBAT-001\r\n")))
        add("/api/sessions/{id}", guarded(self._session))
        add("/api/sessions/{id}/report", guarded(lambda _: web.Response(body=b"%PDF-1.7 x")))
        add("/api/sessions/{id}/data", guarded(lambda _: web.Response(body=b"PK x")))
        add("/api/scenarios", guarded(lambda _: web.json_response({"scenarios": self.scenarios})))
        app.router.add_post("/api/sessions", self._create)
        add("/ws/sessions/{id}", self._talk)

    # --- REST

    def _dashboard(self, request: web.Request) -> web.Response:
        query = request.query
        found = [one for one in self.rows if _fits(one, query)]
        by = SORTS[query.get("sort", "date")]
        found.sort(
            key=lambda one: (one[by] is not None, one[by]), reverse=query.get("order", "desc") == "desc"
        )
        page, size = int(query.get("page", "1")), 50
        scored = [one["score"] for one in found if one["score"] is not None]
        counted = {name: sum(one["outcome"] == name for one in found) for name in OUTCOMES}
        return _json(
            {
                "sessions": found[(page - 1) * size : page * size],
                "total": len(found),
                "page": page,
                "pageSize": size,
                "pages": max(1, -(-len(found) // size)),
                "stats": {
                    "totalSessions": len(found),
                    "endedSessions": len(found),
                    "scoredSessions": len(scored),
                    "averageScore": round(sum(scored) / len(scored), 1) if scored else None,
                    "conversions": counted["converted"],
                    "conversionRate": counted["converted"] / len(found) if found else None,
                    "totalDurationMs": sum(one["durationMs"] or 0 for one in found),
                    "outcomes": counted,
                },
                "choices": {
                    "trainees": sorted({one["traineeId"] for one in self.rows}),
                    "personas": [{"id": id, "name": name} for id, name in PERSONAS],
                },
            }
        )

    def _session(self, request: web.Request) -> web.Response:
        if request.match_info["id"] != self.detail["sessionId"]:
            raise NotFound("There is no such session.", field="sessionId")
        return _json(self.detail)

    async def _create(self, request: web.Request) -> web.Response:
        self.created.append(await request.json())
        persona = SCENARIOS[0]["persona"] | {"voice": "verse", "initialAttitude": 2}  # type: ignore[operator]
        return _json(
            {
                "sessionId": self.detail["sessionId"],
                # As behind a proxy: the page must stay with its own host.
                "wsUrl": f"wss://elsewhere.example/ws/sessions/{self.detail['sessionId']}?ticket=t0",
                "persona": persona,
                "scenario": self.scenarios[0],
            }
        )

    # --- the socket

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if self.refuses:
            raise Conflict("This session is over.")
        self.tickets.append(request.query.get("ticket", ""))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "ready", "sessionId": "any", "ticket": f"t{len(self.tickets)}"})
        self.sockets.append(socket)
        self._wake()
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                self.frames.append(orjson.loads(frame.data))
                self._wake()
        self.sockets.remove(socket)
        self._wake()
        return socket

    async def tell(self, *frames: Mapping[str, Any]) -> None:
        await self.until(lambda: bool(self.sockets))
        for frame in frames:
            await self.sockets[-1].send_json(dict(frame))

    async def drop(self, code: int = 1011) -> None:
        """The line breaks."""
        await self.until(lambda: bool(self.sockets))
        await self.sockets[-1].close(code=code)

    def sent(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind]

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(15):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()


def _fits(one: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    wanted = (("trainee", "traineeId"), ("persona", "personaId"), ("outcome", "outcome"))
    if any(query.get(name) not in (None, one[key]) for name, key in wanted):
        return False
    since, until = query.get("from"), query.get("to")
    at = datetime.fromisoformat(one["createdAt"])
    return (since is None or at >= datetime.fromisoformat(since)) and (
        until is None or at < datetime.fromisoformat(until)
    )


def _json(document: object) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")


def said(speaker: str, text: str, start: float) -> dict[str, Any]:
    return {
        "type": "transcript",
        "speaker": speaker,
        "text": text,
        "startTime": start,
        "endTime": start + 1.5,
    }


def build(stand: Stand, *, hands_out_tokens: bool) -> web.Application:
    """Reads the pages' files: not to be called in a running loop."""
    gate = Gate([("default", KEY)], "", SystemClock())
    app = web.Application(middlewares=[error_middleware()])
    stand.register(app, gate)
    SimulationPages(gate=gate, hands_out_tokens=hands_out_tokens).register(app)
    PracticePages(gate=gate, hands_out_tokens=hands_out_tokens, node_modules=node_modules()).register(app)
    Assets(node_modules()).register(app)
    return app


@asynccontextmanager
async def standing(stand: Stand, *, hands_out_tokens: bool = True) -> AsyncIterator[Stand]:
    app = await asyncio.to_thread(build, stand, hands_out_tokens=hands_out_tokens)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stand.port = runner.addresses[0][1]
        yield stand
    finally:
        await runner.cleanup()


@asynccontextmanager
async def hearing(**options: Any) -> AsyncIterator[BrowserContext]:
    """A browser with a microphone that beeps: Chromium's own stand-in for a device."""
    flags = [*FLAGS, "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=flags)
        try:
            context = await browser.new_context(locale="en-GB", permissions=["microphone"], **options)
            context.set_default_timeout(20_000)
            yield context
        finally:
            await browser.close()


def token(user: str, role: Role, team: str | None = None) -> str:
    """A user token as the stand-in takes it."""
    gate = Gate([("default", KEY)], "", SystemClock())
    made, _ = gate.issue(gate.first_key(), user_id=user, role=role, team_id=team, ttl_s=600)
    return made


@dataclass
class Looking:
    """A page, and what its browser complained about."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    async def overflow(self) -> int:
        """Pixels that stick out at the side."""
        wide: int = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wide

    async def give_key(self, key: str) -> None:
        await self.page.locator("#access-key").fill(key)
        await self.page.locator("#access-form button").click()


@dataclass
class Talking(Looking):
    """The practice page in front of the stand-in."""

    stand: Stand = field(default_factory=Stand)

    async def start(self) -> None:
        await self.page.locator(".start").first.click()
        await self.connected()

    async def connected(self) -> None:
        await expect(self.page.locator("#connection")).to_have_attribute("data-state", "connected")

    async def utter(self, text: str, start: float) -> None:
        """Type something; the stand-in takes it into the talk."""
        before = len(self.stand.sent("text"))
        await self.page.locator("#words").fill(text)
        await self.page.keyboard.press("Enter")
        await self.stand.until(lambda: len(self.stand.sent("text")) > before)
        await self.stand.tell(said("TRAINEE", text, start))
        await expect(self.page.locator("#lines .line.agent").last).to_contain_text(text)

    async def end(
        self, outcome: str | None = "converted", trigger: str = "end_conversation:converted"
    ) -> None:
        await self.stand.tell({"type": "session_ended", "outcome": outcome, "endTrigger": trigger})
        await expect(self.page.locator("body")).to_have_attribute("data-phase", "ended")


@asynccontextmanager
async def talking(stand: Stand, language: str = "en", **options: Any) -> AsyncIterator[Talking]:
    """The practice page with a talk begun, without a microphone."""
    async with browsing(**{"viewport": WIDE, **options}) as context:
        found = await looking(context, stand.port, f"/practice?lang={language}")
        talk = Talking(found.page, found.complaints, stand)
        await talk.start()
        yield talk


async def looking(context: BrowserContext, port: int, path: str) -> Looking:
    found = Looking(await context.new_page())
    page, heard = found.page, found.complaints
    page.on("console", lambda line: heard.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    await page.goto(f"http://localhost:{port}{path}")
    await expect(page.locator("body")).to_have_attribute("data-ready", "true")
    return found
