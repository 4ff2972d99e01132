"""What the server counts about its own work; `api/metrics.py` shows it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from coach_server.domain.tip import ShownTip

LATENCY_BUCKETS_MS = (10, 25, 50, 100, 250, 500, 1000, 1500, 2000, 2500, 3000, 3500, 5000)


@dataclass(slots=True)
class Latencies:
    """How many took at most so many milliseconds; `LATENCY_BUCKETS_MS` and one open bucket."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_MS) + 1))
    total_ms: int = 0

    def add(self, ms: int) -> None:
        self.buckets[bisect_left(LATENCY_BUCKETS_MS, ms)] += 1
        self.total_ms += ms


@dataclass(slots=True)
class Figures:
    """`tips` by (source, trigger, degraded); `ended` calls by status."""

    tips: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    tip_latency: dict[str, Latencies] = field(default_factory=dict)
    started: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    utterances: int = 0

    def tip_shown(self, shown: ShownTip) -> None:
        source = shown.tip.source.value
        self.tips[source, shown.trigger.value, shown.tip.degraded] += 1
        self.tip_latency.setdefault(source, Latencies()).add(shown.latency_ms)
