"""/ws/sessions/{id}: the plain WebSocket of a simulation (seed 001). JSON text frames both ways.

Refusals before the upgrade are ordinary HTTP answers; after it a frame `{type: "error"}` and a close code:
1000 over, 1008 taken over or not allowed, 1012 the server restarts, 1013 try again: no customer can be had
now, or another instance has the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from coach_server.api import faults
from coach_server.api.auth import Origins, request_principal
from coach_server.clock import Clock
from coach_server.errors import CoachError, Forbidden, Invalid, RateLimited, Unauthorized
from coach_server.services.access import Gate, Principal
from coach_server.services.limits import TokenBucket
from coach_server.services.simulation.messages import error_frame
from coach_server.services.simulation.sessions import Simulations

# Base64 of 64 kB of audio, and what stands round it.
MAX_FRAME = 96 * 1024
HEARTBEAT_S = 25.0
EVENTS_BURST = 1000
EVENTS_PER_S = 1000 / 60
# Audio beside which something else is told; or something else that looks like it.
ODD_AUDIO_BURST = 1000
ODD_AUDIO_PER_S = 60
_NOT_TEXT = Invalid("Frames must be JSON text.")


class Relay:
    def __init__(self, simulations: Simulations, gate: Gate, origins: Origins, clock: Clock) -> None:
        self._simulations = simulations
        self._gate = gate
        self._origins = origins
        self._clock = clock

    def register(self, app: web.Application) -> None:
        app.router.add_get("/ws/sessions/{id}", self.connect)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        if not self._origins.allows(request.headers.get("Origin")):
            raise Forbidden("This origin may not connect.")
        session_id = request.match_info["id"]
        principal, ticket = self._who(request)
        next_ticket = await self._simulations.admit(session_id, principal, ticket)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_FRAME, compress=False)
        await socket.prepare(request)
        wire = SocketWire(socket, self._clock)
        code = await self._carry(session_id, wire, next_ticket)
        await socket.close(code=code)
        return socket

    def _who(self, request: web.Request) -> tuple[Principal | None, str | None]:
        """The caller's credentials, or the ticket of the `wsUrl`: a browser can set no headers here."""
        ticket = request.query.get("ticket")
        try:
            return request_principal(self._gate, request), ticket
        except Unauthorized:
            if ticket is None:
                raise
            return None, ticket

    async def _carry(self, session_id: str, wire: SocketWire, next_ticket: str) -> int:
        try:
            await self._simulations.carry(session_id, wire, next_ticket)
        except ConnectionError:
            return WSCloseCode.GOING_AWAY
        except Exception as error:
            fault = faults.to_coach_error(error)
            # The ticket that this client came with is used up.
            again = {"ticket": next_ticket} if fault.retryable else {}
            await wire.tell(fault, **again)
            if self._simulations.is_draining:
                return WSCloseCode.SERVICE_RESTART
            return WSCloseCode.TRY_AGAIN_LATER if fault.retryable else WSCloseCode.POLICY_VIOLATION
        return WSCloseCode.SERVICE_RESTART if self._simulations.is_draining else WSCloseCode.OK


class SocketWire:
    """One client's socket (services.simulation.voice_events.ClientWire). Frames that are no audio are
    counted: 1000 a minute."""

    def __init__(self, socket: web.WebSocketResponse, clock: Clock) -> None:
        self._socket = socket
        self._clock = clock
        self._events = TokenBucket(EVENTS_BURST, EVENTS_PER_S)
        self._odd_audio = TokenBucket(ODD_AUDIO_BURST, ODD_AUDIO_PER_S)

    async def __aiter__(self) -> AsyncIterator[str]:
        async for frame in self._socket:
            if frame.type is WSMsgType.TEXT:
                if await self._may_pass(self._bucket_of(frame.data)):
                    yield frame.data
            elif frame.type is WSMsgType.BINARY:
                if await self._may_pass(self._events):
                    await self.tell(_NOT_TEXT)
            else:
                return

    async def send(self, frame: str) -> None:
        """Raises ConnectionError when the client is gone."""
        await self._socket.send_str(frame)

    async def tell(self, fault: CoachError, **more: str) -> None:
        try:
            await self.send(orjson.dumps(error_frame(fault) | more).decode())
        except ConnectionError:
            return

    def _bucket_of(self, frame: str) -> TokenBucket | None:
        """Not parsed: most frames are audio, and that is bounded by how fast one can speak. Four texts,
        two of them these, make no other message that is accepted; with more it may be anything."""
        if '"audio"' not in frame[:40] and '"audio"' not in frame[-40:]:
            return self._events
        is_plain = frame.count('"') == 8 and '"data"' in frame
        return None if is_plain else self._odd_audio

    async def _may_pass(self, bucket: TokenBucket | None) -> bool:
        now = self._clock.now()
        if bucket is None or bucket.take(now):
            return True
        await self.tell(RateLimited("Too many messages.", retry_after_s=bucket.retry_after(now)))
        return False
