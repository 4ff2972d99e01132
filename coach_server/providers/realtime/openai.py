"""OpenAI Realtime over aiohttp's WebSocket, GA shape (developers.openai.com, "Realtime API").

    up ──▶ 55 minutes ──▶ Expiring; another line is opened with what was said, and takes over in a pause
    │
    └─▶ down ──▶ Lost(retryable); tried again at once, then after 0.5, 1, 2, 4 s ──▶ Resumed
                                              └─▶ Lost(not retryable), the events end

The vendor ends a session after sixty minutes without a warning, and cannot go on with one on another socket:
a new line is a new session, so settings and history are sent again as items.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson
from loguru import logger
from yarl import URL

from coach_server.clock import Clock
from coach_server.domain.simulation.talk import Role
from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.realtime import (
    BYTES_PER_MS,
    Audio,
    AudioOut,
    Expiring,
    Heard,
    Lost,
    RealtimeEvent,
    RealtimeSpec,
    Resumed,
)
from coach_server.providers.realtime import openai_wire as wire
from coach_server.providers.realtime.carried import Mail, Said
from coach_server.providers.stt import handshake

BASE_URL = "wss://api.openai.com/v1/realtime"
CONNECT_S = 5.0
HEARTBEAT_S = 20.0
STUCK_S = 5.0
HANG_UP_S = 3.0
RENEW_AFTER_S = 55 * 60.0
RENEW_BY_S = 58 * 60.0
WAITS_S = (0.0, 0.5, 1.0, 2.0, 4.0)
# A line that comes up and goes down again and again is a broken one.
MAX_LOSSES = 5
LOSSES_WITHIN_S = 120.0
MAX_EVENTS = 4000
# 3000: wrong key, told after the upgrade; 4000: the shape of the beta, removed in May 2026.
HOPELESS_CLOSES = {1008, 3000, 4000}

_USERS = {Role.TRAINEE: "user", Role.AVATAR: "assistant"}


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a line's life; tests shorten them."""

    connect_s: float = CONNECT_S
    renew_after_s: float = RENEW_AFTER_S
    renew_by_s: float = RENEW_BY_S
    waits_s: tuple[float, ...] = WAITS_S


class OpenAIRealtime:
    """A RealtimeModel. `url` may be ws(s) or http(s); a proxy or a stand-in may take its place."""

    name = "openai"

    def __init__(
        self,
        api_key: str,
        http: aiohttp.ClientSession,
        clock: Clock,
        *,
        model: str,
        transcribe_model: str,
        url: str = BASE_URL,
        times: Times | None = None,
    ) -> None:
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._http = http
        self.clock = clock
        self.model = model
        self.transcribe_model = transcribe_model
        self._url = URL(url).with_query(model=model)
        self.times = times or Times()

    async def connect(self, spec: RealtimeSpec) -> OpenAIConnection:
        talk = OpenAIConnection(self, spec)
        await talk.open()
        return talk

    async def line(self, spec: RealtimeSpec) -> Line:
        """A socket whose settings the vendor has taken. Raises ProviderError; never later than the limit."""
        socket: aiohttp.ClientWebSocketResponse | None = None
        try:
            async with asyncio.timeout(self.times.connect_s):
                socket = await self._upgrade()
                reading = wire.Reading(self.model, self.transcribe_model, spec.reasons)
                line = Line(socket, reading, self.clock)
                await line.send(wire.session_update(spec, self.transcribe_model))
                await line.until_ready()
        except BaseException as error:
            if socket is not None:
                await socket.close()
            if isinstance(error, TimeoutError):
                raise ProviderTimeout("The speech model did not answer in time.", retryable=True) from error
            raise
        line.opened_at = self.clock.now()
        return line

    async def _upgrade(self) -> aiohttp.ClientWebSocketResponse:
        return await handshake.connect(
            self._http,
            self._url,
            headers=self._headers,
            timeout_s=self.times.connect_s,
            heartbeat_s=HEARTBEAT_S,
        )


@dataclass(slots=True)
class Line:
    """One socket and what was read from it. `sending`, `sent`: frames that wait to go out, and that went."""

    socket: aiohttp.ClientWebSocketResponse
    reading: wire.Reading
    clock: Clock
    opened_at: float = 0.0
    wants_answer: bool = False
    sending: int = 0
    sent: int = 0
    sent_before: int = -1

    @property
    def quiet(self) -> bool:
        return not (self.reading.responding or self.reading.user_speaking or self.wants_answer)

    async def send(self, frame: str) -> None:
        """Raises ProviderError. It has no limit of its own, a timer for each frame costs as much as sending
        it: `is_stuck` is asked now and then instead."""
        self.sending += 1
        try:
            await self.socket.send_str(frame)
        except (aiohttp.ClientError, ConnectionError, OSError) as error:
            raise ProviderError("The speech model closed the line.", retryable=True) from error
        finally:
            self.sending -= 1
            self.sent += 1

    def is_stuck(self) -> bool:
        """Whether nothing went out since this was asked last, although something waits."""
        stuck = self.sending > 0 and self.sent == self.sent_before
        self.sent_before = self.sent
        return stuck

    async def hang_up(self) -> None:
        """A vendor that reads nothing does not take our goodbye either."""
        try:
            async with asyncio.timeout(HANG_UP_S):
                await self.socket.close()
        except TimeoutError:
            pass

    async def until_ready(self) -> None:
        while not self.reading.ready:
            message = await self.socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise closed(self.socket)
            for event in self.understand(message.data):
                if isinstance(event, Lost):
                    raise event.error
            if self.reading.refused:
                logger.warning("realtime session refused", code=self.reading.refused)
                raise ProviderError("The speech model did not accept these settings.")

    def understand(self, data: str) -> list[RealtimeEvent]:
        try:
            return self.reading.understand(orjson.loads(data), self.clock)
        except handshake.UNREADABLE:
            error = ProviderError("The speech model sent something unreadable.", retryable=True)
            return [Lost(error, retryable=True)]


def closed(socket: aiohttp.ClientWebSocketResponse) -> ProviderError:
    if socket.close_code in HOPELESS_CLOSES:
        return ProviderError("The speech model refused the connection.")
    return ProviderError("The speech model closed the line.", retryable=True)


class OpenAIConnection:
    """One talk over one line after another. A task of its own reads, renews and opens again; `close` ends
    it."""

    provider = "openai"

    def __init__(self, model: OpenAIRealtime, spec: RealtimeSpec) -> None:
        self._model = model
        self._clock = model.clock
        self._spec = spec
        self._events = Mail(MAX_EVENTS)
        self._said = Said(spec.prior)
        self._steer = ""
        self._line: Line | None = None
        self._task: asyncio.Task[None] | None = None
        self._losses: deque[float] = deque(maxlen=MAX_LOSSES)
        self._waiting = asyncio.Event()
        self._quiet = asyncio.Event()
        self._log = logger.bind(session=spec.session_id, provider=self.provider)

    async def open(self) -> None:
        self._line = await self._filled()
        self._task = asyncio.create_task(self._run(), name=f"realtime {self._spec.session_id}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._hang_up()
        self._events.end()

    def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        return self._events

    async def send_audio(self, audio: Audio) -> None:
        if (line := self._line) is None or not audio.size:
            return
        try:
            await line.send(wire.append(audio))
        except ProviderError:
            await line.hang_up()

    async def send_text(self, text: str) -> None:
        self._said.add("", Role.TRAINEE, text)
        await self._send(wire.item("user", text))

    async def steer(self, text: str) -> None:
        self._steer = text
        await self._send(wire.item("system", text))

    async def respond(self) -> None:
        line = self._line
        if line is None:
            return
        # A second answer beside one under way is refused; it is asked for when that one is over.
        line.wants_answer = True
        if not line.reading.responding:
            await self._ask(line)

    async def truncate(self, item_id: str, heard_ms: int) -> None:
        line = self._line
        made_bytes = line.reading.made_bytes.get(item_id) if line is not None else None
        if made_bytes is None:
            return  # of a line that is gone: the new one never heard of the item
        made = made_bytes // BYTES_PER_MS
        heard = max(0, min(heard_ms, made))
        self._said.cut(item_id, heard, made)
        await self._send(wire.truncate(item_id, heard))

    async def cancel(self) -> None:
        if self._line is not None and self._line.reading.responding:
            await self._send(wire.CANCEL)

    async def _ask(self, line: Line) -> None:
        line.wants_answer = False
        # Set before the vendor says so: a second `respond` must not overtake `response.created`.
        line.reading.responding = True
        await self._send(wire.RESPOND)

    async def _send(self, frame: str) -> None:
        line = self._line
        if line is None:
            return
        try:
            await line.send(frame)
        except ProviderError:
            # The reader sees the closed socket and opens another line.
            await line.hang_up()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = (self._renew(), self._release(), self._watch())
                keepers = [group.create_task(task) for task in tasks]
                await self._read()
                for keeper in keepers:
                    keeper.cancel()
        except* Exception as group_error:
            self._log.opt(exception=group_error).error("realtime line failed")
            await self._events.put(Lost(ProviderError("The speech model's line failed."), retryable=False))
        finally:
            self._events.end()

    async def _read(self) -> None:
        """Until the line is gone for good."""
        while (line := self._line) is not None:
            lost = await self._read_line(line)
            if self._line is not line:
                continue  # renewed meanwhile
            for event in line.reading.rest(self._clock.now()):
                await self._pass_on(event)
            await self._hang_up()
            if not lost.retryable or self._lost_too_often():
                await self._events.put(Lost(lost.error, retryable=False))
                return
            await self._events.put(lost)
            await self._reopen(lost)

    async def _read_line(self, line: Line) -> Lost:
        async for message in line.socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            events = line.understand(message.data)
            if len(events) == 1 and isinstance(events[0], AudioOut) and self._line is line:
                if not self._events.offer(events[0]):
                    await self._events.put(events[0])
                continue
            for event in events:
                if isinstance(event, Lost):
                    return event
                if self._line is line:
                    await self._pass_on(event)
            await self._after(line)
        error = closed(line.socket)
        return Lost(error, retryable=error.retryable)

    async def _pass_on(self, event: RealtimeEvent) -> None:
        if isinstance(event, Heard):
            self._said.add(event.item_id, event.role, event.text)
        await self._events.put(event)

    async def _after(self, line: Line) -> None:
        reading = line.reading
        if reading.refused:
            self._log.warning("realtime error", code=reading.refused)
            if reading.refused == wire.BUSY:
                line.wants_answer = True
            reading.refused = ""
        if line.wants_answer and not reading.responding:
            await self._ask(line)
        if reading.ordering.deadline is not None:
            self._waiting.set()
        if line.quiet:
            self._quiet.set()
        else:
            self._quiet.clear()

    async def _release(self) -> None:
        """Tell words that waited too long for others."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            line = self._line
            due = line.reading.ordering.deadline if line is not None else None
            if line is None or due is None:
                continue
            await self._clock.sleep_until(due)
            if self._line is line:
                for event in line.reading.overdue(self._clock.now()):
                    await self._pass_on(event)
                self._waiting.set()

    async def _watch(self) -> None:
        """Hang up on a vendor that takes no more audio; the reader then opens another line."""
        while True:
            await self._clock.sleep_until(self._clock.now() + STUCK_S)
            line = self._line
            if line is not None and line.is_stuck():
                await line.hang_up()

    async def _renew(self) -> None:
        while True:
            line = self._line
            due = (
                line.opened_at if line is not None else self._clock.now()
            ) + self._model.times.renew_after_s
            await self._clock.sleep_until(due)
            if line is None or self._line is not line:
                continue
            await self._events.put(Expiring())
            try:
                await self._take_over(line)
            except ProviderError as error:
                # The old line goes on; when it ends it is opened again like any lost one.
                self._log.warning("realtime renewal failed", code=error.code)
                await self._clock.sleep_until(self._clock.now() + self._model.times.waits_s[-1] + 30.0)

    async def _take_over(self, old: Line) -> None:
        new = await self._model.line(self._spec)
        try:
            await self._pause(old)
            if self._line is not old:
                raise ProviderError("The line was lost while it was renewed.", retryable=True)
            await self._fill(new)
        except BaseException:
            await new.hang_up()
            raise
        new.wants_answer = not old.quiet
        self._line = new
        await old.hang_up()
        if new.wants_answer:
            await self._ask(new)

    async def _pause(self, line: Line) -> None:
        """Until nobody speaks, or the vendor's limit is near."""
        limit = asyncio.ensure_future(self._clock.sleep_until(line.opened_at + self._model.times.renew_by_s))
        pause = asyncio.ensure_future(self._quiet.wait())
        if line.quiet:
            self._quiet.set()
        try:
            await asyncio.wait({limit, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            limit.cancel()
            pause.cancel()
            await asyncio.gather(limit, pause, return_exceptions=True)

    def _lost_too_often(self) -> bool:
        now = self._clock.now()
        often = len(self._losses) == MAX_LOSSES and now - self._losses[0] < LOSSES_WITHIN_S
        self._losses.append(now)
        return often

    async def _reopen(self, lost: Lost) -> None:
        error = lost.error
        for wait_s in self._model.times.waits_s:
            await self._clock.sleep_until(self._clock.now() + max(wait_s, error.retry_after_s or 0.0))
            try:
                self._line = await self._filled()
            except ProviderError as failed:
                error = failed
                self._log.warning("realtime line not opened", code=failed.code, retryable=failed.retryable)
                if not failed.retryable:
                    break
                continue
            self._log.info("realtime line resumed", items=len(self._said))
            await self._events.put(Resumed())
            return
        await self._events.put(Lost(error, retryable=False))

    async def _filled(self) -> Line:
        line = await self._model.line(self._spec)
        try:
            await self._fill(line)
        except BaseException:
            await line.hang_up()
            raise
        return line

    async def _fill(self, line: Line) -> None:
        """What was said so far and the last word of the director, so that a new line knows where we are."""
        for role, text in self._said:
            await line.send(wire.item(_USERS[role], text))
        if self._steer:
            await line.send(wire.item("system", self._steer))

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.hang_up()
