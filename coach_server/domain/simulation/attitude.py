"""The customer's attitude: a fraction 0..10 that is shown rounded, and what moves it (contract §5).

    what the trainee did                                   step          counts
    weak point touched                                     +1 … +2       once for each
    product that suits named                               +1.5, +1      once for each; less before needs
    concern answered                                       +1            once for each
    empathy                                                +0.75, +0.5   less from the third time on
    asked for needs: listening                             +0.5          each time
    objection ignored, and sold on                         -2            each time
    objection ignored                                      -1            each time
    pushy                                                  -2, -3        more from the second time on
    praise without a fact                                  -0.5, -1      more from the second time on
    product that does not suit named, false claim          -1            once for each
    forbidden word                                         -1            each use
    sold on to somebody who is no user                     -2            once

One evaluation moves it by 3 at most, whatever was said in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coach_server.domain.simulation.checklist import answer_to, raised
from coach_server.domain.simulation.compliance import forbidden_uses, pitch_after_stop
from coach_server.domain.simulation.scene import Found, Scene
from coach_server.domain.simulation.talk import Direction, TalkPhase
from coach_server.domain.wording import same_words

LOWEST, HIGHEST = 0.0, 10.0
STIR = 0.2
"""A smaller move is none."""
MOST_STEP = 3.0
ENOUGH_EMPATHY = 3
INTEREST_FROM = 5.0
DECIDES_FROM = 6


def clamp(value: float, otherwise: float) -> float:
    """Within 0..10; `otherwise` for what is no number."""
    return min(max(value, LOWEST), HIGHEST) if math.isfinite(value) else otherwise


def shown(value: float) -> int:
    """Rounded, a half upwards: 2.5 is 3, for the meter must not stand still where the mood moved."""
    return math.floor(clamp(value, LOWEST) + 0.5)


def direction_of(step: float) -> Direction:
    if step >= STIR:
        return Direction.RISING
    return Direction.FALLING if step <= -STIR else Direction.STABLE


class Cause(StrEnum):
    WEAK_POINT = "weak_point"
    FITTING = "fitting"
    ANSWERED = "answered"
    EMPATHY = "empathy"
    NEEDS = "needs"
    IGNORED = "ignored"
    PUSHY = "pushy"
    GENERIC = "generic"
    WRONG_PRODUCT = "wrong_product"
    FALSE_CLAIM = "false_claim"
    FORBIDDEN = "forbidden"
    NO_USER = "no_user"


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that moved the attitude. `about`: the id of the weak point, product or objection."""

    cause: Cause
    amount: float
    sequence: int
    about: str = ""


def step_of(moves: Sequence[Move]) -> float:
    """How far these move the attitude together."""
    total = sum(move.amount for move in moves)
    return min(max(total, -MOST_STEP), MOST_STEP)


def moves(scene: Scene) -> tuple[Move, ...]:
    """Everything in the talk so far that moved it, in order. Those of one evaluation have a sequence behind
    the evaluation before."""
    found = [
        *_weak_points(scene),
        *_products(scene),
        *_answers(scene),
        *_empathy(scene),
        *_needs(scene),
        *_ignored(scene),
        *_pushy(scene),
        *_generic(scene),
        *_false_claims(scene),
        *_forbidden(scene),
        *_no_user(scene),
    ]
    return tuple(sorted(found, key=lambda move: move.sequence))


def phase_of(scene: Scene, all_moves: Sequence[Move], attitude: float, exchanges: int) -> TalkPhase:
    """By what was said: interest begins with a weak point touched, or with an offer that suits and is
    listened to; the decision, when it is asked for or time is up. Who is not interested decides nothing."""
    causes = {move.cause for move in all_moves}
    offered = Cause.FITTING in causes and attitude >= INTEREST_FROM
    if Cause.WEAK_POINT not in causes and not offered:
        return TalkPhase.SCEPTICAL
    closed = scene.first(scene.domain.closes, scene.trainee) is not None
    return TalkPhase.DECIDING if closed or exchanges >= DECIDES_FROM else TalkPhase.INTERESTED


def _weak_points(scene: Scene) -> Iterator[Move]:
    for point in scene.persona.weak_points:
        found = scene.first(point.cues, scene.trainee)
        if found is not None:
            worth = min(max(point.worth, 1.0), 2.0)
            yield Move(Cause.WEAK_POINT, worth, found.said.sequence, point.id)


def _products(scene: Scene) -> Iterator[Move]:
    asked = scene.first(scene.domain.needs, scene.trainee)
    told: set[str] = set()
    for product, found in scene.products_named():
        if product.id in told:
            continue
        told.add(product.id)
        if not scene.suits(product):
            yield Move(Cause.WRONG_PRODUCT, -1.0, found.said.sequence, product.id)
        else:
            needs_first = asked is not None and asked.place <= found.place
            yield Move(Cause.FITTING, 1.5 if needs_first else 1.0, found.said.sequence, product.id)


def _answers(scene: Scene) -> Iterator[Move]:
    for objection, where in raised(scene):
        answer = answer_to(scene, objection, where)
        if answer is not None:
            yield Move(Cause.ANSWERED, 1.0, answer.said.sequence, objection.id)


def _empathy(scene: Scene) -> Iterator[Move]:
    """The same words again are a phrase."""
    said = _once_each(scene.find(scene.domain.empathy, scene.trainee))
    for number, found in enumerate(said, 1):
        yield Move(Cause.EMPATHY, 0.75 if number < ENOUGH_EMPATHY else 0.5, found.said.sequence)


def _needs(scene: Scene) -> Iterator[Move]:
    for found in _once_each(scene.find(scene.domain.needs, scene.trainee)):
        yield Move(Cause.NEEDS, 0.5, found.said.sequence)


def _ignored(scene: Scene) -> Iterator[Move]:
    """An objection that the very next words of the trainee pass over."""
    pitching = {pitch.said.sequence for pitch in scene.pitches()}
    attentive = {
        found.said.sequence
        for cues in (scene.domain.empathy, scene.domain.needs, *(c.cues for c in scene.domain.checks))
        for found in scene.find(cues, scene.trainee)
    }
    for objection, where in raised(scene):
        reply = next((said for said in scene.trainee if said.sequence > where.sequence), None)
        if reply is None or reply.sequence in attentive or scene.hits(reply, objection.answers):
            continue
        sold_on = reply.sequence in pitching
        yield Move(Cause.IGNORED, -2.0 if sold_on else -1.0, reply.sequence, objection.id)


def _pushy(scene: Scene) -> Iterator[Move]:
    for number, found in enumerate(_once_an_utterance(scene.find(scene.domain.pushy, scene.trainee))):
        yield Move(Cause.PUSHY, -2.0 if number == 0 else -3.0, found.said.sequence)


def _generic(scene: Scene) -> Iterator[Move]:
    """A pitch with no number, no product, no question behind it and nothing of this customer's in it."""
    named = {found.said.sequence for _, found in scene.products_named()}
    personal = [
        *(point.cues for point in scene.persona.weak_points),
        *(objection.answers for objection in scene.persona.objections),
        scene.domain.needs,
        scene.domain.closes,
    ]
    number = 0
    for found in _once_an_utterance(scene.find(scene.domain.pitch, scene.trainee)):
        said = found.said
        proven = any(c.isdigit() for c in said.utterance.text) or said.sequence in named
        if proven or any(scene.hits(said, cues) for cues in personal):
            continue
        yield Move(Cause.GENERIC, -0.5 if number == 0 else -1.0, said.sequence)
        number += 1


def _false_claims(scene: Scene) -> Iterator[Move]:
    for product in scene.domain.products:
        found = scene.first(product.wrong, scene.trainee)
        if found is not None:
            yield Move(Cause.FALSE_CLAIM, -1.0, found.said.sequence, product.id)


def _forbidden(scene: Scene) -> Iterator[Move]:
    for said in scene.trainee:
        for use in forbidden_uses(scene, said):
            yield Move(Cause.FORBIDDEN, -1.0, said.sequence, use.word)


def _no_user(scene: Scene) -> Iterator[Move]:
    pitch = pitch_after_stop(scene)
    if pitch is not None:
        yield Move(Cause.NO_USER, -2.0, pitch.said.sequence)


def _once_each(found: Sequence[Found]) -> list[Found]:
    """One for each utterance, and none whose words were said before."""
    kept: list[Found] = []
    spoken: set[str] = set()
    for one in _once_an_utterance(found):
        words = same_words(one.said.utterance.text)
        if words not in spoken:
            kept.append(one)
            spoken.add(words)
    return kept


def _once_an_utterance(found: Sequence[Found]) -> list[Found]:
    first: dict[int, Found] = {}
    for one in found:
        first.setdefault(one.said.sequence, one)
    return list(first.values())
