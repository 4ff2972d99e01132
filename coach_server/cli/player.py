"""Plays one call against a server, as a client of the live coach does (contract §4-§5), and measures it.

Every transcript carries a segmentId and asks for an ack, so that after a cut the unacknowledged ones are sent
again without being stored twice. Reconnecting is done here and not by the library, because a new socket has
to resume the conversation before it goes on.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
import socketio
from socketio.exceptions import ConnectionError as CannotConnect
from socketio.exceptions import SocketIOError

from coach_server.clock import Clock, millis
from coach_server.domain.transcript import Speaker
from coach_server.errors import CoachError, ProviderTimeout, Unavailable
from coach_server.services.recordings import Turn

CONNECT_S = 10.0
STARTED_S = 5.0
ANSWER_S = 10.0
CUT_WITHIN_S = 0.02
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 2.0
RECONNECT_TRIES = 15
# Refusals that ask to be tried again; the segmentId keeps what was stored after all from being stored twice.
RETRYABLE = ("STORAGE_FAILED", "SERVICE_UNAVAILABLE")
SEGMENT_TRIES = 4
_SPEAKERS = {Speaker.AGENT: "agent", Speaker.CUSTOMER: "caller"}

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to play, with which key."""

    url: str
    key: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How to play. `warmup_ms`/`interval_ms` None: the server's own. `speed` 2 halves each pause. `drop`:
    the chance, 0..1, that the socket is cut after a turn; `seed` makes the cuts the same each time.
    `linger_s`: how long to stay after the last word, so that a last tip can come."""

    turns: Sequence[Turn]
    mode: str = "auto"
    language: str = "en"
    metadata: Mapping[str, str] = field(default_factory=dict)
    speed: float = 1.0
    warmup_ms: int | None = None
    interval_ms: int | None = None
    drop: float = 0.0
    seed: int = 0
    linger_s: float = 0.0


@dataclass(slots=True)
class Played:
    """What one call came to. `acked` maps a segmentId to its ack time in seconds; `refused` holds codes.
    By their seq, `missing` counts server events that never came and `doubled` those that came twice."""

    conversation_id: str = ""
    sent: int = 0
    acked: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    retried: int = 0
    unanswered: int = 0
    tips: list[Payload] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    cuts: int = 0
    resumed: int = 0
    missing: int = 0
    doubled: int = 0
    ended: Payload = field(default_factory=dict)
    failure: str | None = None


class Lost(Unavailable):
    """The connection went away while something was waited for."""


# Called with what happens, for the one who watches: ("turn", Turn), ("tip", payload), ("cut", {}), …
Watcher = Callable[[str, Any], None]


def nobody(what: str, value: Any) -> None:
    """Watches nothing."""


class Player:
    def __init__(self, target: Target, plan: Plan, clock: Clock, watch: Watcher = nobody) -> None:
        self._target = target
        self._plan = plan
        self._clock = clock
        self._watch = watch
        self._played = Played()
        self._random = random.Random(plan.seed)
        self._waiting: dict[str, asyncio.Future[Payload]] = {}
        self._pending: dict[str, tuple[Payload, float]] = {}
        self._tries: Counter[str] = Counter()
        self._all_answered = asyncio.Event()
        self._seen: set[int] = set()
        self._last_seq = 0
        self._resume_token: str | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()
        self._refusal = ""
        self._web: aiohttp.ClientSession
        self._sio: socketio.AsyncClient

    async def play(self) -> Played:
        """The whole call. Raises Unavailable only when there was no connection to begin with."""
        # The library forgets to close a session of its own when a connection is refused.
        async with aiohttp.ClientSession() as web:
            self._web = web
            self._sio = self._socket()
            await self._connect_first()
            return await self._play()

    async def _play(self) -> Played:
        try:
            await self._start()
            for turn in self._plan.turns:
                await self._clock.sleep_until(self._clock.now() + turn.pause_ms / 1000 / self._plan.speed)
                await self._say(turn)
                if self._plan.drop and self._random.random() < self._plan.drop:
                    await self._cut()
            if self._plan.linger_s:
                await self._clock.sleep_until(self._clock.now() + self._plan.linger_s)
            await self._drain()
            await self._end()
        except (CoachError, SocketIOError) as error:
            self._played.failure = getattr(error, "message", None) or "the connection was lost"
        finally:
            await self._close()
        self._played.unanswered = len(self._pending)
        if self._seen:
            self._played.missing = max(self._seen) - len(self._seen)
        return self._played

    def _socket(self) -> socketio.AsyncClient:
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=self._web)
        for name in ("CONVERSATION_STARTED", "CONVERSATION_RESUMED", "CONVERSATION_ENDED"):
            sio.on(name, self._answered(name))
        sio.on("AI_TIP", self._tip)
        sio.on("ERROR", self._error)
        sio.on("connect_error", self._refused)
        sio.on("*", self._other)
        self._gone = asyncio.Event()
        sio.on("disconnect", self._lost(self._gone))
        return sio

    def _lost(self, gone: asyncio.Event) -> Callable[..., Any]:
        async def handler(*_: Any) -> None:
            gone.set()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Lost("the connection was lost"))

        return handler

    async def _connect_first(self) -> None:
        try:
            await self._open()
        except (CannotConnect, TimeoutError) as error:
            reason = self._refusal or _reason(error)
            raise Unavailable(f"cannot connect to {self._target.url}: {reason}") from None

    async def _open(self) -> None:
        async with asyncio.timeout(CONNECT_S):
            await self._sio.connect(
                self._target.url,
                auth={"apiKey": self._target.key},
                transports=["websocket"],
                wait_timeout=CONNECT_S,
            )

    async def _start(self) -> None:
        plan = self._plan
        wish: Payload = {
            "agentId": f"simulate-{plan.seed}",
            "metadata": {"source": "coach-simulate", **plan.metadata},
            "mode": plan.mode,
            "language": plan.language,
            "idempotencyKey": str(uuid4()),
        }
        if plan.warmup_ms is not None:
            wish["warmupMs"] = plan.warmup_ms
        if plan.interval_ms is not None:
            wish["intervalMs"] = plan.interval_ms
        started = await self._ask("START_CONVERSATION", wish, "CONVERSATION_STARTED", STARTED_S)
        self._played.conversation_id = str(started.get("conversationId", ""))
        self._resume_token = started.get("resumeToken")
        self._watch("started", started)

    async def _say(self, turn: Turn) -> None:
        self._watch("turn", turn)
        self._played.sent += 1
        segment: Payload = {
            "conversationId": self._played.conversation_id,
            "segmentId": str(uuid4()),
            "speaker": _SPEAKERS[turn.speaker],
            "text": turn.text,
            "isFinal": True,
            "timestamp": millis(self._clock.now()),
        }
        if turn.confidence is not None:
            segment["confidence"] = turn.confidence
        self._all_answered.clear()
        await self._send(segment)

    async def _send(self, segment: Payload) -> None:
        """A segment that cannot leave now leaves after the resume, for it is still pending."""
        try:
            await self._emit(segment)
        except SocketIOError:
            await self._come_back()

    async def _emit(self, segment: Payload) -> None:
        known = segment["segmentId"]
        self._tries[known] += 1
        # Measured from the last sending: the time a cut took is not the server's.
        self._pending[known] = (segment, self._clock.now())
        await self._sio.emit("TRANSCRIPT", segment, callback=lambda *said: self._acked(known, said))

    async def _again(self, segment: Payload) -> None:
        self._played.retried += 1
        await self._clock.sleep_until(self._clock.now() + RETRY_FIRST_S * self._tries[segment["segmentId"]])
        try:
            await self._emit(segment)
        except SocketIOError:
            return  # still pending: it goes with the resume

    def _acked(self, segment_id: str, said: Sequence[Any]) -> None:
        pending = self._pending.pop(segment_id, None)
        if pending is not None:
            answer = said[0] if said and isinstance(said[0], Mapping) else {}
            code = str(answer.get("code", "no code"))
            if answer.get("ok") is True:
                self._played.acked[segment_id] = self._clock.now() - pending[1]
            elif code in RETRYABLE and self._tries[segment_id] < SEGMENT_TRIES:
                self._pending[segment_id] = pending
                self._start_job(self._again(pending[0]), "send again")
            else:
                self._played.refused.append(code)
        if not self._pending:
            self._all_answered.set()

    async def _drain(self) -> None:
        """Wait until every segment is answered; what is not in time counts as unanswered."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while self._pending:
                    if not self._sio.connected:
                        await self._come_back()
                    await _first(self._all_answered, self._gone)
        except TimeoutError:
            return

    async def _end(self) -> None:
        wish = {"conversationId": self._played.conversation_id}
        while not self._played.ended:
            if not self._sio.connected:
                # The end may have been heard before the cut; then its answer is among the missed events.
                await self._come_back()
                continue
            try:
                await self._ask("END_CONVERSATION", wish, "CONVERSATION_ENDED", ANSWER_S)
            except Lost:
                continue
        self._watch("ended", self._played.ended)

    async def _cut(self) -> None:
        """A network fault: the line goes dead without a goodbye, and the client comes back after a moment.
        It strikes at any moment around the ack, so that words, acks and events are lost in turn."""
        await self._clock.sleep_until(self._clock.now() + self._random.random() * CUT_WITHIN_S)
        self._played.cuts += 1
        self._watch("cut", {})
        if self._sio.connected:
            self._sio.eio.ws.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            await self._gone.wait()
        await self._come_back()

    async def _come_back(self) -> None:
        delay = RETRY_FIRST_S
        for _ in range(RECONNECT_TRIES):
            await self._clock.sleep_until(self._clock.now() + delay * (0.5 + self._random.random()))
            delay = min(delay * 2, RETRY_MOST_S)
            try:
                await self._reopen()
                return
            except (SocketIOError, TimeoutError, ProviderTimeout, Lost):
                continue
        raise Unavailable("the connection was lost and did not come back")

    async def _reopen(self) -> None:
        await self._sio.shutdown()
        self._sio = self._socket()
        await self._open()
        if not self._played.conversation_id:
            return
        wish = {
            "conversationId": self._played.conversation_id,
            "resumeToken": self._resume_token,
            "lastSeq": self._last_seq,
        }
        resumed = await self._ask("RESUME_CONVERSATION", wish, "CONVERSATION_RESUMED", ANSWER_S)
        self._played.resumed += 1
        self._watch("resumed", resumed)
        for segment, _ in list(self._pending.values()):
            await self._emit(segment)

    async def _ask(self, event: str, wish: Payload, answer: str, seconds: float) -> Payload:
        """Send, and wait for the answering event. Raises Unavailable with the server's reason if refused."""
        waiting: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = waiting
        try:
            async with asyncio.timeout(seconds):
                await self._sio.emit(event, wish, callback=lambda *said: _refuse(waiting, event, said))
                return await waiting
        except TimeoutError:
            raise ProviderTimeout(f"no {answer} within {seconds:g} s") from None
        finally:
            self._waiting.pop(answer, None)

    def _answered(self, name: str) -> Callable[..., Any]:
        async def handler(message: Any = None) -> None:
            payload = self._payload(message)
            if name == "CONVERSATION_ENDED":
                self._played.ended = payload
            waiting = self._waiting.get(name)
            if waiting is not None and not waiting.done():
                waiting.set_result(payload)

        return handler

    async def _error(self, message: Any = None) -> None:
        payload = self._payload(message)
        self._played.errors.append(str(payload.get("code", "no code")))
        self._watch("error", payload)

    async def _refused(self, reason: Any = None) -> None:
        """The server's own words for a refused connection; the library's error does not carry them."""
        said = reason.get("message") if isinstance(reason, Mapping) else reason
        self._refusal = str(said)[:200] if said else ""

    async def _other(self, event: str, message: Any = None) -> None:
        self._payload(message)

    def _payload(self, message: Any) -> Payload:
        """What stands in the envelope; notes the seq of the conversation's events."""
        payload = message.get("payload") if isinstance(message, Mapping) else None
        if not isinstance(payload, dict):
            return {}
        seq = payload.get("seq")
        if isinstance(seq, int):
            if seq in self._seen:
                self._played.doubled += 1
            self._seen.add(seq)
            while self._last_seq + 1 in self._seen:
                self._last_seq += 1
        return payload

    async def _tip(self, message: Any = None) -> None:
        payload = self._payload(message)
        self._played.tips.append(payload)
        self._watch("tip", payload)
        if self._plan.mode == "event-driven":
            self._start_job(self._choose(payload), "choose an option")

    def _start_job(self, work: Coroutine[Any, Any, None], name: str) -> None:
        job = asyncio.create_task(work, name=name)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _choose(self, tip: Payload) -> None:
        wish = {
            "conversationId": self._played.conversation_id,
            "recommendationId": tip.get("recommendationId"),
            "selectedOption": self._random.randint(1, 3),
        }
        try:
            await self._sio.emit("OPTION_SELECTED", wish)
        except SocketIOError:
            return  # cut at this very moment: nothing was chosen, the next tip will be

    async def _close(self) -> None:
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._sio.shutdown()


async def _first(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _refuse(waiting: asyncio.Future[Payload], event: str, said: Sequence[Any]) -> None:
    answer = said[0] if said and isinstance(said[0], Mapping) else {}
    if answer.get("ok") is False and not waiting.done():
        waiting.set_exception(
            Unavailable(f"{event} was refused: {answer.get('code')} {answer.get('message')}")
        )


def _reason(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else "no answer in time"
    return text[:200]
