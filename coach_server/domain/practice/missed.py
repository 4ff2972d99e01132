"""Moments of a talk that were let go (contract §8), found by rule; the method file says which rules it uses,
what each is called, and what would have been a better question.

    te_vroeg_fase_3_4       on to the offer after fewer than three explorations
    probe_gemist            the customer told a problem and nobody went into it
    impact_gemist           a problem was gone into, but never what it leads to
    commit_gemist           on to the offer without a yes to what the customer wants
    twijfel_niet_uitgepakt  a doubt that was not unpacked
    bezwaar_overgeslagen    another resistance that was passed by
    baat_niet_gemaakt       an advantage that did not become a benefit

A practice that begins beyond a phase is not blamed for what comes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from coach_server.domain.method.methodology import Epic, MissedMoment, say_all
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.scorecard import Missed
from coach_server.domain.practice.talk import Reply, Talk, Use
from coach_server.domain.practice.talk_facts import committed, crosses_into
from coach_server.domain.tip import Stage

FEWEST_EXPLORED = 3
MOST_OF_A_RULE = 2
# A problem may be taken up in this many answers of the seller, an advantage explained in so many turns.
_TAKEN_UP_WITHIN = 2


@dataclass(frozen=True, slots=True)
class _Moment:
    """Where it happened. `technique` where the rule knows better than the file."""

    customer: Turn | None
    seller: Turn | None
    technique: str | None = None


Rule = Callable[[Talk, MissedMoment], Iterator[_Moment]]


def missed_moments(talk: Talk) -> tuple[Missed, ...]:
    """At most two of each rule, the heaviest first; of equals in the order of the talk."""
    found = [
        _missed(talk, kind, moment)
        for kind in talk.method.missed
        for moment in islice(RULES[kind.rule](talk, kind), MOST_OF_A_RULE)
    ]
    return tuple(sorted(found, key=lambda missed: (-missed.weight, sequence_of(missed), missed.moment)))


def sequence_of(missed: Missed) -> int:
    """Of the turn it rests on."""
    evidence = missed.customer or missed.seller
    return evidence.sequence if evidence else 0


def too_early(talk: Talk, kind: MissedMoment) -> Iterator[_Moment]:
    at = crosses_into(talk, _offer(talk))
    if at is None:
        return
    explored = sum(_explores(talk, turn) for turn in talk.turns[:at])
    if explored < FEWEST_EXPLORED:
        yield _crossing(talk, at)


def probe_missed(talk: Talk, kind: MissedMoment) -> Iterator[_Moment]:
    for reply in talk.replies:
        if not talk.has_pain(reply.customer) or not _discovering(talk, reply.customer):
            continue
        answers = _seller_after(talk, reply.customer, _TAKEN_UP_WITHIN)
        uses = [use for turn in answers for use in talk.uses_of(turn)]
        if not any(use.works and use.technique.epic in (Epic.PROBE, Epic.IMPACT) for use in uses):
            yield _Moment(reply.customer, reply.answer[0])


def impact_missed(talk: Talk, kind: MissedMoment) -> Iterator[_Moment]:
    probes = [use for use in talk.uses if use.works and use.technique.epic is Epic.PROBE]
    impacts = [use for use in talk.uses if use.works and use.technique.epic is Epic.IMPACT]
    known = any(technique.epic is Epic.IMPACT for technique in talk.method.techniques)
    if not probes or impacts or not known:
        return
    last = probes[-1].turn
    later = [turn for turn in talk.turns[talk.position(last) + 1 :] if turn.is_seller]
    if later:
        yield _Moment(_customer_after(talk, last), later[0])


def commit_missed(talk: Talk, kind: MissedMoment) -> Iterator[_Moment]:
    at = crosses_into(talk, talk.method.commitment_before)
    if at is not None and committed(talk) is None:
        yield _crossing(talk, at)


def doubt_missed(talk: Talk, kind: MissedMoment) -> Iterator[_Moment]:
    for reply in talk.resistance:
        if _asks_for(talk, reply, kind.technique) and not _unpacked(talk, reply):
            yield _Moment(reply.customer, reply.answer[0])


def objection_missed(talk: Talk, kind: MissedMoment) -> Iterator[_Moment]:
    """Every resistance that is no doubt; what would have been right is what that attitude asks for."""
    doubts = [other.technique for other in talk.method.missed if RULES[other.rule] is doubt_missed]
    for reply in talk.resistance:
        if any(_asks_for(talk, reply, doubt) for doubt in doubts) or _unpacked(talk, reply):
            continue
        right = next(talk.method.answers(reply.customer.attitude, reply.customer.phase), None)
        yield _Moment(reply.customer, reply.answer[0], right.id if right else None)


def benefit_missed(talk: Talk, kind: MissedMoment) -> Iterator[_Moment]:
    """The step before the benefit, in the order of the method, is the advantage."""
    benefit = talk.method.find(kind.technique)
    steps = [step.id for step in talk.method.steps_of(benefit.phase)] if benefit else []
    if benefit is None or benefit.id not in steps[1:]:
        return
    advantage = steps[steps.index(benefit.id) - 1]
    for use in talk.uses:
        if use.works and use.of_family(advantage) and not _followed_by(talk, use, benefit.id):
            yield _Moment(talk.heard_before(use.turn), use.turn)


RULES: dict[str, Rule] = {
    "te_vroeg_fase_3_4": too_early,
    "probe_gemist": probe_missed,
    "impact_gemist": impact_missed,
    "commit_gemist": commit_missed,
    "twijfel_niet_uitgepakt": doubt_missed,
    "bezwaar_overgeslagen": objection_missed,
    "baat_niet_gemaakt": benefit_missed,
}


def _missed(talk: Talk, kind: MissedMoment, moment: _Moment) -> Missed:
    questions = say_all(kind.better, talk.language)
    at = (moment.customer or moment.seller or talk.turns[0]).sequence
    return Missed(
        moment=kind.id,
        technique=moment.technique or kind.technique,
        better=questions[at % len(questions)] if questions else "",
        weight=kind.weight,
        customer=talk.evidence(kind.id, moment.customer) if moment.customer else None,
        seller=talk.evidence(kind.id, moment.seller) if moment.seller else None,
    )


def _offer(talk: Talk) -> int | None:
    """The phase before which the customer must be known."""
    return talk.method.commitment_before or talk.phase_of(Stage.VALUE_PROP)


def _discovering(talk: Talk, turn: Turn) -> bool:
    offer = _offer(talk)
    return offer is None or turn.phase < offer


def _explores(talk: Talk, turn: Turn) -> bool:
    if talk.is_missed(turn):
        return False
    explored = any(use.works and use.technique.epic is Epic.EXPLORE for use in talk.uses_of(turn))
    return explored or bool(turn.is_seller and turn.themes)


def _crossing(talk: Talk, at: int) -> _Moment:
    seller = next((turn for turn in talk.turns[at:] if turn.is_seller), None)
    customer = next((turn for turn in reversed(talk.turns[:at]) if not turn.is_seller), None)
    return _Moment(customer, seller)


def _seller_after(talk: Talk, turn: Turn, answers: int) -> list[Turn]:
    """The seller's turns in the next answers: an answer ends where the customer speaks."""
    found: list[Turn] = []
    ended, before = 0, turn
    for other in talk.turns[talk.position(turn) + 1 :]:
        if before.is_seller and not other.is_seller:
            ended += 1
        if ended == answers:
            break
        if other.is_seller:
            found.append(other)
        before = other
    return found


def _customer_after(talk: Talk, turn: Turn) -> Turn | None:
    return next((other for other in talk.turns[talk.position(turn) + 1 :] if not other.is_seller), None)


def _asks_for(talk: Talk, reply: Reply, technique_id: str) -> bool:
    return talk.method.meets(technique_id, reply.customer.attitude, reply.customer.phase)


def _unpacked(talk: Talk, reply: Reply) -> bool:
    """It was met with what it asks for, or with a question that came off."""
    attitude, phase = reply.customer.attitude, reply.customer.phase
    uses = [use for turn in reply.answer for use in talk.uses_of(turn)]
    met = any(use.works and talk.method.meets(use.technique.id, attitude, phase) for use in uses)
    return met or any(turn.is_question and not talk.is_missed(turn) for turn in reply.answer)


def _followed_by(talk: Talk, use: Use, technique_id: str) -> bool:
    """Whether the technique comes in the same turn or in one of the seller's next two."""
    later = [turn for turn in talk.turns[talk.position(use.turn) :] if turn.is_seller]
    near = [other for turn in later[: 1 + _TAKEN_UP_WITHIN] for other in talk.uses_of(turn)]
    return any(other.works and other.of_family(technique_id) for other in near)
