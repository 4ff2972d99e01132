"""The four detailed metrics of a talk (contract §8): structure, attitudes, balance, impact.

Each part is 0..100 or None where the talk says nothing about it; a metric is the mean of the parts it has, by
the weights of the method file. What is measured against a list (themes, key techniques) is so as
`Talk.asked_of` says: a short practice can be a good one, a phase that was hurried through is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from coach_server.domain.method.methodology import Epic, Methodology, TipType
from coach_server.domain.practice.scorecard import Metric, clamp
from coach_server.domain.practice.talk import Reply, Talk
from coach_server.domain.practice.talk_facts import (
    FULL,
    best_points,
    committed,
    crosses_into,
    echoes,
    met_points,
    perspective_ratio,
    points,
    talk_share,
    themes_asked,
)
from coach_server.domain.tip import Stage

# Talk share of the seller that is good (contract §8).
TALK_LEAST, TALK_MOST = 0.30, 0.65
# "You" per "we": below the first a seller speaks of himself, from the second of the customer (contract §8).
SELF_CENTRED, CUSTOMER_CENTRED = 0.8, 1.5
# Half of the turns of a discovery may be something else than a question.
QUESTIONS_GOOD = 0.5
ECHO_GOOD = 0.4
_ECHO_FROM_WORDS = 2
_NO_DISCOVERY, _NO_OPENING, _SKIPPED = 40.0, 15.0, 10.0
_RETURN, _RETURNS_MOST = 5.0, 15.0
_COMMITTED_WITHOUT_YES = 50.0

Parts = Mapping[str, float | None]


def metrics(talk: Talk) -> dict[str, Metric]:
    """All four by name."""
    found: dict[str, Parts] = {
        "structure": structure(talk),
        "attitudes": attitudes(talk),
        "balance": balance(talk),
        "impact": impact(talk),
    }
    return {name: _metric(talk.method, name, parts) for name, parts in found.items()}


def structure(talk: Talk) -> Parts:
    return {
        "flow": _flow(talk) if talk.scope else None,
        "themes": _themes(talk),
        "opening": phase_score(talk, talk.phase_of(Stage.GREETING)),
        "epic": _epic(talk),
    }


def attitudes(talk: Talk) -> Parts:
    """How well the customer's attitudes were met, by phase (`phase2`). Attitudes that only ask to go on (the
    positive ones) are no occasion."""
    opening = talk.phase_of(Stage.GREETING)
    later = [phase.id for phase in talk.method.flow if phase.id != opening]
    asked = [reply for reply in talk.replies if _asks_an_answer(talk, reply)]
    return {
        f"phase{phase}": _mean(met_points(talk, reply) for reply in asked if reply.customer.phase == phase)
        for phase in later
    }


def balance(talk: Talk) -> Parts:
    return {
        "talk": talk_score(talk),
        "perspective": _perspective(talk),
        "questions": question_score(talk),
        "echo": echo_score(talk),
    }


def impact(talk: Talk) -> Parts:
    return {
        "ovb": phase_score(talk, talk.phase_of(Stage.VALUE_PROP)),
        "pains": _pains_used(talk),
        "commitment": _commitment(talk),
    }


def phase_score(talk: Talk, phase_id: int | None) -> float | None:
    """The best use of each technique in a phase over its key techniques: sum / max(key, found), with as many
    key techniques as could be expected. 0 for a phase that was left out."""
    phase = next((phase for phase in talk.scope if phase.id == phase_id), None)
    if phase is None:
        return None
    here = [use for use in talk.uses if use.turn.phase == phase.id]
    best = best_points(talk, here, phase.key_techniques)
    asked = talk.asked_of(phase.id, len(phase.key_techniques))
    return sum(best.values()) / max(asked, len(best), 1)


def talk_score(talk: Talk) -> float | None:
    """Turns that came to nothing never make up for talking too little."""
    shares = [talk_share(talk), talk_share(talk, only_what_worked=True)]
    return min((_share_score(share) for share in shares if share is not None), default=None)


def question_score(talk: Talk) -> float | None:
    """Questions among the seller's turns of the discovery."""
    turns = talk.seller_turns_in(talk.phase_of(Stage.DISCOVERY))
    asked = sum(turn.is_question and not talk.is_missed(turn) for turn in turns)
    return _up_to(asked / len(turns), QUESTIONS_GOOD) if turns else None


def echo_score(talk: Talk) -> float | None:
    """Answers in which words of the customer come back."""
    heard = [reply for reply in talk.replies if len(talk.content(reply.customer)) >= _ECHO_FROM_WORDS]
    picked = sum(echoes(talk, reply) is not None for reply in heard)
    return _up_to(picked / len(heard), ECHO_GOOD) if heard else None


def weighted(parts: Parts, weights: Mapping[str, float]) -> float | None:
    """The mean of the parts there are; without weights each weighs the same."""
    there = {name: part for name, part in parts.items() if part is not None}
    total = sum(weights.get(name, 0.0) for name in there)
    if not there:
        return None
    if total <= 0:
        return sum(there.values()) / len(there)
    return sum(part * weights.get(name, 0.0) for name, part in there.items()) / total


def _metric(method: Methodology, name: str, parts: Parts) -> Metric:
    score = weighted(parts, method.scoring.weights.get(name, {}))
    shown = {key: None if part is None else clamp(part) for key, part in parts.items()}
    return Metric(None if score is None else clamp(score), shown)


def _flow(talk: Talk) -> float:
    """100, less for phases left out on the way, a little more for going back to ask. A phase counts as
    visited when something there was more than a miss."""
    visited = [turn.phase for turn in talk.turns if not (turn.is_seller and talk.is_missed(turn))]
    discovery, opening = talk.phase_of(Stage.DISCOVERY), talk.phase_of(Stage.GREETING)
    costs = {discovery: _NO_DISCOVERY, opening: _NO_OPENING}
    lost = sum(costs.get(phase.id, _SKIPPED) for phase in talk.scope if phase.id not in visited)
    won = min(_RETURNS_MOST, _RETURN * _returns(visited, discovery, talk.phase_of(Stage.VALUE_PROP)))
    return max(0.0, min(FULL, FULL - lost + won))


def _returns(visited: Sequence[int], discovery: int | None, value: int | None) -> int:
    """How often the talk was in the value phase and later in the discovery again."""
    count, waiting = 0, False
    for phase in visited:
        if phase == value:
            waiting = True
        elif phase == discovery and waiting:
            count, waiting = count + 1, False
    return count


def _themes(talk: Talk) -> float | None:
    asked, known = themes_asked(talk)
    expected = max(1, talk.asked_of(talk.phase_of(Stage.DISCOVERY), known))
    return FULL * min(1.0, len(asked) / expected) if known else None


def _epic(talk: Talk) -> float | None:
    """The steps of the customer's mind that the seller took him through, each by its best use."""
    steps = {technique.epic for technique in talk.method.techniques if technique.epic}
    discovery = talk.phase_of(Stage.DISCOVERY)
    if not steps or not talk.in_scope(discovery):
        return None
    reached = [_best_of_epic(talk, step) for step in Epic if step in steps]
    return min(FULL, sum(reached) / max(1, talk.asked_of(discovery, len(steps))))


def _best_of_epic(talk: Talk, step: Epic) -> float:
    found = (points(talk.method, use.quality) for use in talk.uses if use.technique.epic is step)
    return max(found, default=0.0)


def _asks_an_answer(talk: Talk, reply: Reply) -> bool:
    attitude = talk.method.attitude(reply.customer.attitude) if reply.customer.attitude else None
    if attitude is None or attitude.tip_type is TipType.POSITIEF:
        return False
    return any(talk.method.answers(attitude.id, reply.customer.phase))


def _share_score(share: float) -> float:
    if share < TALK_LEAST:
        return FULL * share / TALK_LEAST
    return FULL * min(1.0, (1 - share) / (1 - TALK_MOST))


def _perspective(talk: Talk) -> float | None:
    ratio = perspective_ratio(talk)
    if ratio is None:
        return None
    if ratio < SELF_CENTRED:
        return FULL / 2 * ratio / SELF_CENTRED
    above = (ratio - SELF_CENTRED) / (CUSTOMER_CENTRED - SELF_CENTRED)
    return FULL / 2 * (1 + min(1.0, above))


def _pains_used(talk: Talk) -> float | None:
    """Which of the problems the customer told come back in what the seller proposes."""
    value = talk.phase_of(Stage.VALUE_PROP)
    if value is None or not talk.in_scope(value):
        return None
    told = [turn for turn in talk.turns if talk.has_pain(turn) and turn.phase <= value]
    offered = [turn for turn in talk.sellers if turn.phase >= value and not talk.is_missed(turn)]
    said = frozenset(word for turn in offered for word in talk.content(turn))
    return FULL * sum(bool(talk.content(turn) & said) for turn in told) / len(told) if told else None


def _commitment(talk: Talk) -> float | None:
    """Whether the customer said yes to what he wants to gain and avoid before anything was offered. None for
    a talk that never had to: it came no further, or began beyond."""
    asked = committed(talk)
    if asked is not None:
        return FULL if talk.said_yes(asked.turn) else _COMMITTED_WITHOUT_YES
    return 0.0 if crosses_into(talk, talk.method.commitment_before) is not None else None


def _mean(scores: Iterable[float]) -> float | None:
    found = list(scores)
    return sum(found) / len(found) if found else None


def _up_to(share: float, good: float) -> float:
    return FULL * min(1.0, share / good)
