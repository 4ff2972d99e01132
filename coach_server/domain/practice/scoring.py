"""What a talk was worth by a method, by rules alone (contract §8): the same in, the same out.

    phase    best use of each technique / (10 * max(its key techniques, techniques found))
    overall  the phases it went through by their weights, and a share for the structure of the whole

The scale is that of the post-call analysis (`use_points`), the only one here. A phase is measured against its
own key techniques: all of them once the seller went on to the next one, and in the phase the talk stopped in
no more than he had turns for. A phase left out on the way is 0; phases before the first and after the last
one the talk was in do not count. So three minutes of practice on an opening can score well, and a whole talk
that hurries through the discovery cannot.

What the talk gave no occasion for is None (contract §10.3), never 0. A better use never lowers a score; a
turn that came to nothing never raises one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from coach_server.domain.method.methodology import Methodology, SubScore, Technique
from coach_server.domain.method.metrics import (
    Parts,
    echo_score,
    metrics,
    phase_score,
    question_score,
    structure,
    talk_score,
    weighted,
)
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.highlights import highlights
from coach_server.domain.practice.missed import missed_moments
from coach_server.domain.practice.scorecard import Evidence, Metric, Missed, ScoreCard, TechniqueScore, clamp
from coach_server.domain.practice.talk import Talk, TalkWords, Use, review, top
from coach_server.domain.practice.talk_facts import FULL, best_points, met_points, use_points
from coach_server.domain.tip import Stage

# What the structure of the whole weighs in the overall score, where the method file has no `overall` weights.
STRUCTURE_SHARE = 0.15
# So many turns of the seller in a phase give room for what is listened for there.
TURNS_OF_ROOM = 3

# What each criterion is made of, where the method file has no weights of that name.
_MADE_OF: Mapping[SubScore, Mapping[str, float]] = {
    SubScore.LUISTEREN: {"techniques": 0.5, "talk": 0.2, "questions": 0.15, "echo": 0.15},
    SubScore.SAMENVATTEN: {"techniques": 0.8, "echo": 0.2},
    SubScore.OBJECTIONS: {"techniques": 0.3, "met": 0.7},
    SubScore.NEXT_STEP: {"techniques": 0.75, "agreed": 0.25},
}


def score(
    turns: Sequence[Turn],
    method: Methodology,
    *,
    language: str,
    started_at: float,
    manual: Collection[str] = (),
    words: TalkWords | None = None,
) -> ScoreCard:
    """`started_at`: seconds since the epoch. `manual`: steps the trainee marked as done; they are not
    suggested again and change no score. Without `words` (services/practice/feedback_wording.py has them
    per language) what rests on them is left unjudged."""
    talk = review(turns, method, language=language, started_at=started_at, words=words)
    named = facts_hash(turns, method, language)
    if talk.too_short:
        return _too_short(method, named)
    missed = missed_moments(talk)
    techniques = technique_scores(talk)
    return ScoreCard(
        method=method.stamp,
        insufficient=False,
        overall=overall(talk),
        sub_scores={sub: _whole(sub_score(talk, sub)) for sub in SubScore},
        phases={phase.id: _whole(phase_score(talk, phase.id)) for phase in method.flow},
        technique_scores=techniques,
        metrics=metrics(talk),
        highlights=highlights(talk, missed),
        evidence=tuple(_evidence(talk, techniques, missed)),
        missed=missed,
        next_step=next_step(talk, techniques, missed, manual),
        facts_hash=named,
    )


def facts_hash(turns: Iterable[Turn], method: Methodology, language: str) -> str:
    """Names what a card is made from: who said what in which phase, the method's exact file, and the language
    its better questions are in."""
    said = [[turn.speaker.value, turn.text, turn.phase] for turn in turns]
    # ASCII, for lone surrogates have no UTF-8.
    facts = json.dumps([method.stamp, method.source_hash, language, said], ensure_ascii=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def overall(talk: Talk) -> int:
    """Of a talk that was in a phase of the flow."""
    phases: Parts = {str(phase.id): phase_score(talk, phase.id) for phase in talk.scope}
    by_phase = weighted(phases, {str(phase.id): phase.weight for phase in talk.scope})
    whole = weighted(structure(talk), talk.method.scoring.weights.get("structure", {}))
    share = talk.method.scoring.weights.get("overall", {}).get("structure", STRUCTURE_SHARE)
    if by_phase is None or whole is None:
        raise ValueError("a talk outside the flow has no overall score")
    return clamp((1 - share) * by_phase + share * whole)


def technique_scores(talk: Talk) -> dict[str, TechniqueScore]:
    """By id, as used; the order of the method."""
    by_id: dict[str, list[Use]] = {}
    for use in talk.uses:
        by_id.setdefault(use.technique.id, []).append(use)
    return {t.id: _technique(talk, by_id[t.id]) for t in talk.method.techniques if t.id in by_id}


def sub_score(talk: Talk, sub: SubScore) -> float | None:
    """0..100, or None when the talk gave no occasion for it."""
    if sub is SubScore.OBJECTIONS and not talk.resistance:
        return None
    techniques = _feeding(talk, sub)
    if techniques is None and sub in (SubScore.SAMENVATTEN, SubScore.NEXT_STEP):
        return None
    parts: dict[str, float | None] = {"techniques": techniques, **_facts(talk, sub)}
    return weighted(parts, talk.method.scoring.weights.get(sub, _MADE_OF[sub]))


def next_step(
    talk: Talk,
    techniques: Mapping[str, TechniqueScore],
    missed: Sequence[Missed],
    manual: Collection[str] = (),
) -> str | None:
    """The step to practise next: of the heaviest missed moment, else the weakest that is not mastered, else
    the first of these phases that was not used, else the one after the last used."""
    method = talk.method
    for moment in missed:
        if (step := method.step(moment.technique)) is not None:
            return step.id
    steps = _by_step(method, techniques)
    weak = min(steps, key=lambda id: steps[id], default=None)
    if weak is not None and steps[weak] < method.unlock.step_score:
        return weak
    done = {*steps, *manual}
    open_here = (s.id for phase in talk.scope for s in method.steps_of(phase.id) if s.id not in done)
    if (first := next(open_here, None)) is not None:
        return first
    later = (s.id for s in method.steps if s.id not in done)
    return next(later, weak)


def _by_step(method: Methodology, techniques: Mapping[str, TechniqueScore]) -> dict[str, int]:
    """The best score of each step with what is beneath it, in the order of the method."""
    best: dict[str, int] = {}
    for found in techniques.values():
        if (step := method.step(found.id)) is not None:
            best[step.id] = max(best.get(step.id, 0), found.score)
    return {step.id: best[step.id] for step in method.steps if step.id in best}


def _technique(talk: Talk, uses: Sequence[Use]) -> TechniqueScore:
    best = top(uses)
    assert best is not None
    return TechniqueScore(
        id=best.technique.id,
        score=clamp(max(use_points(talk, use) for use in uses)),
        quality=best.quality,
        uses=len(uses),
        evidence=talk.evidence(best.technique.id, best.turn, best.said.quote),
    )


def _feeding(talk: Talk, sub: SubScore) -> float | None:
    """The techniques that feed a criterion, each by its best use; 0 when none was used though there was room
    for it, None when there was none."""
    uses = [use for use in talk.uses if sub in _step_or_self(talk.method, use.technique)]
    best = best_points(talk, uses)
    if best:
        return sum(best.values()) / len(best)
    # In an opening nobody sums up or closes yet: what was used there counts, what was not is not missed.
    homes = {t.phase for t in talk.method.steps if sub in t.sub_scores} - {talk.phase_of(Stage.GREETING)}
    return 0.0 if any(_has_room(talk, phase) for phase in homes) else None


def _has_room(talk: Talk, phase_id: int) -> bool:
    """Whether the talk was long enough in a phase, or the seller went on from it of his own accord."""
    return talk.left_behind(phase_id) or len(talk.seller_turns_in(phase_id)) >= TURNS_OF_ROOM


def _step_or_self(method: Methodology, technique: Technique) -> tuple[SubScore, ...]:
    """What a technique feeds: a detail without a word on it feeds what its step does."""
    step = method.step(technique.id)
    return technique.sub_scores or (step.sub_scores if step else ())


def _facts(talk: Talk, sub: SubScore) -> Parts:
    """What was counted in the talk, beside the techniques."""
    match sub:
        case SubScore.LUISTEREN:
            return {
                "talk": talk_score(talk),
                "questions": question_score(talk),
                "echo": echo_score(talk),
            }
        case SubScore.SAMENVATTEN:
            return {"echo": echo_score(talk)}
        case SubScore.OBJECTIONS:
            met = [met_points(talk, reply) for reply in talk.resistance]
            return {"met": sum(met) / len(met)}
        case SubScore.NEXT_STEP:
            return {"agreed": _agreed(talk)}


def _agreed(talk: Talk) -> float | None:
    """Whether the customer said yes to a next step; None when none was asked for. Once the talk has come to
    its end phase, a yes to the way it would go does not count any more."""
    asked = [use for use in talk.uses if SubScore.NEXT_STEP in _step_or_self(talk.method, use.technique)]
    if not asked:
        return None
    end = talk.phase_of(Stage.NEXT_STEPS)
    counting = [use for use in asked if not talk.in_scope(end) or use.turn.phase == end]
    return FULL if any(use.works and talk.said_yes(use.turn) for use in counting) else 0.0


def _evidence(
    talk: Talk, techniques: Mapping[str, TechniqueScore], missed: Sequence[Missed]
) -> Iterable[Evidence]:
    """The words behind each judgement: criteria, techniques, missed moments."""
    for sub in SubScore:
        yield from _evidence_of(talk, sub)
    for technique in techniques.values():
        yield technique.evidence
    for moment in missed:
        yield from (found for found in (moment.customer, moment.seller) if found)


def _evidence_of(talk: Talk, sub: SubScore) -> Iterable[Evidence]:
    """The best and the worst use for a criterion, else the seller's longest turn; for objections what the
    customer said, too."""
    uses = [use for use in talk.uses if sub in _step_or_self(talk.method, use.technique)]
    if sub is SubScore.OBJECTIONS:
        for reply in talk.resistance:
            yield talk.evidence(sub, reply.customer, reply.customer.attitude_quote)
            yield talk.evidence(sub, reply.answer[0])
    elif uses:
        best = max(uses, key=lambda use: use_points(talk, use))
        worst = min(uses, key=lambda use: use_points(talk, use))
        for use in (best,) if worst is best else (best, worst):
            yield talk.evidence(sub, use.turn, use.said.quote)
    elif sub_score(talk, sub) is not None:
        yield talk.evidence(sub, max(talk.sellers, key=lambda turn: len(turn.text)))


def _too_short(method: Methodology, named: str) -> ScoreCard:
    nothing = Metric(None, {})
    return ScoreCard(
        method=method.stamp,
        insufficient=True,
        overall=None,
        sub_scores=dict.fromkeys(SubScore),
        phases={phase.id: None for phase in method.flow},
        technique_scores={},
        metrics=dict.fromkeys(("structure", "attitudes", "balance", "impact"), nothing),
        highlights=(),
        evidence=(),
        missed=(),
        next_step=None,
        facts_hash=named,
    )


def _whole(score: float | None) -> int | None:
    return None if score is None else clamp(score)
