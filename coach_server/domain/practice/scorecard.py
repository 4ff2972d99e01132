"""What a talk was worth by a method: the score card. Shapes only; `domain/practice/scoring.py` fills it.

Scores are whole numbers 0..100. Where a talk says nothing about something its score is None, never 0: a zero
is a judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from coach_server.domain.method.methodology import SubScore
from coach_server.domain.method.turns import Quality
from coach_server.domain.transcript import Speaker

LOWEST, HIGHEST = 0, 100


def clamp(score: float) -> int:
    """A score as it is kept: whole, 0..100. NaN is 0."""
    return max(LOWEST, min(HIGHEST, round(score))) if score == score else LOWEST


class Kind(StrEnum):
    GOOD = "good"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The words a judgement rests on. `sequence`: of the turn; `at_ms`: since the start of the talk.
    `criterion`: what is judged: a sub-score, a technique's id, a metric (`metrics.balance`) or a moment's
    id."""

    criterion: str
    quote: str
    speaker: Speaker
    sequence: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A moment that was let go (contract §8). `moment`: its id in the method file; `technique`: what would
    have been right; `better`: a better question; `customer`, `seller`: what was said, where there was
    something."""

    moment: str
    technique: str
    better: str
    weight: float
    customer: Evidence | None = None
    seller: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Highlight:
    """`id` names the rule that found it; `values` fill its wording; `evidence` is what it rests on."""

    kind: Kind
    id: str
    weight: float
    technique: str | None = None
    values: Mapping[str, str | int] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class TechniqueScore:
    """The best use of a technique. `uses`: how often it was used at all."""

    id: str
    score: int
    quality: Quality
    uses: int
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Metric:
    """One of the detailed metrics of contract §8 with its parts; a part that does not apply is None."""

    score: int | None
    parts: Mapping[str, int | float | None]


@dataclass(frozen=True, slots=True)
class ScoreCard:
    """`method`: id@version. `insufficient`: too few turns; then scores are None and lists empty. `phases`:
    the score of each phase of the flow; `technique_scores` by step or detail id, as used. `metrics`:
    `structure`, `attitudes`, `balance`, `impact`. `facts_hash` names transcript and method: the same in, the
    same out."""

    method: str
    insufficient: bool
    overall: int | None
    sub_scores: Mapping[SubScore, int | None]
    phases: Mapping[int, int | None]
    technique_scores: Mapping[str, TechniqueScore]
    metrics: Mapping[str, Metric]
    highlights: tuple[Highlight, ...]
    evidence: tuple[Evidence, ...]
    missed: tuple[Missed, ...]
    next_step: str | None
    """The step to practise next."""
    facts_hash: str
