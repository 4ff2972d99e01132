"""What people said, in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Speaker(StrEnum):
    """Who spoke. On the live coach's wire the customer is called `caller`; `api/wire.py` translates."""

    AGENT = "agent"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class Utterance:
    """One final segment. `sequence` counts from 1 within the session; times are seconds since the epoch."""

    sequence: int
    speaker: Speaker
    text: str
    said_at: float
    heard_at: float
    segment_id: str | None = None
    confidence: float | None = None


@dataclass(slots=True)
class Transcript:
    """The utterances of a session kept in memory; the store holds all of them."""

    keep: int = 200
    utterances: list[Utterance] = field(default_factory=list)
    last_sequence: int = 0

    def append(self, utterance: Utterance) -> None:
        self.utterances.append(utterance)
        self.last_sequence = utterance.sequence
        if len(self.utterances) > 2 * self.keep:
            del self.utterances[: -self.keep]

    def last(self, count: int) -> tuple[Utterance, ...]:
        return tuple(self.utterances[-count:])

    def since(self, sequence: int) -> tuple[Utterance, ...]:
        return tuple(u for u in self.utterances if u.sequence > sequence)
