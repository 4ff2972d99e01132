"""What the client has played of the customer's voice, by counting: nobody reports it (seed 001).

A client plays what it gets in order and at once, so a piece begins when it arrives or when the one before is
over. That is all one needs to say how far the customer was heard when somebody interrupts.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

MOST_ITEMS = 50
MOST_SPANS = 200


@dataclass(slots=True)
class _Item:
    """`spans`: when a stretch of audio begins to play, and its milliseconds."""

    received_ms: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)

    def heard_ms(self, now: float) -> float:
        return sum(min(max(now - start, 0.0) * 1000, ms) for start, ms in self.spans)

    @property
    def sent_ms(self) -> float:
        return sum(ms for _, ms in self.spans)


@dataclass(slots=True)
class Playback:
    """Times are seconds of the injected clock. `until`: when all that was sent has been played."""

    until: float = 0.0
    _items: OrderedDict[str, _Item] = field(default_factory=OrderedDict)

    def received(self, item_id: str, ms: float) -> None:
        """The model made this much; it is played later."""
        self._item(item_id).received_ms += ms

    def dropped(self, item_id: str, ms: float) -> None:
        """This much will never be sent."""
        self._item(item_id).received_ms -= ms

    def sent(self, item_id: str, ms: float, now: float) -> None:
        item = self._item(item_id)
        start = max(now, self.until)
        self.until = start + ms / 1000
        if item.spans and (len(item.spans) >= MOST_SPANS or start - _end(item.spans[-1]) < 1e-6):
            first, before = item.spans[-1]
            item.spans[-1] = (first, before + ms)
        else:
            item.spans.append((start, ms))

    def ahead_ms(self, now: float) -> float:
        """How much the client has and has not played."""
        return max(0.0, self.until - now) * 1000

    def span(self, item_id: str, now: float) -> tuple[float, float]:
        """When the item begins and ends to be heard, as far as one can tell now."""
        item = self._items.get(item_id)
        if item is None:
            return now, now
        if not item.spans:
            start = max(now, self.until)
            return start, start + item.received_ms / 1000
        waiting_ms = max(0.0, item.received_ms - item.sent_ms)
        return item.spans[0][0], max(now if waiting_ms else 0.0, _end(item.spans[-1])) + waiting_ms / 1000

    def heard_ms(self, item_id: str, now: float) -> int:
        item = self._items.get(item_id)
        return _whole(item.heard_ms(now)) if item is not None else 0

    def made_ms(self, item_id: str) -> int:
        item = self._items.get(item_id)
        return _whole(item.received_ms) if item is not None else 0

    def unheard(self, now: float) -> list[tuple[str, int]]:
        """Items that are not heard to their end, with the milliseconds that were."""
        return [
            (item_id, _whole(item.heard_ms(now)))
            for item_id, item in self._items.items()
            if item.received_ms - item.heard_ms(now) > 1.0
        ]

    def stop(self, now: float) -> None:
        """The client plays no more, and what was not heard never will be."""
        self.until = min(self.until, now)
        for item in self._items.values():
            heard = item.heard_ms(now)
            item.received_ms = heard
            item.spans = [(start, min(max(now - start, 0.0) * 1000, ms)) for start, ms in item.spans]

    def _item(self, item_id: str) -> _Item:
        item = self._items.get(item_id)
        if item is None:
            item = self._items[item_id] = _Item()
            if len(self._items) > MOST_ITEMS:
                self._items.popitem(last=False)
        return item


def _end(span: tuple[float, float]) -> float:
    return span[0] + span[1] / 1000


def _whole(ms: float) -> int:
    """Whole milliseconds, not one less because of how a float is kept."""
    return int(ms + 0.001)
