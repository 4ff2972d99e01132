"""A small server that speaks the live coach's contract, for testing clients against.

Knobs make it forget, refuse, double or go silent, which the real one must not do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import socketio
from aiohttp import web
from socketio.exceptions import ConnectionRefusedError as Refused

KEY = "k" * 40


@dataclass
class Conversation:
    start: dict[str, Any]
    token: str
    sid: str
    segments: list[dict[str, Any]] = field(default_factory=list)
    log: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    selected: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False


@dataclass
class FakeCoach:
    """`tip_every`: a tip after so many segments. `forget`: texts that are acknowledged and not stored.
    `refuse`: texts answered with this code. `twice`: texts stored twice. `lose_events`: tips are
    numbered, never sent and never replayed."""

    tip_every: int = 3
    forget: tuple[str, ...] = ()
    refuse: dict[str, str] = field(default_factory=dict)
    refuse_once: dict[str, str] = field(default_factory=dict)
    twice: tuple[str, ...] = ()
    lose_events: bool = False
    transcript_status: int = 200
    url: str = ""
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    transports: list[str] = field(default_factory=list)
    conversations: dict[str, Conversation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sio = socketio.AsyncServer(async_mode="aiohttp", async_handlers=False)
        for name in ("connect", "disconnect"):
            self.sio.on(name, getattr(self, name))
        for name in ("START", "END", "RESUME"):
            self.sio.on(f"{name}_CONVERSATION", getattr(self, name.lower()))
        self.sio.on("TRANSCRIPT", self.transcript)
        self.sio.on("OPTION_SELECTED", self.option)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeCoach]:
        app = web.Application()
        self.sio.attach(app)
        app.router.add_get("/api/conversations/{id}/transcript", self.stored)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            for sid in list(self.sio.manager.get_participants("/", None)):
                await self.sio.disconnect(sid[0])
            await self.sio.shutdown()
            await runner.cleanup()

    async def connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        if not isinstance(auth, dict) or auth.get("apiKey") != KEY:
            raise Refused("Authentication failed")
        self.transports.append(self.sio.transport(sid))
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)

    async def disconnect(self, sid: str, reason: str = "") -> None:
        self.open_now -= 1

    async def start(self, sid: str, wish: dict[str, Any]) -> dict[str, Any]:
        if wish["agentId"] == "simulate-13":
            return {"ok": False, "code": "START_ERROR", "message": "Not you."}
        call_id = str(uuid4())
        call = self.conversations[call_id] = Conversation(wish, str(uuid4()), sid)
        await self.tell(call, "CONVERSATION_STARTED", {"conversationId": call_id, "resumeToken": call.token})
        return {"ok": True}

    async def transcript(self, sid: str, said: dict[str, Any]) -> dict[str, Any]:
        call = self.conversations[said["conversationId"]]
        if code := self.refuse_once.pop(said["text"], None):
            return {"ok": False, "code": code}
        if said["text"] in self.refuse:
            return {"ok": False, "code": self.refuse[said["text"]]}
        known = {segment["segmentId"] for segment in call.segments}
        if said["segmentId"] not in known and said["text"] not in self.forget:
            call.segments += [said] * (2 if said["text"] in self.twice else 1)
            if len(call.segments) % self.tip_every == 0:
                await self.tip(call)
        return {"ok": True, "sequence": len(call.segments)}

    async def tip(self, call: Conversation) -> None:
        options = [
            {"label": label, "script": "Say this."} for label in ("Minimal", "Explanative", "Contextual")
        ]
        tip = {
            "recommendationId": str(uuid4()),
            "stage": "DISCOVERY",
            "heading": "Ask more",
            "context": "why",
            "options": options,
            "source": "offline",
            "latencyMs": 12,
        }
        await self.tell(call, "AI_TIP", tip)

    async def option(self, sid: str, chosen: dict[str, Any]) -> None:
        self.conversations[chosen["conversationId"]].selected.append(chosen)

    async def resume(self, sid: str, wish: dict[str, Any]) -> dict[str, Any]:
        call = self.conversations[wish["conversationId"]]
        if wish["resumeToken"] != call.token:
            return {"ok": False, "code": "NOT_FOUND", "message": "No."}
        call.sid = sid
        missed = [entry for entry in call.log if entry[1]["seq"] > wish["lastSeq"]]
        body = {"conversationId": wish["conversationId"], "recovered": True, "missed": len(missed)}
        await self.sio.emit("CONVERSATION_RESUMED", {"type": "CONVERSATION_RESUMED", "payload": body}, to=sid)
        for name, payload in missed:
            await self.sio.emit(name, {"type": name, "payload": payload}, to=sid)
        return {"ok": True}

    async def end(self, sid: str, wish: dict[str, Any]) -> dict[str, Any]:
        call = self.conversations[wish["conversationId"]]
        call.ended = True
        usage = {
            "modelCalls": 2,
            "inputTokens": 900,
            "cachedTokens": 500,
            "outputTokens": 80,
            "costMicroUsd": 1500,
        }
        await self.tell(
            call, "CONVERSATION_ENDED", {"conversationId": wish["conversationId"], "usage": usage}
        )
        return {"ok": True}

    async def tell(self, call: Conversation, name: str, payload: dict[str, Any]) -> None:
        payload["seq"] = len(call.log) + 1
        if name == "AI_TIP" and self.lose_events:
            call.log.append((name, {**payload, "seq": 0}))  # before whatever a client may ask for
            return
        call.log.append((name, payload))
        await self.sio.emit(name, {"type": name, "payload": payload}, to=call.sid)

    async def stored(self, request: web.Request) -> web.Response:
        if request.headers.get("x-api-key") != KEY or self.transcript_status != 200:
            return web.json_response(
                {}, status=401 if self.transcript_status == 200 else self.transcript_status
            )
        call = self.conversations[request.match_info["id"]]
        return web.json_response({"segments": [{"segmentId": s["segmentId"]} for s in call.segments]})
