"""What one utterance means for the sale, as the offline brain sees it. Vocabulary only; no rules here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coach_server.domain.tip import Stage


class Objection(StrEnum):
    PRICE = "price"
    TIMING = "timing"
    TRUST = "trust"
    NEED = "need"
    COMPETITOR = "competitor"
    AUTHORITY = "authority"
    FEAR = "fear"


class Signal(StrEnum):
    """`buying`: the customer leans towards yes. `refusal`: a clear no that must be respected."""

    BUYING = "buying"
    REFUSAL = "refusal"
    QUESTION_OPEN = "question_open"
    QUESTION_CLOSED = "question_closed"
    POSTPONE = "postpone"
    PAIN = "pain"


@dataclass(frozen=True, slots=True)
class TechniqueHit:
    id: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Detection:
    """`stage`: where this utterance belongs, or None when it does not say. `evidence`: the exact words of the
    text that each finding rests on, keyed by its value (`price`, `buying`, …); a finding that came from
    embeddings alone has the whole sentence. `confidence`: 0..1 of the weakest finding reported."""

    stage: Stage | None = None
    objections: tuple[Objection, ...] = ()
    signals: tuple[Signal, ...] = ()
    techniques: tuple[TechniqueHit, ...] = ()
    attitude: str | None = None
    evidence: dict[str, str] | None = None
    confidence: float = 0.0
