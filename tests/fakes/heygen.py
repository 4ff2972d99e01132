"""A stand-in for HeyGen's legacy streaming API: `/v1/streaming.*`, version 2, with the vendor's envelope.

async with FakeHeyGen(clock) as fake:
    fake.script("streaming.new", status(500), hang())   # the next calls of that name, in this order
    ...
    assert fake.bodies("streaming.stop") == [{"session_id": "hg-1"}]
    assert fake.open == []
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from coach_server.clock import Clock
from tests.fakes.waiting import Watched

KEY = "hg-master-key"
IDLE_S = 120
WORDS = "vendor's own words"


@dataclass(frozen=True)
class Step:
    """How one call goes wrong. Build it with the functions below."""

    kind: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: bool = False


def status(code: int, *, vendor_code: int = 10003, retry_after: str | None = None) -> Step:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    body = json.dumps({"code": vendor_code, "data": None, "message": WORDS}).encode()
    return Step("raw", code, headers, body)


def redirect(to: str) -> Step:
    return Step("raw", 307, {"Location": to})


def garbage(body: bytes = b"\x00\xff<html>not json", code: int = 200) -> Step:
    return Step("raw", code, body=body)


def hang(*, after: bool = False) -> Step:
    """Never answers. `after`: it has done what was asked by then."""
    return Step("hang", after=after)


def cut(*, after: bool = False) -> Step:
    """The connection closes in the middle of an answer."""
    return Step("cut", after=after)


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    name: str
    headers: Mapping[str, str]
    body: Any


class FakeVendor(Watched):
    """A server on 127.0.0.1 that keeps every call in `calls` and fails by script."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.url = ""
        self._scripts: defaultdict[str, deque[Step]] = defaultdict(deque)
        self._closing = False

    def script(self, call: str, *steps: Step) -> None:
        self._scripts[call].extend(steps)

    @property
    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def bodies(self, name: str) -> list[Any]:
        return [call.body for call in self.calls if call.name == name]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._closing = True
        self.changed()
        await self._runner.cleanup()
        left = {name: len(steps) for name, steps in self._scripts.items() if steps}
        assert kind is not None or not left, f"steps that no call came for: {left}"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        name = self._name(request)
        body = json.loads(raw) if raw else None
        call = Call(request.method, request.path, name, dict(request.headers), body)
        self.calls.append(call)
        self.changed()
        steps = self._scripts[name]
        if not steps:
            return self._answer(call)
        return await self._fail(steps.popleft(), request, call)

    async def _fail(self, step: Step, request: web.Request, call: Call) -> web.StreamResponse:
        if step.after:
            self._answer(call)
        if step.kind == "hang":
            await self.until(lambda: self._closing, within_s=30)
        if step.kind == "cut":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"code":100,"data":{')
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(status=step.status, headers=step.headers, body=step.body)

    def _name(self, request: web.Request) -> str:
        return request.path.removeprefix("/v1/")

    def _answer(self, call: Call) -> web.Response:
        raise NotImplementedError


@dataclass
class Session:
    id: str
    asked: Mapping[str, Any]
    idle_s: float
    touched_at: float
    started: bool = False
    stopped: bool = False
    said: list[str] = field(default_factory=list)


class FakeHeyGen(FakeVendor):
    """Sessions are `hg-1`, `hg-2`, …; one that is left alone for its idle time by `clock` is reaped.

    `listed_for_ever` plays the known fault of a list that names what `streaming.stop` does not know.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.duration_limit: int | None = 600
        self.changes: dict[str, Any] = {}
        self.listed_for_ever = False
        self.sessions: dict[str, Session] = {}
        self._tokens: set[str] = set()

    @property
    def open(self) -> list[str]:
        """The sessions that bill."""
        return [id for id, session in self.sessions.items() if self._is_open(session)]

    def _is_open(self, session: Session) -> bool:
        return not session.stopped and self.clock.now() - session.touched_at < session.idle_s

    def _answer(self, call: Call) -> web.Response:
        bearer = call.headers.get("Authorization", "").removeprefix("Bearer ")
        if call.headers.get("X-Api-Key") != KEY and bearer not in self._tokens:
            return _refusal(401, 400112)
        if (call.method, call.name) == ("GET", "streaming.list"):
            return self._list()
        if call.method != "POST":
            return _refusal(405, 400405)
        match call.name:
            case "streaming.create_token":
                self._tokens.add(token := f"hg-token-{len(self._tokens)}")
                return _success({"token": token})
            case "streaming.new":
                return self._new(call.body)
        session = self.sessions.get(call.body["session_id"])
        if session is None or not self._is_open(session):
            return _refusal(400, 400004)
        session.touched_at = self.clock.now()
        return self._of_session(session, call)

    def _of_session(self, session: Session, call: Call) -> web.Response:
        match call.name:
            case "streaming.start" if not session.started:
                session.started = True
                return _success({"status": "success"})
            case "streaming.task" if session.started:
                return self._task(session, call.body)
            case "streaming.interrupt" | "streaming.keep_alive" if session.started:
                return _success(None)
            case "streaming.stop":
                session.stopped = True
                self.changed()
                return _success({"status": "success"})
            case _:
                return _refusal(400, 400006)

    def _task(self, session: Session, body: Mapping[str, Any]) -> web.Response:
        if body.keys() != {"session_id", "text", "task_type", "task_mode"} or not body["text"]:
            return _refusal(400, 400001)
        if body["task_type"] not in ("talk", "repeat") or body["task_mode"] not in ("sync", "async"):
            return _refusal(400, 400001)
        session.said.append(body["text"])
        return _success({"task_id": f"task-{len(session.said)}", "duration_ms": 1234.5})

    def _new(self, body: Mapping[str, Any]) -> web.Response:
        voice, idle_s = body.get("voice", {}), body.get("activity_idle_timeout", IDLE_S)
        fits = (
            (body.get("avatar_id") or body.get("avatar_name"))
            and body.get("quality") in ("low", "medium", "high")
            and 0.5 <= voice.get("rate", 1.0) <= 1.5
            and 30 <= idle_s <= 3600
        )
        if body.get("version") != "v2":
            return _refusal(400, 400014)
        if not fits:
            return _refusal(400, 400001)
        session = Session(f"hg-{len(self.sessions) + 1}", body, idle_s, self.clock.now())
        self.sessions[session.id] = session
        data = {
            "session_id": session.id,
            "sdp": None,
            "access_token": f"room.jwt.of-{session.id}",
            "url": "wss://room.livekit.example",
            "ice_servers": None,
            "ice_servers2": None,
            "is_paid": True,
            "livekit_agent_token": "agent.jwt.secret",
            "realtime_endpoint": f"wss://signalling.example/session/{session.id}",
        }
        if self.duration_limit is not None:
            data["session_duration_limit"] = self.duration_limit
        return _success(data | self.changes)

    def _list(self) -> web.Response:
        named = list(self.sessions) if self.listed_for_ever else self.open
        rows = [{"session_id": id, "status": "connected", "api_key_type": "regular"} for id in named]
        return _success({"sessions": rows})


def _success(data: Any) -> web.Response:
    return web.json_response({"code": 100, "data": data, "message": "success"})


def _refusal(code: int, vendor_code: int) -> web.Response:
    return web.json_response({"code": vendor_code, "data": None, "message": WORDS}, status=code)
