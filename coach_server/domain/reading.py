"""From cue findings to a Detection: what the rules alone make of one utterance in its context."""

from __future__ import annotations

from collections.abc import Sequence

from coach_server.domain.cues import Cues, Finding, Words, words_of
from coach_server.domain.detection import Detection, Objection, Signal
from coach_server.domain.questions import questions
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker

BARE_WORDS = 7
_ANSWER = 0.7
_GUESS = 0.45
_AFTER_OBJECTION = 0.6
_LATE = (Stage.NEXT_STEPS, Stage.CLOSING, Stage.CONVERSION)
_OBJECTIONS = {str(o): o for o in Objection}
_SIGNALS = {str(s): s for s in Signal}
_STAGES = {str(s): s for s in Stage}


def read(cues: Cues, text: str, speaker: Speaker, context: Sequence[str] = ()) -> Detection:
    """The Detection by rules alone. `context`: utterances before this one, oldest first."""
    return detection_of(findings_of(cues, text, speaker, context))


def findings_of(cues: Cues, text: str, speaker: Speaker, context: Sequence[str] = ()) -> list[Finding]:
    """Every finding of a text, the stage among them (one at most), each with its quote."""
    words = words_of(text)
    if not words.forms:
        return []
    found = cues.find(words, speaker) + questions(cues, words)
    if speaker is Speaker.CUSTOMER and context:
        found += _answers(cues, words, found, context[-1])
    if speaker is Speaker.AGENT and context:
        found += _follows(cues, words, context[-1])
    found = _settle(found)
    stage = _stage(found, speaker)
    rest = [f for f in found if f.name not in _STAGES]
    return [stage, *rest] if stage is not None else rest


def detection_of(findings: Sequence[Finding]) -> Detection:
    names = {f.name for f in findings}
    stage = next((_STAGES[f.name] for f in findings if f.name in _STAGES), None)
    told = [f for f in findings if f.name in _OBJECTIONS or f.name in _SIGNALS or f.name in _STAGES]
    return Detection(
        stage=stage,
        objections=tuple(o for o in Objection if o in names),
        signals=tuple(s for s in Signal if s in names),
        evidence={f.name: f.quote for f in told} or None,
        confidence=min((f.strength for f in told), default=0.0),
    )


def is_bare(cues: Cues, words: Words) -> str | None:
    """ "yes" or "no" when the text is nothing but that (`no, not really`), else None."""
    if not 0 < len(words.forms) <= BARE_WORDS:
        return None
    answer: str | None = None
    i, stop = 0, len(words.forms)
    while i < stop:
        no, yes = cues.listed("no", words, i, stop), cues.listed("yes", words, i, stop)
        end = max(no, yes, cues.listed("fillers", words, i, stop))
        if end == i:
            return None
        if max(no, yes) > i and answer != "no":
            answer = "no" if no >= yes else "yes"
        i = end
    return answer


def _answers(cues: Cues, words: Words, found: Sequence[Finding], asked: str) -> list[Finding]:
    """What a bare yes or no means, given the question before it."""
    answer = is_bare(cues, words)
    if answer is None:
        return []
    question = words_of(asked)
    heard = {f.name: f for f in cues.find(question, Speaker.AGENT)}
    is_question = bool(questions(cues, question))
    stage = _stage(list(heard.values()), Speaker.AGENT)
    quote = words.quote(0, len(words.forms) - 1)
    known = {f.name for f in found}
    result: list[Finding] = []
    if "asks_concern" in heard:
        pass
    elif answer == "no" and "asks_need" in heard:
        result.append(Finding(Objection.NEED, quote, _ANSWER))
    elif "asks_interest" in heard or (is_question and stage is not None and _STAGES[stage.name] in _LATE):
        result.append(Finding(Signal.REFUSAL if answer == "no" else Signal.BUYING, quote, _ANSWER))
    if not result and stage is not None and not known & _STAGES.keys():
        result.append(Finding(stage.name, quote, _GUESS))
    return result


def _follows(cues: Cues, words: Words, heard: str) -> list[Finding]:
    """What the agent says right after an objection most likely handles it."""
    if any(f.name in _OBJECTIONS for f in cues.find(words_of(heard), Speaker.CUSTOMER)):
        return [Finding(Stage.OBJECTION_HANDLING, words.quote(0, len(words.forms) - 1), _AFTER_OBJECTION)]
    return []


def _settle(found: list[Finding]) -> list[Finding]:
    """Findings that exclude each other: a no is not a yes, and who wants to wait did not refuse."""
    names = {f.name for f in found}
    drop: set[str] = set()
    if Signal.REFUSAL in names or names & _OBJECTIONS.keys():
        drop.add(Signal.BUYING)
    if Signal.REFUSAL in names and Signal.POSTPONE in names:
        drop.add(Signal.POSTPONE)
    return [f for f in found if f.name not in drop]


def _stage(found: Sequence[Finding], speaker: Speaker) -> Finding | None:
    told = max((f for f in found if f.name in _STAGES), key=lambda f: f.strength, default=None)
    implied = _implied(found, speaker)
    if told is None or (implied is not None and implied.strength > told.strength):
        return implied
    return told


def _implied(found: Sequence[Finding], speaker: Speaker) -> Finding | None:
    by_name = {f.name: f for f in found}
    if speaker is Speaker.AGENT:
        asked = by_name.get(Signal.QUESTION_OPEN)
        return Finding(Stage.DISCOVERY, asked.quote, _GUESS) if asked else None
    objection = max((f for f in found if f.name in _OBJECTIONS), key=lambda f: f.strength, default=None)
    for cause, stage in (
        (objection, Stage.OBJECTION_HANDLING),
        (by_name.get(Signal.REFUSAL), Stage.OBJECTION_HANDLING),
        (by_name.get(Signal.POSTPONE), Stage.OBJECTION_HANDLING),
        (by_name.get(Signal.BUYING), Stage.CLOSING),
        (by_name.get(Signal.PAIN), Stage.DISCOVERY),
    ):
        if cause is not None:
            return Finding(stage, cause.quote, cause.strength)
    return None
