"""Socket.IO: who is connected, and the one wrapper every event goes through.

Validate, hand over without awaiting anything before (architecture.md §13.1), wait at most a second for the
answer, then the ack; without an ack a refusal is told as the contract wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from pydantic import BaseModel
from socketio.exceptions import ConnectionRefusedError as Refused

from coach_server.api import faults, wire, wire_out
from coach_server.api.auth import handshake_principal
from coach_server.api.engine import CoachSocketServer, wants_ack
from coach_server.clock import Clock
from coach_server.errors import CoachError, RateLimited, Unauthorized
from coach_server.services.access import PERSONAL, Gate, Principal
from coach_server.services.call_actions import Origin
from coach_server.services.limits import TokenBucket

ANSWER_WITHIN_S = 0.9
EVENTS_BURST = 1000
EVENTS_PER_S = 1000 / 60
AUDIO_BURST = 400
AUDIO_PER_S = 60.0
TOLD_EVERY_S = 10.0

# Codes of live-coach.md §5 that services raise themselves; they say more than the event's own code.
_CONTRACT_CODES = frozenset(
    {
        "SERVICE_UNAVAILABLE",
        "TRANSCRIPTION_ERROR",
        "START_TRANSCRIPTION_ERROR",
        "INVALID_AUDIO_DATA",
        "INVALID_AUDIO_TYPE",
        "AUDIO_CHUNK_ERROR",
        "END_TRANSCRIPTION_ERROR",
    }
)

# A token that ended under an open socket starts nothing new; what runs goes on to its end.
_BEGINNINGS = frozenset({"START_CONVERSATION", "START_TRANSCRIPTION"})

Answer = dict[str, Any]
Handler = Callable[["Client", Any], Awaitable[Answer] | Answer]


@dataclass(slots=True)
class Client:
    """One connected socket. `bucket` bounds its events, `audio` its audio chunks."""

    sid: str
    principal: Principal
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(EVENTS_BURST, EVENTS_PER_S))
    audio: TokenBucket = field(default_factory=lambda: TokenBucket(AUDIO_BURST, AUDIO_PER_S))
    told_at: float = 0.0

    @property
    def origin(self) -> Origin:
        return Origin(self.principal, self.sid)


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the contract. `refused_as`: the code of the ERROR that tells a refusal to a client that
    asked for no ack; None: refusals are silent. `is_audio`: the handler takes the data as it came, and
    `model` only describes it. `is_practice`: of the roleplay, so that a join token and a guest may send it.
    `ack` and `answers` (names of events) are for the documents."""

    name: str
    model: type[BaseModel]
    handler: Handler
    refused_as: str | None
    ack: type[wire_out.Accepted] = wire_out.Accepted
    answers: tuple[str, ...] = ()
    is_audio: bool = False
    is_practice: bool = False


class SocketPublisher:
    """How live sessions reach sockets (services.call_session.Publisher)."""

    def __init__(self, sio: CoachSocketServer, clients: Mapping[str, Client]) -> None:
        self._sio = sio
        self._clients = clients

    async def send(self, sid: str, name: str, payload: Mapping[str, Any]) -> None:
        await self._sio.emit(name, {"type": name, "payload": payload}, to=sid)

    async def send_bare(self, sid: str, name: str, payload: Mapping[str, Any]) -> None:
        """Without the envelope: seed 000's clients read the payload itself."""
        await self._sio.emit(name, dict(payload), to=sid)

    async def probe(self, sid: str, timeout_s: float) -> bool:
        return await self._sio.probe(sid, timeout_s)

    def is_open(self, sid: str) -> bool:
        return sid in self._clients


class Sockets:
    """The connected clients and the table of events."""

    def __init__(self, sio: CoachSocketServer, gate: Gate, clock: Clock, *, guests: bool = False) -> None:
        """`guests`: practising needs no credentials here."""
        self._sio = sio
        self._guests = guests
        self._gate = gate
        self._clock = clock
        self._gone: list[Callable[[str], None]] = []
        self.clients: dict[str, Client] = {}
        self.publisher = SocketPublisher(sio, self.clients)
        self.events: dict[str, Event] = {}
        sio.on("connect", self._connect)
        sio.on("disconnect", self._disconnect)

    def add(self, event: Event) -> None:
        self.events[event.name] = event
        self._sio.on(event.name, self._wrapped(event))

    def on_gone(self, callback: Callable[[str], None]) -> None:
        """Call this with the sid of every client that has left. It must not wait."""
        self._gone.append(callback)

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        try:
            principal = handshake_principal(self._gate, auth, environ, guests=self._guests)
        except Unauthorized:
            raise Refused("Authentication failed") from None
        self.clients[sid] = Client(sid, principal)

    async def _disconnect(self, sid: str, reason: str = "") -> None:
        if self.clients.pop(sid, None) is None:
            return
        for callback in self._gone:
            callback(sid)

    def _wrapped(self, event: Event) -> Callable[..., Awaitable[Answer | None]]:
        async def handle(sid: str, data: object = None, *_: object) -> Answer | None:
            asked = wants_ack.get()
            client = self.clients.get(sid)
            if client is None:
                return faults.ack(Unauthorized())
            try:
                self._take(client, event)
                payload = data if event.is_audio else wire.parse(event.model, data)
                pending = event.handler(client, payload)
                answer = pending if isinstance(pending, dict) else await _soon(pending, asked)
            except Exception as error:
                fault = faults.to_coach_error(error)
                if not asked:
                    await self._tell(client, event, fault, data)
                return faults.ack(fault)
            return {"ok": True, **answer}

        return handle

    def _take(self, client: Client, event: Event) -> None:
        bucket = client.audio if event.is_audio else client.bucket
        now = self._clock.now()
        if not bucket.take(now):
            raise RateLimited("Too many events on this connection.", retry_after_s=bucket.retry_after(now))
        if not event.is_practice:
            client.principal.require(*PERSONAL)
        if event.name in _BEGINNINGS and client.principal.has_expired(now):
            raise Unauthorized("The token has expired.")

    async def _tell(self, client: Client, event: Event, fault: CoachError, data: object) -> None:
        """A refusal nobody asked an ack for. The published client shows any ERROR as a lost connection, so
        transcripts are refused silently; a flood is told, but only now and then."""
        code = fault.code if event.refused_as and fault.code in _CONTRACT_CODES else event.refused_as
        now = self._clock.now()
        if isinstance(fault, RateLimited):
            if now - client.told_at < TOLD_EVERY_S:
                return
            client.told_at = now
            code = code or fault.code
        if code is None:
            return
        await self.error(client.sid, fault, code, **_ids(data))

    async def error(self, sid: str, fault: CoachError, code: str, **ids: str | None) -> None:
        """Tell one socket ERROR."""
        payload = faults.error_event(fault, code, self._clock.now(), **ids)
        await self.publisher.send(sid, "ERROR", payload)


async def _soon(pending: Awaitable[Answer], asked: bool) -> Answer:
    """The answer, if it comes within the second that an ack may take; the work itself goes on."""
    future = asyncio.ensure_future(pending)
    if not asked:
        return await future
    done, _ = await asyncio.wait({future}, timeout=ANSWER_WITHIN_S)
    if not done:
        future.add_done_callback(_look)
        raise TimeoutError
    return future.result()


def _look(future: asyncio.Future[Answer]) -> None:
    if not future.cancelled() and future.exception() is not None:
        logger.debug("An answer came too late and was a refusal")


def _ids(data: object) -> dict[str, str | None]:
    """The ids the client named, for it to find the request again."""
    if isinstance(data, Mapping) and isinstance(data.get("payload"), Mapping):
        data = data["payload"]
    if not isinstance(data, Mapping):
        return {}
    named = {name: data.get(name) for name in ("conversationId", "sessionId")}
    return {name: value for name, value in named.items() if isinstance(value, str) and len(value) <= 128}
