"""Looking back on a call: the way through the stages, how objections were met, what was agreed.

Rules over lines that a detector has read, plus cue words of the call's language. Where a language has no
cues, what rests on them is left unjudged rather than guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from coach_server.domain.detection import Objection, Signal
from coach_server.domain.ledger import Line, content_words, turns
from coach_server.domain.tip import Stage

FEWEST_UTTERANCES = 4

_QUESTIONS = {Signal.QUESTION_OPEN, Signal.QUESTION_CLOSED}
_LATE = (Stage.NEXT_STEPS, Stage.CLOSING, Stage.CONVERSION)
# "Okay." between two sentences of a customer is not the answer to an objection.
_BACKCHANNEL_WORDS = 2
_REPLY_WITHIN = 6


class Met(StrEnum):
    """How the agent met an objection. `explored` asks what is behind it, `unknown` when nothing can tell."""

    EXPLORED = "explored"
    ANSWERED = "answered"
    CONCEDED = "conceded"
    ARGUED = "argued"
    IGNORED = "ignored"
    UNKNOWN = "unknown"


class Aftermath(StrEnum):
    """What the customer did with the answer: came along, said the same again, or neither."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class DebriefCues:
    """Cue patterns of one language by name; `about` holds the words an answer to each objection uses."""

    patterns: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    about: Mapping[Objection, re.Pattern[str]] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        return bool(self.patterns)

    def has(self, name: str, text: str) -> bool:
        pattern = self.patterns.get(name)
        return pattern is not None and pattern.search(_plain(text)) is not None


CUE_NAMES = (
    "agree", "decline", "acknowledge", "argue", "concede", "summarise", "impact", "next_step", "day", "hour",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ObjectionMet:
    kind: Objection
    line: Line
    response: tuple[Line, ...]
    met: Met
    aftermath: Aftermath


@dataclass(frozen=True, slots=True)
class SignalSeen:
    """`taken_up`: whether the agent went along with it; None where that is no question (a refusal)."""

    kind: Signal
    line: Line
    taken_up: bool | None
    response: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class NextStep:
    """`when` is the day (and hour) as said. `confirmation` is None for a proposal nobody agreed to."""

    proposal: Line
    when: str
    confirmation: Line | None

    @property
    def agreed(self) -> bool:
        return self.confirmation is not None


@dataclass(frozen=True, slots=True)
class StageEntry:
    stage: Stage
    line: Line


@dataclass(frozen=True, slots=True)
class Questions:
    open: tuple[Line, ...]
    closed: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Debrief:
    """`reached` is the furthest stage, `path` how the call got there and on."""

    lines: tuple[Line, ...]
    path: tuple[StageEntry, ...]
    reached: Stage
    objections: tuple[ObjectionMet, ...]
    signals: tuple[SignalSeen, ...]
    questions: Questions
    next_step: NextStep | None

    @property
    def agent_lines(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.by_agent)

    def refusal(self) -> Line | None:
        """A clear no that was not taken back by interest later on."""
        last: Line | None = None
        for signal in self.signals:
            if signal.kind is Signal.REFUSAL:
                last = signal.line
            elif signal.kind is Signal.BUYING:
                last = None
        return last


def debrief(lines: Sequence[Line], cues: DebriefCues, *, language: str, last_stage: Stage) -> Debrief:
    """What happened in the call. `last_stage` is where the live coach stood at the end."""
    path = stage_path(lines)
    return Debrief(
        lines=tuple(lines),
        path=path,
        reached=_reached(path, last_stage),
        objections=objections_met(lines, cues, language),
        signals=signals_seen(lines, cues),
        questions=questions_asked(lines),
        next_step=next_step(lines, cues),
    )


def stage_path(lines: Sequence[Line]) -> tuple[StageEntry, ...]:
    """The stages the call went through, each with the line that brought it there."""
    path: list[StageEntry] = []
    for line in lines:
        if not path or path[-1].stage is not line.stage:
            path.append(StageEntry(line.stage, line))
    return tuple(path)


def questions_asked(lines: Iterable[Line]) -> Questions:
    mine = [line for line in lines if line.by_agent]
    return Questions(
        open=tuple(line for line in mine if Signal.QUESTION_OPEN in line.detection.signals),
        closed=tuple(line for line in mine if Signal.QUESTION_CLOSED in line.detection.signals),
    )


def objections_met(lines: Sequence[Line], cues: DebriefCues, language: str) -> tuple[ObjectionMet, ...]:
    """Each objection of the customer, once per turn and kind, with the agent's next words."""
    found: list[ObjectionMet] = []
    groups = turns(lines)
    for index, group in enumerate(groups):
        if group[0].by_agent:
            continue
        seen: set[Objection] = set()
        for line in group:
            for kind in line.detection.objections:
                if kind not in seen:
                    seen.add(kind)
                    found.append(_objection(kind, line, groups[index + 1 :], cues, language))
    return tuple(found)


def signals_seen(lines: Sequence[Line], cues: DebriefCues) -> tuple[SignalSeen, ...]:
    """What the customer let show, question marks aside."""
    found: list[SignalSeen] = []
    groups = turns(lines)
    for index, group in enumerate(groups):
        if group[0].by_agent:
            continue
        replies = [turn for turn in groups[index + 1 :] if turn[0].by_agent][:2]
        for line in group:
            for kind in line.detection.signals:
                if kind not in _QUESTIONS:
                    response = replies[0] if replies else ()
                    found.append(SignalSeen(kind, line, _taken_up(kind, replies, cues), response))
    return tuple(found)


def next_step(lines: Sequence[Line], cues: DebriefCues) -> NextStep | None:
    """The last agreement on a day, else the last proposal of one, else None."""
    steps = [step for index in range(len(lines)) if (step := _step_at(lines, index, cues))]
    agreed = [step for step in steps if step.agreed]
    return agreed[-1] if agreed else steps[-1] if steps else None


def when_said(text: str, cues: DebriefCues) -> str:
    """The day, with an hour beside it, in the words of `text`; empty when no day is named."""
    day, hour = cues.patterns.get("day"), cues.patterns.get("hour")
    if day is None:
        return ""
    plain = _plain(text)
    days = [match.span() for match in day.finditer(plain)]
    if not days:
        return ""
    spans = sorted(days + ([match.span() for match in hour.finditer(plain)] if hour else []))
    best = days[0]
    for start, end in spans:
        if start <= best[1] + 12 and end > best[1] and end - best[0] <= 60:
            best = (best[0], end)
    return text[slice(*best)].strip()


def _reached(path: Sequence[StageEntry], last_stage: Stage) -> Stage:
    """The furthest stage. A call that closed only because the customer said no did not reach the close."""
    order = list(Stage)
    stages = [entry.stage for entry in path if Signal.REFUSAL not in entry.line.detection.signals]
    refused = any(Signal.REFUSAL in entry.line.detection.signals for entry in path)
    if not refused or not stages:
        stages.append(last_stage)
    return max(stages, key=order.index)


def _plain(text: str) -> str:
    """Lower case, straight apostrophes. Same length as `text`, so that positions carry over."""
    lowered = text.lower()
    return (lowered if len(lowered) == len(text) else text).replace("’", "'")


def words_in(line: Line) -> int:
    return len(line.utterance.text.split())


def _joined(lines: Iterable[Line]) -> str:
    return " ".join(line.utterance.text for line in lines)


def asks(lines: Iterable[Line]) -> bool:
    return any(_QUESTIONS & set(line.detection.signals) or "?" in line.utterance.text for line in lines)


def _reply(groups: Sequence[tuple[Line, ...]]) -> tuple[int, tuple[Line, ...]]:
    """The agent's next real turn among `groups`, and where it stands; (0, ()) when there is none soon."""
    for index, group in enumerate(groups[:_REPLY_WITHIN]):
        if group[0].by_agent and (sum(map(words_in, group)) > _BACKCHANNEL_WORDS or asks(group)):
            return index, group
    return 0, ()


def _objection(
    kind: Objection, line: Line, later: Sequence[tuple[Line, ...]], cues: DebriefCues, language: str
) -> ObjectionMet:
    index, response = _reply(later)
    after = next((turn for turn in later[index + 1 :] if not turn[0].by_agent), ()) if response else ()
    return ObjectionMet(
        kind=kind,
        line=line,
        response=response,
        met=_met(kind, line, response, cues, language),
        aftermath=_aftermath(kind, after, cues),
    )


def _met(kind: Objection, line: Line, response: Sequence[Line], cues: DebriefCues, language: str) -> Met:
    if not response:
        return Met.IGNORED
    said = _joined(response)
    if cues.has("argue", said):
        return Met.ARGUED
    about = cues.about.get(kind)
    on_topic = (about is not None and about.search(_plain(said)) is not None) or bool(
        content_words(said, language) & content_words(line.utterance.text, language)
    )
    # Who is not the only one to decide, or not now, is answered by a proposal of who and when.
    proposes = kind in (Objection.AUTHORITY, Objection.TIMING) and cues.has("next_step", said)
    heard = on_topic or proposes or cues.has("acknowledge", said)
    if heard and asks(response):
        return Met.EXPLORED
    if any(Signal.QUESTION_OPEN in reply.detection.signals for reply in response):
        return Met.EXPLORED
    if kind is Objection.PRICE and cues.has("concede", said):
        return Met.CONCEDED
    if heard:
        return Met.ANSWERED
    return Met.IGNORED if cues.known else Met.UNKNOWN


def _aftermath(kind: Objection, after: Sequence[Line], cues: DebriefCues) -> Aftermath:
    if any(kind in line.detection.objections for line in after):
        return Aftermath.REPEATED
    if any(Signal.REFUSAL in line.detection.signals or line.detection.objections for line in after):
        return Aftermath.OPEN
    if any(
        Signal.BUYING in line.detection.signals or cues.has("agree", line.utterance.text) for line in after
    ):
        return Aftermath.ACCEPTED
    return Aftermath.OPEN


def _taken_up(kind: Signal, replies: Sequence[tuple[Line, ...]], cues: DebriefCues) -> bool | None:
    if kind is Signal.PAIN:
        return bool(replies) and (asks(replies[0]) or cues.has("acknowledge", _joined(replies[0])))
    if kind is not Signal.BUYING:
        return None
    if not replies:
        return False
    if asks(replies[0]):
        return True
    near = [line for turn in replies for line in turn]
    return any(line.detection.stage in _LATE for line in near) or any(
        cues.has(name, _joined(near)) for name in ("next_step", "day")
    )


def _step_at(lines: Sequence[Line], index: int, cues: DebriefCues) -> NextStep | None:
    line = lines[index]
    when = when_said(line.utterance.text, cues)
    if not when:
        return None
    around = [line, *(other for other in lines[max(0, index - 2) : index] if other.by_agent)]
    if not any(cues.has("next_step", other.utterance.text) for other in around):
        return None
    if _agrees(line, cues) and not line.by_agent and not asks([line]):
        proposal = _proposal(lines, index)
        return NextStep(proposal, max(when_said(proposal.utterance.text, cues), when, key=len), line)
    for other in lines[index + 1 : index + 4]:
        if other.utterance.speaker is line.utterance.speaker:
            continue
        return NextStep(line, when, other if _agrees(other, cues) else None)
    return NextStep(line, when, None)


def _proposal(lines: Sequence[Line], index: int) -> Line:
    """What a customer's "Thursday at ten is fine" answers: the agent's line before it, where there is one."""
    before = lines[index - 1] if index else lines[index]
    return before if before.by_agent else lines[index]


def _agrees(line: Line, cues: DebriefCues) -> bool:
    signals = line.detection.signals
    if Signal.REFUSAL in signals or Signal.POSTPONE in signals or cues.has("decline", line.utterance.text):
        return False
    return Signal.BUYING in signals or cues.has("agree", line.utterance.text)
