"""What stood out in a talk: at most two things that went well and two to do better, each with its words.

No wording here: a highlight carries the id of its rule, figures and its evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from coach_server.domain.method.metrics import (
    ECHO_GOOD,
    QUESTIONS_GOOD,
    SELF_CENTRED,
    TALK_LEAST,
    TALK_MOST,
    echo_score,
    question_score,
)
from coach_server.domain.method.turns import Quality, Turn
from coach_server.domain.metrics import count_words
from coach_server.domain.practice.scorecard import Evidence, Highlight, Kind, Missed
from coach_server.domain.practice.talk import Talk, Use
from coach_server.domain.practice.talk_facts import (
    FULL,
    committed,
    echoes,
    met_points,
    perspective_ratio,
    points,
    talk_share,
    themes_asked,
)
from coach_server.domain.tip import Stage

MOST_OF_A_KIND = 2
# With fewer turns of the seller a share of words or questions says nothing.
TURNS_TO_JUDGE = 4
_THEMES_GOOD = 4
# A few percent beyond what is good are nothing to speak of.
_CLOSE = 0.05
# The warnings that are missed moments come first, for they have a place in the talk.
_MISSED, _HABIT = 100.0, 60.0


def highlights(talk: Talk, missed: Sequence[Missed]) -> tuple[Highlight, ...]:
    """The heaviest two of each kind, the good ones first, one of an id and technique."""
    return (*_first(_good(talk)), *_first(_warnings(talk, missed)))


def _first(found: Iterable[Highlight]) -> tuple[Highlight, ...]:
    best: dict[tuple[str, str | None], Highlight] = {}
    for highlight in found:
        key = (highlight.id, highlight.technique)
        if highlight.evidence and (key not in best or highlight.weight > best[key].weight):
            best[key] = highlight
    ordered = sorted(best.values(), key=lambda h: (-h.weight, h.evidence[0].sequence, h.id))
    return tuple(_one_of_a_moment(ordered)[:MOST_OF_A_KIND])


def _one_of_a_moment(ordered: Sequence[Highlight]) -> list[Highlight]:
    """Two remarks on the same words say one thing twice."""
    kept: list[Highlight] = []
    for highlight in ordered:
        if all(highlight.evidence[-1].sequence != other.evidence[-1].sequence for other in kept):
            kept.append(highlight)
    return kept


def _good(talk: Talk) -> Iterator[Highlight]:
    yield from _resistance_met(talk)
    yield from _commitment(talk)
    yield from _techniques(talk)
    yield from _good_habits(talk)


def _resistance_met(talk: Talk) -> Iterator[Highlight]:
    good = points(talk.method, Quality.GOED)
    for reply in talk.resistance:
        if met_points(talk, reply) >= good:
            both = (talk.evidence("objections", reply.customer), talk.evidence("objections", reply.answer[0]))
            yield Highlight(Kind.GOOD, "resistance_met", 95, _best_id(talk, reply.answer), {}, both)


def _commitment(talk: Talk) -> Iterator[Highlight]:
    use = committed(talk)
    if use is not None and talk.said_yes(use.turn):
        yield Highlight(Kind.GOOD, "commitment", 90, use.technique.id, {}, (_words(talk, use),))


def _techniques(talk: Talk) -> Iterator[Highlight]:
    for use in talk.uses:
        weight = {Quality.PERFECT: 80.0, Quality.GOED: 50.0}.get(use.quality)
        if weight is not None:
            more = 5.0 if use.technique.required else 0.0
            name = f"technique_{use.quality}"
            yield Highlight(Kind.GOOD, name, weight + more, use.technique.id, {}, (_words(talk, use),))


def _good_habits(talk: Talk) -> Iterator[Highlight]:
    asked, known = themes_asked(talk)
    if len(asked) >= _THEMES_GOOD:
        turn = next(turn for turn in talk.sellers if turn.themes or talk.uses_of(turn))
        values = {"count": len(asked), "of": known}
        yield Highlight(Kind.GOOD, "themes", 70, None, values, (talk.evidence("metrics.structure", turn),))
    share = talk_share(talk)
    if share is None or len(talk.sellers) < TURNS_TO_JUDGE:
        return
    if TALK_LEAST <= share <= TALK_MOST:
        turn = _longest(talk.customers)
        values = {"percent": round(100 * share)}
        yield Highlight(Kind.GOOD, "room", 40, None, values, (talk.evidence("metrics.balance", turn),))
    if (echo_score(talk) or 0.0) >= FULL * ECHO_GOOD:
        echo = next(found for reply in talk.replies if (found := echoes(talk, reply)))
        yield Highlight(Kind.GOOD, "echo", 45, None, {}, (talk.evidence("metrics.balance", echo),))


def _warnings(talk: Talk, missed: Sequence[Missed]) -> Iterator[Highlight]:
    rules = {kind.id: kind.rule for kind in talk.method.missed}
    for moment in missed:
        evidence = tuple(found for found in (moment.customer, moment.seller) if found)
        weight = _MISSED * (1 + moment.weight)
        yield Highlight(Kind.WARNING, rules[moment.moment], weight, moment.technique, {}, evidence)
    for use in talk.uses:
        if use.turn.phase in use.technique.forbidden:
            yield Highlight(
                Kind.WARNING, "forbidden", _MISSED - 5, use.technique.id, {}, (_words(talk, use),)
            )
        elif use.quality in (Quality.GEMIST, Quality.BIJNA):
            weight = _HABIT + (10 if use.quality is Quality.GEMIST else -15)
            name = f"technique_{use.quality}"
            yield Highlight(Kind.WARNING, name, weight, use.technique.id, {}, (_words(talk, use),))
    if len(talk.sellers) >= TURNS_TO_JUDGE:
        yield from _poor_habits(talk)


def _poor_habits(talk: Talk) -> Iterator[Highlight]:
    share, ratio, asked = talk_share(talk), perspective_ratio(talk), question_score(talk)
    longest = talk.evidence("metrics.balance", _longest(talk.sellers))
    if share is not None and not TALK_LEAST - _CLOSE <= share <= TALK_MOST + _CLOSE:
        name = "talked_much" if share > TALK_MOST else "talked_little"
        yield Highlight(Kind.WARNING, name, _HABIT, None, {"percent": round(100 * share)}, (longest,))
    if ratio is not None and ratio < SELF_CENTRED:
        turn = max(talk.sellers, key=lambda turn: len(turn.text))
        evidence = (talk.evidence("metrics.balance", turn),)
        yield Highlight(Kind.WARNING, "self_centred", _HABIT - 5, None, {}, evidence)
    turns = talk.seller_turns_in(talk.phase_of(Stage.DISCOVERY))
    if asked is not None and len(turns) >= TURNS_TO_JUDGE and asked < FULL * QUESTIONS_GOOD:
        count = sum(turn.is_question for turn in turns)
        statement = next(turn for turn in turns if not turn.is_question or talk.is_missed(turn))
        evidence = (talk.evidence("metrics.balance", statement),)
        yield Highlight(Kind.WARNING, "few_questions", _HABIT - 2, None, {"count": count}, evidence)


def _words(talk: Talk, use: Use) -> Evidence:
    return talk.evidence(use.technique.id, use.turn, use.said.quote)


def _best_id(talk: Talk, answer: Sequence[Turn]) -> str | None:
    uses = [use for turn in answer for use in talk.uses_of(turn) if use.works]
    return max(uses, key=lambda use: points(talk.method, use.quality)).technique.id if uses else None


def _longest(turns: Sequence[Turn]) -> Turn:
    return max(turns, key=lambda turn: count_words(turn.text))
