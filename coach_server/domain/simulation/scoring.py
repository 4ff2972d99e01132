"""Scores a simulated talk by rules (seed 001, contract simulation.md §6 and §7).

    category         begins  gains                                         loses
    empathy          37      empathy +12 (3x), asking for needs +9 (3x)    pushy -12, objection ignored -10
    argumentQuality  30      fitting product +15, facts told +20,          empty praise -8 (3x), false claim
                             objections answered +25, weak points +5 (2x)  -15, wrong product -10, forbidden
                                                                           word -4 (5x)
    persistence      30      objections answered +30, asked for the        pushy -8, objection ignored -10,
                             decision +20, six exchanges +20               customer left -10
    adaptability     30      needs first +20, weak points +25 (of two),    wrong product -10, objection
                             fitting product +15, attitude won +10         ignored -8, false claim -5,
                                                                           attitude lost -15

The overall score is the categories by the persona's weights, less what compliance costs, and never above the
compliance cap: 25 after a breach (a product before every check, selling on to somebody who is no user), 50
where a check that must be made was not made although something was sold.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from coach_server.domain.practice.scorecard import clamp
from coach_server.domain.simulation.attitude import Cause, Move, moves
from coach_server.domain.simulation.checklist import DONE, answer_to, checklist, raised
from coach_server.domain.simulation.compliance import check_states, examine
from coach_server.domain.simulation.ending import is_scored
from coach_server.domain.simulation.persona import Domain, Objection, SimPersona
from coach_server.domain.simulation.scene import Found, Said, Scene
from coach_server.domain.simulation.scorecard import (
    Category,
    CheckResult,
    ComplianceDetails,
    PhaseHandling,
    SimScoreCard,
    TalkRecord,
    weights_of,
)
from coach_server.domain.simulation.talk import Compliance, Outcome, StepState

VERSION = 1
"""Part of the hash: raised when the same talk is scored differently than before."""
BREACH_CAP = 25
MISSED_CAP = 50
ENOUGH_EXCHANGES = 6
INTERESTED_FROM = 5.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules saw in a talk. `objections`: each that was raised, where, and what answered it."""

    record: TalkRecord
    scene: Scene
    moves: tuple[Move, ...]
    counts: Mapping[Cause, int]
    objections: tuple[tuple[Objection, Said, Found | None], ...]
    steps: tuple[StepState, ...]
    compliance: Compliance
    needs_first: bool
    closed: Found | None

    @property
    def answered_share(self) -> float:
        """Half where no objection was raised: neither shown nor failed."""
        if not self.objections:
            return 0.5
        return sum(answer is not None for _, _, answer in self.objections) / len(self.objections)

    @property
    def sold(self) -> bool:
        return bool(self.scene.pitches())

    def step_done(self, rule: str) -> bool:
        of_rule = {step.id for step in self.scene.domain.steps if step.rule == rule}
        return any(step.state == DONE for step in self.steps if step.id in of_rule)

    def step_quoted(self, rule: str) -> StepState | None:
        of_rule = {step.id for step in self.scene.domain.steps if step.rule == rule}
        return next((step for step in self.steps if step.id in of_rule), None)


def facts_of(record: TalkRecord, persona: SimPersona, domain: Domain, language: str) -> Facts:
    scene = Scene.of(record.utterances, record.events, persona, domain, language)
    found = moves(scene)
    asked = scene.first(domain.needs, scene.trainee)
    pitch = next(iter(scene.pitches()), None)
    return Facts(
        record=record,
        scene=scene,
        moves=found,
        counts=Counter(move.cause for move in found),
        objections=tuple((one, where, answer_to(scene, one, where)) for one, where in raised(scene)),
        steps=checklist(scene, is_over=True),
        compliance=examine(scene),
        needs_first=asked is not None and (pitch is None or asked.place <= pitch.place),
        closed=scene.first(domain.closes, scene.trainee),
    )


def score_by_rules(facts: Facts) -> SimScoreCard:
    """The card without remarks. Deterministic."""
    persona = facts.scene.persona
    compliance = _compliance(facts)
    enough = is_scored(facts.record.exchanges) and bool(facts.scene.trainee)
    categories = _categories(facts) if enough else dict.fromkeys(Category)
    return SimScoreCard(
        insufficient=not enough,
        overall=overall(categories, persona, compliance),
        categories=categories,
        compliance=compliance,
        phases=_phases(facts),
        steps=facts.steps,
        remarks=(),
        facts_hash=_hash(facts),
    )


def overall(
    categories: Mapping[Category, int | None], persona: SimPersona, compliance: ComplianceDetails
) -> int | None:
    """By the persona's weights, less the penalty, under the cap; None where a category has no score."""
    total = 0.0
    for category, weight in weights_of(persona).items():
        score = categories.get(category)
        if score is None:
            return None
        total += weight * score
    score = clamp(total - compliance.penalty)
    return score if compliance.cap is None else min(score, compliance.cap)


def _categories(facts: Facts) -> dict[Category, int | None]:
    return {
        Category.EMPATHY: _empathy(facts),
        Category.ARGUMENT_QUALITY: _argument_quality(facts),
        Category.PERSISTENCE: _persistence(facts),
        Category.ADAPTABILITY: _adaptability(facts),
    }


def _empathy(facts: Facts) -> int:
    counts = facts.counts
    gained = 12 * min(counts[Cause.EMPATHY], 3) + 9 * min(counts[Cause.NEEDS], 3)
    return clamp(37 + gained - 12 * counts[Cause.PUSHY] - 10 * counts[Cause.IGNORED])


def _argument_quality(facts: Facts) -> int:
    counts = facts.counts
    gained = 15 * bool(counts[Cause.FITTING]) + 20 * facts.step_done("product_facts")
    gained += round(25 * facts.answered_share) + 5 * min(counts[Cause.WEAK_POINT], 2)
    lost = 8 * min(counts[Cause.GENERIC], 3) + 15 * counts[Cause.FALSE_CLAIM]
    lost += 10 * counts[Cause.WRONG_PRODUCT] + 4 * min(counts[Cause.FORBIDDEN], 5)
    return clamp(30 + gained - lost)


def _persistence(facts: Facts) -> int:
    counts = facts.counts
    stayed = min(facts.record.exchanges, ENOUGH_EXCHANGES) / ENOUGH_EXCHANGES
    gained = 30 * facts.answered_share + 20 * (facts.closed is not None) + 20 * stayed
    lost = 8 * counts[Cause.PUSHY] + 10 * counts[Cause.IGNORED]
    lost += 10 * (facts.record.outcome is Outcome.WALKED_AWAY)
    return clamp(30 + gained - lost)


def _adaptability(facts: Facts) -> int:
    counts, points = facts.counts, min(len(facts.scene.persona.weak_points), 2)
    touched = min(counts[Cause.WEAK_POINT], points) / points if points else 0.5
    gained = 20 * facts.needs_first + 25 * touched + 15 * bool(counts[Cause.FITTING])
    gained += min(max(2 * (facts.record.final - facts.record.initial), -15.0), 10.0)
    lost = 10 * counts[Cause.WRONG_PRODUCT] + 8 * counts[Cause.IGNORED] + 5 * counts[Cause.FALSE_CLAIM]
    return clamp(30 + gained - lost)


def _compliance(facts: Facts) -> ComplianceDetails:
    seen = facts.compliance
    checks = {rule.id: _check(rule.id, seen) for rule in facts.scene.domain.checks}
    uses = min(len(seen.words), 5)
    if _is_breach(facts):
        return ComplianceDetails(0, checks, seen.words, 3 * uses, BREACH_CAP)
    missing = {CheckResult.SKIPPED, CheckResult.FAILED} if facts.sold else {CheckResult.FAILED}
    fatal = {state.rule.id for state in check_states(facts.scene) if state.rule.fatal}
    missed = [id for id, result in checks.items() if result in missing and id in fatal]
    small = [id for id, result in checks.items() if result in missing and id not in fatal]
    late = sum(result is CheckResult.LATE for result in checks.values())
    return ComplianceDetails(
        score=clamp(100 - 8 * uses - 15 * late - 30 * len(missed) - 10 * len(small)),
        checks=checks,
        words=seen.words,
        penalty=3 * uses + 4 * late + 10 * len(missed) + 4 * len(small),
        cap=MISSED_CAP if missed else None,
    )


def _is_breach(facts: Facts) -> bool:
    seen = facts.compliance
    failed = facts.record.outcome is Outcome.COMPLIANCE_FAIL
    return seen.product_before_checks or seen.pitched_after_stop or failed


def _check(id: str, seen: Compliance) -> CheckResult:
    if id in seen.failed:
        return CheckResult.FAILED
    if id in seen.late:
        return CheckResult.LATE
    return CheckResult.PASSED if seen.checks.get(id) else CheckResult.SKIPPED


def _phases(facts: Facts) -> PhaseHandling:
    """A breakthrough is a weak point touched, or a fitting offer to a customer who is warm enough. Interest
    was recognised when something was asked, answered or felt after it."""
    warm = max([facts.record.initial, *facts.record.attitudes]) >= INTERESTED_FROM
    opening = {Cause.WEAK_POINT} | ({Cause.FITTING} if warm else set())
    broke = next((move for move in facts.moves if move.cause in opening), None)
    following = {Cause.NEEDS, Cause.ANSWERED, Cause.EMPATHY}
    points = tuple(move.about for move in facts.moves if move.cause is Cause.WEAK_POINT)
    return PhaseHandling(
        breakthrough=broke is not None,
        interest_recognised=broke is not None
        and any(move.cause in following and move.sequence >= broke.sequence for move in facts.moves),
        weak_points=points,
        decision_helped=facts.closed is not None and broke is not None,
    )


def _hash(facts: Facts) -> str:
    """Over all that decides the score: the talk, its customer and its trade."""
    record = replace(facts.record, utterances=(), events=())
    told = {
        "version": VERSION,
        "talk": [(one.sequence, one.role, one.text) for one in facts.record.utterances],
        "events": [(one.time, one.type, one.data) for one in facts.record.events],
        "record": asdict(record),
        "persona": asdict(facts.scene.persona),
        "domain": asdict(facts.scene.domain),
        "language": facts.scene.language,
    }
    raw = json.dumps(told, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(raw.encode()).hexdigest()
