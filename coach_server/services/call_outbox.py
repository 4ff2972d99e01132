"""What a call tells its client: numbered, in order, once, and again to whoever resumes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

LOG_KEPT = 1000
MISSED_TIP_FRESH_S = 120.0


class Publisher(Protocol):
    """How a session reaches a client's socket."""

    async def send(self, sid: str, name: str, payload: Mapping[str, Any]) -> None:
        """Hand one event to a socket; never waits for a slow one."""
        ...

    async def probe(self, sid: str, timeout_s: float) -> bool:
        """Whether the socket answers an immediate ping."""
        ...

    def is_open(self, sid: str) -> bool: ...


@dataclass(slots=True)
class Outgoing:
    """An event for the client. `ready` once it is on disk, or was found not to be storable."""

    seq: int
    name: str
    payload: dict[str, Any]
    at: float
    ready: bool = False


class Outbox:
    """Bound to at most one socket. Events leave in the order of their numbers, each when it is ready."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: deque[Outgoing] = deque()
        self._log: deque[Outgoing] = deque(maxlen=LOG_KEPT)
        self._missed_tip: Outgoing | None = None
        self._sent_seq = 0
        self.sid: str | None = None
        self.seq = 0

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def number(self, name: str, payload: dict[str, Any], at: float) -> Outgoing:
        """Give an event the next number and its place in the order."""
        self.seq += 1
        payload["seq"] = self.seq
        event = Outgoing(self.seq, name, payload, at)
        self._waiting.append(event)
        return event

    def remember(self, event: Outgoing) -> None:
        """Keep an event in memory for whoever resumes: for calls of which nothing is stored."""
        self._log.append(event)

    # --- the socket

    def bind(self, sid: str, now: float) -> bool:
        """From now on this socket hears the call, and first a fresh tip that nobody was there for. False when
        it did so already."""
        if self.sid == sid:
            return False
        self.sid = sid
        self._sent_seq = self._waiting[0].seq - 1 if self._waiting else self.seq
        missed, self._missed_tip = self._missed_tip, None
        if missed is not None and now - missed.at <= MISSED_TIP_FRESH_S:
            self._sent_seq = missed.seq - 1
            self._waiting.appendleft(missed)
        return True

    def unbind(self) -> None:
        self.sid = None

    async def flush(self) -> None:
        while self._waiting and self._waiting[0].ready:
            await self._send(self._waiting.popleft())

    async def _send(self, event: Outgoing) -> None:
        if self.sid is None:
            if event.name == "AI_TIP":
                self._missed_tip = event
        elif event.seq > self._sent_seq:
            self._sent_seq = event.seq
            await self._publisher.send(self.sid, event.name, event.payload)

    async def tell(self, name: str, payload: Mapping[str, Any]) -> None:
        """An answer outside the order, without a number of its own."""
        if self.sid is not None:
            await self._publisher.send(self.sid, name, payload)

    # --- resuming

    def remembered(self, last_seq: int) -> tuple[list[Outgoing], bool]:
        """The events after `last_seq` from memory, and whether none is missing."""
        kept = [event for event in self._log if event.seq > last_seq and event.ready]
        complete = last_seq >= self.seq or (bool(self._log) and self._log[0].seq <= last_seq + 1)
        return kept, complete

    async def replay(self, events: list[Outgoing], last_seq: int) -> None:
        """Send what was missed, each once. What is still on its way to the disk follows by itself."""
        self._missed_tip = None
        for event in events:
            await self.tell(event.name, event.payload)
        self._sent_seq = events[-1].seq if events else min(last_seq, self.seq)


def note_when_stored(event: Outgoing, stored: asyncio.Future[None], wake: Any) -> None:
    """Mark the event ready when `stored` is done, also when it failed: the client is told all the same."""

    def note(done: asyncio.Future[None]) -> None:
        if not done.cancelled():
            done.exception()
        event.ready = True
        wake()

    stored.add_done_callback(note)
