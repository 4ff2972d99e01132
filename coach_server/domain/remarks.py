"""What went well in a call and what to do differently: at most three of each, each resting on lines of it.

No wording here: a remark carries an id, figures and its evidence. Thresholds are the common ones of sales
coaching (about half the talking, open questions over closed ones); they are constants to be read and changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coach_server.domain.debrief import Aftermath, Debrief, DebriefCues, Met, ObjectionMet, asks, words_in
from coach_server.domain.detection import Objection, Signal
from coach_server.domain.ledger import Fate, Line, Reaction, TipOutcome, turns
from coach_server.domain.metrics import Conduct
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker

MOST_REMARKS = 3
TALK_SHARE_GOOD = 0.55
TALK_SHARE_HIGH = 0.65
MONOLOGUE_WORDS = 110
PACE_HIGH = 190
OPEN_QUESTIONS_GOOD = 3
OPEN_QUESTIONS_FEW = 2
# With fewer lines of the agent, too few questions or too many words say nothing.
LINES_TO_JUDGE = 4
STACKED_QUESTIONS = 3


@dataclass(frozen=True, slots=True)
class Remark:
    """`id` names the wording, `values` fill it, `evidence` are the lines it rests on."""

    id: str
    weight: int
    evidence: tuple[Line, ...]
    values: Mapping[str, str | int] = field(default_factory=dict)
    objection: Objection | None = None


def strengths(
    call: Debrief, ledger: Sequence[TipOutcome], conduct: Conduct, cues: DebriefCues
) -> tuple[Remark, ...]:
    return _first(_strengths(call, ledger, conduct, cues))


def improvements(call: Debrief, conduct: Conduct, cues: DebriefCues) -> tuple[Remark, ...]:
    return _first(_improvements(call, conduct, cues))


def _first(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    """The weightiest ones, each with evidence, one of a kind."""
    best: dict[str, Remark] = {}
    for remark in remarks:
        if remark.evidence and remark.id not in best:
            best[remark.id] = remark
    ordered = sorted(best.values(), key=lambda found: (-found.weight, found.evidence[0].sequence, found.id))
    return tuple(ordered[:MOST_REMARKS])


def _strengths(
    call: Debrief, ledger: Sequence[TipOutcome], conduct: Conduct, cues: DebriefCues
) -> Iterable[Remark]:
    if call.next_step and call.next_step.confirmation:
        both = (call.next_step.proposal, call.next_step.confirmation)
        yield Remark("next_step", 90, both if both[0] is not both[1] else both[:1])
    for objection in call.objections:
        if objection.aftermath is Aftermath.REPEATED:
            continue
        if objection.met is Met.EXPLORED:
            yield Remark("objection_explored", 80, _pair(objection), objection=objection.kind)
        elif objection.met is Met.ANSWERED and objection.aftermath is Aftermath.ACCEPTED:
            yield Remark("objection_answered", 62, _pair(objection), objection=objection.kind)
    for signal in call.signals:
        if signal.kind is Signal.BUYING and signal.taken_up:
            yield Remark("buying_taken_up", 75, (signal.line, *signal.response[:1]))
    opened, closed = conduct.open_questions, conduct.closed_questions
    if opened >= OPEN_QUESTIONS_GOOD and opened >= closed and call.questions.open:
        telling = _most_telling(call.lines, call.questions.open)
        yield Remark("open_questions", 70, (telling,), {"open": opened, "closed": closed})
    if impact := _first_with(call, cues, "impact"):
        yield Remark("impact", 65, (impact,))
    if summary := _first_with(call, cues, "summarise"):
        yield Remark("summarised", 60, (summary,))
    share = conduct.agent_share
    if share is not None and share <= TALK_SHARE_GOOD and len(call.agent_lines) >= OPEN_QUESTIONS_GOOD:
        yield Remark("listened", 50, _longest(call, Speaker.CUSTOMER)[:1], {"percent": round(share * 100)})
    landed = [
        outcome
        for outcome in ledger
        if outcome.fate is Fate.TAKEN
        and outcome.reaction in (Reaction.WARMED, Reaction.ASKED, Reaction.NEUTRAL)
    ]
    if len(landed) >= 2:
        best = max(landed, key=lambda outcome: outcome.similarity)
        yield Remark("tips_landed", 40, best.said[:1], {"count": len(landed)})


def _improvements(call: Debrief, conduct: Conduct, cues: DebriefCues) -> Iterable[Remark]:
    refusal = call.refusal()
    if refusal is not None:
        yield from _pushed_on(call, refusal)
    elif cues.known and not (call.next_step and call.next_step.agreed):
        evidence = (call.next_step.proposal,) if call.next_step else call.agent_lines[-1:]
        yield Remark("no_next_step", 90, evidence)
    for objection in call.objections:
        weight = {Met.ARGUED: 85, Met.IGNORED: 80, Met.CONCEDED: 58}.get(objection.met)
        if weight is not None:
            yield Remark(f"objection_{objection.met}", weight, _pair(objection), objection=objection.kind)
        elif objection.aftermath is Aftermath.REPEATED:
            yield Remark("objection_repeated", 68, _pair(objection), objection=objection.kind)
    for signal in call.signals:
        if signal.kind is Signal.BUYING and signal.taken_up is False and cues.known:
            yield Remark("buying_missed", 78, (signal.line, *signal.response[:1]))
        if signal.kind is Signal.PAIN and signal.taken_up is False and cues.known:
            yield Remark("pain_passed_by", 50, (signal.line, *signal.response[:1]))
    yield from _habits(call, conduct)


def _pushed_on(call: Debrief, refusal: Line) -> Iterable[Remark]:
    later = turns(line for line in call.lines if line.sequence > refusal.sequence)
    mine = [turn for turn in later if turn[0].by_agent]
    # One turn to understand, one to say goodbye; a third works against the customer.
    if len(mine) > 2:
        yield Remark("pushed_on", 100, (refusal, mine[1][0]))


def _habits(call: Debrief, conduct: Conduct) -> Iterable[Remark]:
    mine, longest = call.agent_lines, _longest(call, Speaker.AGENT)
    pitch = next((line for line in mine if line.detection.stage is Stage.VALUE_PROP), None)
    if conduct.open_questions < OPEN_QUESTIONS_FEW and len(mine) >= LINES_TO_JUDGE:
        evidence = call.questions.closed[:1] or ((pitch,) if pitch else longest[:1])
        yield Remark("few_open_questions", 72, evidence, {"count": conduct.open_questions})
    share = conduct.agent_share
    if share is not None and share > TALK_SHARE_HIGH and len(mine) >= LINES_TO_JUDGE:
        yield Remark("talk_share", 65, longest[:1], {"percent": round(share * 100)})
    if conduct.longest_monologue_words > MONOLOGUE_WORDS:
        yield Remark("monologue", 60, longest[:1], {"words": conduct.longest_monologue_words})
    if pitch and not asks(line for line in mine if line.sequence < pitch.sequence):
        yield Remark("pitched_first", 55, (pitch,))
    pace = conduct.pace_wpm
    if pace is not None and pace > PACE_HIGH:
        yield Remark("pace", 45, longest[:1], {"pace": round(pace)})
    stacked = next((line for line in mine if line.utterance.text.count("?") >= STACKED_QUESTIONS), None)
    if stacked:
        yield Remark("stacked_questions", 35, (stacked,))


def _first_with(call: Debrief, cues: DebriefCues, name: str) -> Line | None:
    return next((line for line in call.agent_lines if cues.has(name, line.utterance.text)), None)


def _longest(call: Debrief, speaker: Speaker) -> tuple[Line, ...]:
    """The turn of most words."""
    mine = [turn for turn in turns(call.lines) if turn[0].utterance.speaker is speaker]
    return max(mine, key=lambda turn: sum(map(words_in, turn)), default=())


def _pair(objection: ObjectionMet) -> tuple[Line, ...]:
    return (objection.line, *objection.response[:1])


def _most_telling(lines: Sequence[Line], asked: Sequence[Line]) -> Line:
    """The question that made the customer talk most."""

    def answer_words(question: Line) -> int:
        later = turns(line for line in lines if line.sequence > question.sequence)
        answer = next((turn for turn in later[:2] if not turn[0].by_agent), ())
        return sum(map(words_in, answer))

    return max(asked, key=answer_words)
