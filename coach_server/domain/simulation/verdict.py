"""The rules' own verdict on a talk: offline they supervise alone, online they hold the model's in bounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coach_server.domain.simulation import ending
from coach_server.domain.simulation.attitude import (
    Cause,
    Move,
    clamp,
    direction_of,
    moves,
    phase_of,
    step_of,
)
from coach_server.domain.simulation.checklist import checklist
from coach_server.domain.simulation.compliance import breach
from coach_server.domain.simulation.ending import Standing
from coach_server.domain.simulation.persona import Domain, SimPersona
from coach_server.domain.simulation.scene import Scene, TalkSoFar
from coach_server.domain.simulation.talk import Direction, TalkPhase, Verdict

MOST_SENTENCES = 4
"""A customer that says more in one go has left the role."""
_SENTENCE = re.compile(r"[.!?…]+(?:\s|$)")


class Guidance(StrEnum):
    """What the rules advise the customer; the words for it are data, by language. A verdict of the rules has
    the name as its `guidance`."""

    BREACH = "breach"
    GOODBYE = "goodbye"
    FORBIDDEN = "forbidden"
    PUSHED = "pushed"
    IGNORED = "ignored"
    GROW_SHORT = "grow_short"
    UNCONVINCED = "unconvinced"
    TOUCHED = "touched"
    OPEN_UP = "open_up"
    DECIDE = "decide"
    STAY_SCEPTICAL = "stay_sceptical"


@dataclass(frozen=True, slots=True)
class Judged:
    """The rules' verdict with what it rests on, for whoever blends it with another. `current`: the attitude
    before."""

    verdict: Verdict
    scene: Scene
    new_moves: tuple[Move, ...]
    current: float
    closed: bool
    is_breach: bool

    def standing(self, talk: TalkSoFar, attitude: float) -> Standing:
        """Where the talk stands with that attitude."""
        return Standing(
            attitude=attitude,
            direction=direction_of(attitude - self.current),
            initial=talk.initial,
            before=talk.attitudes,
            exchanges=talk.exchanges,
            closed=self.closed,
            is_breach=self.is_breach,
        )


def rules_verdict(talk: TalkSoFar, persona: SimPersona, domain: Domain, language: str) -> Verdict:
    """Deterministic: the same talk gives the same verdict."""
    return judged_by_rules(talk, persona, domain, language).verdict


def judged_by_rules(talk: TalkSoFar, persona: SimPersona, domain: Domain, language: str) -> Judged:
    scene = Scene.of(talk.utterances, talk.events, persona, domain, language)
    every = moves(scene)
    new = tuple(move for move in every if move.sequence > talk.since)
    current = clamp(talk.attitude, talk.initial)
    attitude = clamp(current + step_of(new), current)
    phase = phase_of(scene, every, attitude, talk.exchanges)
    closed = scene.first(domain.closes, scene.trainee) is not None
    draft = Judged(
        Verdict(attitude, direction_of(attitude - current), ""),
        scene,
        new,
        current,
        closed,
        breach(scene) is not None,
    )
    outcome = ending.decide(draft.standing(talk, attitude))
    verdict = Verdict(
        attitude=attitude,
        direction=direction_of(attitude - current),
        guidance=_guidance(draft, talk, phase, outcome is not None).value,
        topics=topics(every),
        is_on_track=_is_on_track(scene, talk.since),
        should_end=outcome is not None,
        end_reason=outcome,
        steps=checklist(scene),
        phase=phase,
    )
    return Judged(verdict, scene, new, current, closed, draft.is_breach)


def topics(all_moves: Sequence[Move]) -> tuple[str, ...]:
    """What has been talked about: ids of products, weak points and objections, each once."""
    return tuple(dict.fromkeys(move.about for move in all_moves if move.about))


def _guidance(judged: Judged, talk: TalkSoFar, phase: TalkPhase, ends: bool) -> Guidance:
    """The first that fits: what hurts goes before what pleases."""
    verdict = judged.verdict
    causes = {move.cause for move in judged.new_moves}
    cases = (
        (judged.is_breach or Cause.NO_USER in causes, Guidance.BREACH),
        (ends, Guidance.GOODBYE),
        (Cause.PUSHY in causes, Guidance.PUSHED),
        (Cause.IGNORED in causes, Guidance.IGNORED),
        (Cause.FORBIDDEN in causes, Guidance.FORBIDDEN),
        (ending.heads_for_end(talk.exchanges, verdict.attitude), Guidance.GROW_SHORT),
        (bool(causes & {Cause.GENERIC, Cause.WRONG_PRODUCT, Cause.FALSE_CLAIM}), Guidance.UNCONVINCED),
        (phase is TalkPhase.DECIDING or verdict.attitude >= ending.SURE_AT, Guidance.DECIDE),
        (Cause.WEAK_POINT in causes, Guidance.TOUCHED),
        (verdict.direction is Direction.RISING, Guidance.OPEN_UP),
    )
    return next((guidance for fits, guidance in cases if fits), Guidance.STAY_SCEPTICAL)


def _is_on_track(scene: Scene, since: int) -> bool:
    latest = [said for said in scene.avatar if said.sequence > since]
    return all(len(_SENTENCE.findall(said.utterance.text)) <= MOST_SENTENCES for said in latest)
