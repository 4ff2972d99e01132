"""What is said to the trainee about a simulated talk, found by rules: ids, weights and the words behind
them. The sentences are data (`catalog/simulation/report.<language>.toml`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from coach_server.domain.simulation.attitude import Cause, Move
from coach_server.domain.simulation.checklist import DONE, FAILED
from coach_server.domain.simulation.persona import Domain, SimPersona
from coach_server.domain.simulation.scene import QUOTE_CHARS, Found, Said
from coach_server.domain.simulation.scorecard import (
    CheckResult,
    SimEvidence,
    SimRemark,
    SimScoreCard,
    TalkRecord,
    Tone,
)
from coach_server.domain.simulation.scoring import Facts, facts_of, score_by_rules
from coach_server.domain.simulation.talk import ForbiddenUse, Outcome, Utterance
from coach_server.domain.wording import clip, one_line

FEW_NEEDS = 2
WON = 2.0
# Of causes that move the attitude, each at most once for what it is about: id of the remark and its weight.
_GOOD_MOVES = {Cause.WEAK_POINT: ("weak_point", 8.0), Cause.FITTING: ("right_product", 5.0)}
_BAD_MOVES = {
    Cause.PUSHY: ("pushy", 8.0),
    Cause.IGNORED: ("objection_ignored", 7.0),
    Cause.FALSE_CLAIM: ("false_claim", 9.0),
    Cause.WRONG_PRODUCT: ("wrong_product", 5.0),
    Cause.GENERIC: ("generic", 4.0),
}
BREACHES = ("product_before_checks", "pitched_to_non_user", "check_missing", "check_failed")
"""Remarks that are failures, whatever else was good."""
GOOD = (
    "weak_point",
    "right_product",
    "objection_answered",
    "needs_first",
    "empathy",
    "facts",
    "checks_done",
    "closed",
    "won",
)
WARNINGS = (
    *BREACHES,
    "check_late",
    "forbidden",
    *(name for name, _ in _BAD_MOVES.values()),
    "objection_open",
    "pitched_early",
    "few_needs",
    "no_greeting",
    "no_close",
)


def score_simulation(record: TalkRecord, persona: SimPersona, domain: Domain, language: str) -> SimScoreCard:
    """The card by rules alone, with its remarks, heaviest first. Plain computing, some ten milliseconds for a
    long talk: call it off the event loop."""
    facts = facts_of(record, persona, domain, language)
    card = score_by_rules(facts)
    if card.insufficient:
        return card
    found = [*_good(facts, card), *_warnings(facts, card)]
    return replace(card, remarks=tuple(sorted(found, key=lambda remark: -remark.weight)))


def _good(facts: Facts, card: SimScoreCard) -> Iterator[SimRemark]:
    yield from _of_moves(facts, _GOOD_MOVES, Tone.GOOD)
    for objection, _, answer in facts.objections:
        if answer is not None:
            words = _found("objection_answered", answer)
            yield SimRemark(Tone.GOOD, "objection_answered", 7.0, objection.id, evidence=words)
            break
    if facts.needs_first:
        asked = facts.scene.first(facts.scene.domain.needs, facts.scene.trainee)
        yield SimRemark(Tone.GOOD, "needs_first", 6.0, evidence=_found("needs_first", asked))
    yield from _empathy(facts)
    if facts.step_done("product_facts"):
        yield SimRemark(Tone.GOOD, "facts", 4.0, evidence=_of_step(facts, "product_facts", "facts"))
    results = set(card.compliance.checks.values())
    if facts.sold and results == {CheckResult.PASSED}:
        yield SimRemark(Tone.GOOD, "checks_done", 4.5)
    if facts.closed is not None and facts.record.outcome is not Outcome.COMPLIANCE_FAIL:
        yield SimRemark(Tone.GOOD, "closed", 3.5, evidence=_found("closed", facts.closed))
    if facts.record.final - facts.record.initial >= WON:
        points = round(facts.record.final - facts.record.initial)
        yield SimRemark(Tone.GOOD, "won", 3.0, values={"count": points})


def _empathy(facts: Facts) -> Iterator[SimRemark]:
    felt = [move for move in facts.moves if move.cause is Cause.EMPATHY]
    if felt:
        found = facts.scene.first(facts.scene.domain.empathy, facts.scene.trainee)
        yield SimRemark(Tone.GOOD, "empathy", 3.0 + min(len(felt), 3), evidence=_found("empathy", found))


def _warnings(facts: Facts, card: SimScoreCard) -> Iterator[SimRemark]:
    yield from _breaches(facts)
    yield from _checks(facts, card)
    for word in dict.fromkeys(use.word for use in card.compliance.words):
        uses = [use for use in card.compliance.words if use.word == word]
        said = _said_at(facts, uses[0].sequence)
        words = _evidence("forbidden", said, uses[0].quote)
        values: dict[str, int | str] = {"count": len(uses), "said": _as_said(facts, uses[0])}
        yield SimRemark(Tone.WARNING, "forbidden", 6.0, word, values, words)
    yield from _of_moves(facts, _BAD_MOVES, Tone.WARNING)
    yield from _open_objections(facts)
    yield from _course(facts)


def _breaches(facts: Facts) -> Iterator[SimRemark]:
    if facts.compliance.product_before_checks:
        named = next(iter(facts.scene.products_named()), None)
        words = _found("product_before_checks", named[1] if named else None)
        yield SimRemark(Tone.WARNING, "product_before_checks", 20.0, evidence=words)
    if facts.compliance.pitched_after_stop:
        yield SimRemark(Tone.WARNING, "pitched_to_non_user", 20.0)


def _checks(facts: Facts, card: SimScoreCard) -> Iterator[SimRemark]:
    """A check that was skipped is one only where something was sold."""
    fatal = {rule.id for rule in facts.scene.domain.checks if rule.fatal}
    for id, result in card.compliance.checks.items():
        heavy = 4.0 if id in fatal else 0.0
        if result is CheckResult.FAILED:
            yield SimRemark(Tone.WARNING, "check_failed", 10.0 + heavy, id)
        elif result is CheckResult.SKIPPED and facts.sold:
            yield SimRemark(Tone.WARNING, "check_missing", 8.0 + heavy, id)
        elif result is CheckResult.LATE:
            yield SimRemark(Tone.WARNING, "check_late", 5.0 + heavy, id)


def _open_objections(facts: Facts) -> Iterator[SimRemark]:
    """The first that nothing answered, unless it was passed over at once: then that is said."""
    left = [(one, where) for one, where, answer in facts.objections if answer is None]
    if left and not facts.counts[Cause.IGNORED]:
        objection, where = left[0]
        said = where.utterance
        yield SimRemark(
            Tone.WARNING,
            "objection_open",
            5.5,
            objection.id,
            evidence=_evidence("objection_open", said, said.text),
        )


def _course(facts: Facts) -> Iterator[SimRemark]:
    """How the talk was led."""
    asked = facts.counts[Cause.NEEDS]
    early = facts.step_quoted("needs_before_pitch")
    if early is not None and early.state == FAILED and facts.sold:
        words = _of_step(facts, "needs_before_pitch", "pitched_early")
        yield SimRemark(Tone.WARNING, "pitched_early", 6.5, evidence=words)
    elif asked < FEW_NEEDS:
        yield SimRemark(Tone.WARNING, "few_needs", 4.5, values={"count": asked})
    greeting = facts.step_quoted("greeting")
    if greeting is not None and greeting.state != DONE:
        yield SimRemark(Tone.WARNING, "no_greeting", 2.0)
    # Who broke the rules must not ask for the decision.
    if facts.closed is None and facts.record.outcome not in (Outcome.CONVERTED, Outcome.COMPLIANCE_FAIL):
        yield SimRemark(Tone.WARNING, "no_close", 3.5)


def _of_moves(facts: Facts, wanted: dict[Cause, tuple[str, float]], tone: Tone) -> Iterator[SimRemark]:
    """The first move of each cause."""
    for cause, (name, weight) in wanted.items():
        found = [move for move in facts.moves if move.cause is cause]
        if found:
            yield SimRemark(
                tone,
                name,
                weight + 0.5 * (len(found) - 1),
                found[0].about,
                evidence=_of_move(facts, name, found[0]),
            )


def _of_move(facts: Facts, criterion: str, move: Move) -> SimEvidence | None:
    said = _said_at(facts, move.sequence)
    return _evidence(criterion, said, said.text if said else "")


def _of_step(facts: Facts, rule: str, criterion: str) -> SimEvidence | None:
    step = facts.step_quoted(rule)
    if step is None or step.sequence is None or not step.quote:
        return None
    said = _said_at(facts, step.sequence)
    return _evidence(criterion, said, step.quote)


def _found(criterion: str, found: Found | None) -> SimEvidence | None:
    return None if found is None else _evidence(criterion, found.said.utterance, found.quote)


def _evidence(criterion: str, said: Utterance | None, quote: str) -> SimEvidence | None:
    if said is None:
        return None
    return SimEvidence(criterion, clip(one_line(quote), QUOTE_CHARS), said.role, said.sequence, said.start)


def _as_said(facts: Facts, use: ForbiddenUse) -> str:
    """The forbidden words with their inflections."""
    word = next(one for one in facts.scene.domain.forbidden if one.id == use.word)
    said = next(one for one in facts.scene.trainee if one.sequence == use.sequence)
    hit = next(hit for hit in facts.scene.hits(said, word.stems) if hit.start == use.position)
    return one_line(said.utterance.text[hit.start : hit.end])


def _said_at(facts: Facts, sequence: int) -> Utterance | None:
    everyone: tuple[Said, ...] = facts.scene.trainee + facts.scene.avatar
    return next((one.utterance for one in everyone if one.sequence == sequence), None)
