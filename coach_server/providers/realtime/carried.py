"""What a talk carries from one line of its model to the next: what was said, and events on their way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from coach_server.domain.simulation.bargein import heard_part
from coach_server.domain.simulation.talk import Role
from coach_server.providers.realtime import RealtimeEvent

MAX_PRIOR = 60


@dataclass(slots=True)
class _Turn:
    item_id: str
    role: Role
    text: str


class Said:
    """The last things said, for a line that must know them; what was cut off is kept as it was heard."""

    def __init__(self, prior: tuple[tuple[Role, str], ...]) -> None:
        self._turns: deque[_Turn] = deque((_Turn("", role, text) for role, text in prior), maxlen=MAX_PRIOR)
        self._cuts: dict[str, tuple[int, int]] = {}

    def add(self, item_id: str, role: Role, text: str) -> None:
        if (cut := self._cuts.pop(item_id, None)) is not None:
            text = heard_part(text, *cut)
        if text:
            self._turns.append(_Turn(item_id, role, text))

    def cut(self, item_id: str, heard_ms: int, made_ms: int) -> None:
        for turn in self._turns:
            if turn.item_id == item_id:
                turn.text = heard_part(turn.text, heard_ms, made_ms) or "…"
                return
        if len(self._cuts) < MAX_PRIOR:
            self._cuts[item_id] = (heard_ms, made_ms)

    def __iter__(self) -> Iterator[tuple[Role, str]]:
        return iter([(turn.role, turn.text) for turn in self._turns])

    def __len__(self) -> int:
        return len(self._turns)


@dataclass(slots=True)
class Mail:
    """Events on their way to the one reader. Full, it makes the socket's reader wait, and so the vendor."""

    limit: int
    _events: deque[RealtimeEvent] = field(default_factory=deque)
    _ended: bool = False
    _reader: asyncio.Future[None] | None = None
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, event: RealtimeEvent) -> bool:
        """Whether there was room for it."""
        if len(self._events) >= self.limit:
            return False
        self._events.append(event)
        self._wake()
        return True

    async def put(self, event: RealtimeEvent) -> None:
        while not self.offer(event):
            self._room.clear()
            await self._room.wait()

    def __aiter__(self) -> Mail:
        return self

    async def __anext__(self) -> RealtimeEvent:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            waiting = self._reader = asyncio.get_running_loop().create_future()
            try:
                await waiting
            finally:
                if self._reader is waiting:  # another reader may have come meanwhile
                    self._reader = None
        if not self._room.is_set():
            self._room.set()
        return self._events.popleft()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
