"""Drills: replays of 60 to 90 seconds of the moments that were let go, against that customer's own words.

One to three for each talk that could be judged: the heaviest missed moments, one a technique; when nothing
was missed, the weakest technique that was used, and when none was used, the next step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from coach_server.domain.method.methodology import Methodology, say_all
from coach_server.domain.method.turns import RANK, Quality, TechniqueUse, Turn
from coach_server.domain.practice.missed import sequence_of
from coach_server.domain.practice.scorecard import Missed, ScoreCard
from coach_server.domain.wording import clip, one_line

MOST_DRILLS = 3
MOST_LINES, FEWEST_LINES = 4, 2
LINE_CHARS = 240
SHORTEST_S, LONGEST_S, LINE_S = 60, 90, 10
# What a drill is about that rests on no missed moment.
WEAKEST = "weakest"
_TELLING_WORDS = 3


@dataclass(frozen=True, slots=True)
class DrillSpec:
    """`moment`: its id in the method file, or `weakest`. `attitude`: how the customer stood there. `phase`:
    of the moment. `customer_lines`: what the customer said around it, in order, shortened; `seller_line`:
    what was answered, empty where nothing was; `better`: a better question; `seconds`: how long it takes."""

    moment: str
    technique: str
    attitude: str | None
    phase: int
    customer_lines: tuple[str, ...]
    seller_line: str
    better: str
    seconds: int


def drills_of(
    card: ScoreCard, turns: Sequence[Turn], method: Methodology, language: str
) -> tuple[DrillSpec, ...]:
    """The worst first; none for a talk too short to judge."""
    if card.insufficient or not turns:
        return ()
    worst = [_of_moment(moment, turns, method) for moment in _one_each(card.missed, method)]
    return tuple(worst) or tuple(_of_weakest(card, turns, method, language))


def is_better(
    before: Quality | None, uses: Iterable[TechniqueUse], spec: DrillSpec, method: Methodology
) -> bool:
    """Whether an answer closes a drill: the technique (or one beneath it, or another that meets that
    attitude) used well, and better than before where it was used at all. Perfect cannot be bettered, only
    repeated."""
    reached = [use.quality for use in uses if _is_for(use, spec, method)]
    best = max(reached, key=lambda quality: RANK[quality], default=Quality.GEMIST)
    if before is Quality.PERFECT:
        return best is Quality.PERFECT
    wanted = max(RANK[Quality.GOED], RANK[before] + 1 if before else 0)
    return RANK[best] >= wanted


def _one_each(missed: Iterable[Missed], method: Methodology) -> list[Missed]:
    """The heaviest ones, no step and no place in the talk twice."""
    kept: list[Missed] = []
    seen: set[str | int] = set()
    for moment in sorted(missed, key=lambda found: (-found.weight, sequence_of(found))):
        step = method.step(moment.technique)
        marks: set[str | int] = {step.id if step else moment.technique, sequence_of(moment)}
        if not marks & seen:
            kept.append(moment)
            seen |= marks
    return kept[:MOST_DRILLS]


def _of_moment(moment: Missed, turns: Sequence[Turn], method: Methodology) -> DrillSpec:
    at = _index(turns, sequence_of(moment))
    technique = method.technique(moment.technique)
    said = _index(turns, moment.seller.sequence) if moment.seller else None
    lines = _around(turns, at)
    return DrillSpec(
        moment=moment.moment,
        technique=technique.id,
        attitude=_attitude_at(turns, at),
        phase=_drill_phase(turns[at].phase, technique.forbidden),
        customer_lines=lines,
        seller_line=_line(turns[said]) if said is not None else "",
        better=moment.better,
        seconds=_seconds(lines),
    )


def _of_weakest(
    card: ScoreCard, turns: Sequence[Turn], method: Methodology, language: str
) -> Iterator[DrillSpec]:
    weakest = min(card.technique_scores.values(), key=lambda found: found.score, default=None)
    name = weakest.id if weakest else card.next_step
    if name is None:
        return
    technique = method.technique(name)
    at = _index(turns, weakest.evidence.sequence) if weakest else len(turns) - 1
    examples = say_all(technique.examples, language)
    lines = _around(turns, at)
    yield DrillSpec(
        moment=WEAKEST,
        technique=technique.id,
        attitude=_attitude_at(turns, at),
        phase=_drill_phase(turns[at].phase, technique.forbidden, technique.phase),
        customer_lines=lines,
        seller_line=_line(turns[at]) if weakest else "",
        better=examples[turns[at].sequence % len(examples)] if examples else "",
        seconds=_seconds(lines),
    )


def _drill_phase(said_in: int, forbidden: Sequence[int], home: int = 0) -> int:
    """Where the technique may be used: not where it was a mistake."""
    return home or said_in if said_in in forbidden else said_in


def _index(turns: Sequence[Turn], sequence: int) -> int:
    return next((i for i, turn in enumerate(turns) if turn.sequence == sequence), len(turns) - 1)


def _attitude_at(turns: Sequence[Turn], at: int) -> str | None:
    """Of the customer's turn at that place or before it."""
    before = reversed(turns[: at + 1])
    return next((turn.attitude for turn in before if not turn.is_seller), None)


def _around(turns: Sequence[Turn], at: int) -> tuple[str, ...]:
    """The customer's telling lines nearest to a place, the short ones only where there are no others."""
    theirs = [i for i, turn in enumerate(turns) if not turn.is_seller and turn.text.strip()]
    nearest = sorted(theirs, key=lambda i: (abs(i - at), i))
    telling = [i for i in nearest if len(turns[i].text.split()) >= _TELLING_WORDS][:MOST_LINES]
    short = [i for i in nearest if i not in telling]
    chosen = telling + short[: max(0, FEWEST_LINES - len(telling))]
    return tuple(_line(turns[i]) for i in sorted(chosen))


def _line(turn: Turn) -> str:
    return clip(one_line(turn.text), LINE_CHARS)


def _seconds(lines: Sequence[str]) -> int:
    return min(LONGEST_S, SHORTEST_S + LINE_S * max(0, len(lines) - 1))


def _is_for(use: TechniqueUse, spec: DrillSpec, method: Methodology) -> bool:
    found, wanted = method.find(use.id), method.find(spec.technique)
    if found is None or wanted is None or spec.phase in found.forbidden:
        return False
    family = {found.id, found.parent, found.counts_as, *found.aliases}
    return wanted.id in family or method.meets(found.id, spec.attitude, spec.phase)
