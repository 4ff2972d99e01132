"""Final transcripts in the order of the conversation, each once.

A realtime model transcribes the trainee beside its own answer, so the words of a question may come after the
words of the reply to it (contract simulation.md §3). Every item takes its place when the model announces it;
words are released from the front of the line only. An item that never gets its words must not hold up the
talk: the trainee's for a few seconds, the customer's for as long as a long answer may take.

    place  item announced      -> waits for its words
    put    words came          -> released when nothing before it waits
    leave  there are no words  -> gives its place away
    overdue  it waited too long -> the same; its words, should they come, are released at once
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from coach_server.domain.simulation.talk import Role

HOLD_S = {Role.TRAINEE: 4.0, Role.AVATAR: 60.0}
REMEMBERED = 500


@dataclass(frozen=True, slots=True)
class Line:
    """Words of one item. `previous_item_id`: what came before it in the conversation, None at its start."""

    item_id: str
    role: Role
    text: str
    previous_item_id: str | None


@dataclass(slots=True)
class _Place:
    item_id: str
    role: Role
    previous: str | None
    since: float
    text: str | None = None


@dataclass(slots=True)
class Ordering:
    """One connection's line of items. Times are seconds of any clock that does not go back."""

    _line: list[_Place] = field(default_factory=list)
    _done: deque[tuple[str, Role]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _last: str | None = None

    @property
    def deadline(self) -> float | None:
        """When the first item will have waited too long; None when nothing stands behind it."""
        if len(self._line) < 2:
            return None
        first = self._line[0]
        return first.since + HOLD_S[first.role]

    def place(self, item_id: str, role: Role, previous: str | None, now: float) -> None:
        """An item that will have words. `previous` None: at the end. Told again, nothing changes."""
        if self._find(item_id) is not None or (item_id, role) in self._done:
            return
        place = _Place(item_id, role, previous or self._end(), now)
        self._line.insert(self._behind(place.previous), place)

    def put(self, item_id: str, role: Role, text: str, now: float) -> list[Line]:
        """The words of an item; those that may be told now, in order. Words told before are left out."""
        place = self._find(item_id)
        if place is None:
            return self._late(item_id, role, text)
        if place.text is not None:
            return []
        place.text = text
        return self._release(now)

    def leave(self, item_id: str, now: float) -> list[Line]:
        """No words will come for this item (silence, a failure, deleted). Those it has already stay."""
        place = self._find(item_id)
        if place is not None and place.text is None:
            self._line.remove(place)
        return self._release(now)

    def overdue(self, now: float) -> list[Line]:
        return self._release(now)

    def flush(self) -> list[Line]:
        """What has words, although something before it still waits: the connection is gone."""
        lines = [self._told(place) for place in self._line if place.text is not None]
        self._line.clear()
        return lines

    def _release(self, now: float) -> list[Line]:
        lines = []
        while self._line and (self._line[0].text is not None or self._is_late(self._line[0], now)):
            place = self._line.pop(0)
            if place.text is not None:
                lines.append(self._told(place))
        return lines

    def _is_late(self, place: _Place, now: float) -> bool:
        # Alone it holds up nobody.
        return len(self._line) > 1 and now >= place.since + HOLD_S[place.role]

    def _told(self, place: _Place) -> Line:
        self._done.append((place.item_id, place.role))
        self._last = place.item_id
        return Line(place.item_id, place.role, place.text or "", place.previous)

    def _late(self, item_id: str, role: Role, text: str) -> list[Line]:
        if (item_id, role) in self._done:
            return []
        self._done.append((item_id, role))
        return [Line(item_id, role, text, None)]

    def _find(self, item_id: str) -> _Place | None:
        return next((place for place in self._line if place.item_id == item_id), None)

    def _end(self) -> str | None:
        return self._line[-1].item_id if self._line else self._last

    def _behind(self, previous: str | None) -> int:
        """Where in the line: behind `previous`; first when that was told already; last when it is unknown
        (a system item, one that gave its place away)."""
        for index, place in enumerate(self._line):
            if place.item_id == previous:
                return index + 1
        if previous is not None and previous == self._last:
            return 0
        return len(self._line)
