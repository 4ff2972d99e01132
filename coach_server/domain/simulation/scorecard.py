"""What a simulated talk was worth. Shapes only: `scoring.py` fills them by rules, `blending.py` adds a
model's judgement. Scores are whole numbers 0..100; None where too little was said to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from coach_server.domain.simulation.persona import SimPersona
from coach_server.domain.simulation.talk import (
    ForbiddenUse,
    Outcome,
    Role,
    SessionEvent,
    StepState,
    Utterance,
)


class Category(StrEnum):
    """The categories of seed 001, with its names."""

    EMPATHY = "empathy"
    ARGUMENT_QUALITY = "argumentQuality"
    PERSISTENCE = "persistence"
    ADAPTABILITY = "adaptability"


class Tone(StrEnum):
    GOOD = "good"
    WARNING = "warning"


class CheckResult(StrEnum):
    """`late`: made, but after a product was named."""

    PASSED = "passed"
    LATE = "late"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class TalkRecord:
    """A talk that is over. `attitudes`: after each evaluation, oldest first; `exchanges`: how often the
    customer answered."""

    utterances: tuple[Utterance, ...]
    events: tuple[SessionEvent, ...]
    initial: float
    attitudes: tuple[float, ...]
    outcome: Outcome | None
    exchanges: int

    @property
    def final(self) -> float:
        return self.attitudes[-1] if self.attitudes else self.initial


@dataclass(frozen=True, slots=True)
class SimEvidence:
    """Words that a judgement rests on. `at`: seconds since the session began."""

    criterion: str
    quote: str
    role: Role
    sequence: int
    at: float


@dataclass(frozen=True, slots=True)
class SimRemark:
    """`id`: the rule that found it; `about`: the check, product or forbidden word that it is about. `values`:
    what fills its sentence; `said` is the forbidden word as it was said."""

    tone: Tone
    id: str
    weight: float
    about: str = ""
    values: Mapping[str, int | str] = field(default_factory=dict)
    evidence: SimEvidence | None = None


@dataclass(frozen=True, slots=True)
class ComplianceDetails:
    """`checks` by id. `score`: 100 is spotless, 0 a breach. `penalty`: points it costs the overall score;
    `cap`: what that cannot exceed, whatever else went well."""

    score: int
    checks: Mapping[str, CheckResult]
    words: tuple[ForbiddenUse, ...]
    penalty: int = 0
    cap: int | None = None


@dataclass(frozen=True, slots=True)
class PhaseHandling:
    """Contract simulation.md §6. `weak_points`: ids of those that were touched."""

    breakthrough: bool
    interest_recognised: bool
    weak_points: tuple[str, ...]
    decision_helped: bool


@dataclass(frozen=True, slots=True)
class SimScoreCard:
    """`insufficient`: fewer than two exchanges; then scores are None and there are no remarks. `facts_hash`:
    the same for the same talk with the same persona and trade."""

    insufficient: bool
    overall: int | None
    categories: Mapping[Category, int | None]
    compliance: ComplianceDetails
    phases: PhaseHandling
    steps: tuple[StepState, ...]
    remarks: tuple[SimRemark, ...]
    facts_hash: str


def weights_of(persona: SimPersona) -> dict[Category, float]:
    """The persona's weights, summing up to one; equal ones where it gives none that can be used."""
    given = {category: max(0.0, persona.scoring.get(category, 0.0)) for category in Category}
    total = sum(given.values())
    if total <= 0:
        return dict.fromkeys(Category, 1 / len(Category))
    return {category: weight / total for category, weight in given.items()}
