"""What a call comes to when it is over: one JSON document, by rules alone, the same for the same record.

A model may reword the summary and the advice afterwards (`polish`); figures and quotes stay as found.
Everything here is plain computing over a whole call and reads its wording from files the first time:
run `analyse` off the event loop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coach_server.domain import metrics
from coach_server.domain.debrief import (
    FEWEST_UTTERANCES,
    Debrief,
    Met,
    NextStep,
    ObjectionMet,
    SignalSeen,
    debrief,
)
from coach_server.domain.detection import Detection, Signal
from coach_server.domain.ledger import Fate, Line, TipOutcome, follow, outcomes
from coach_server.domain.remarks import Remark, improvements, strengths
from coach_server.domain.tip import ShownTip, Stage
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.domain.wording import one_line
from coach_server.errors import CoachError
from coach_server.services.analysis_wording import Wording, wording_for

VERSION = 1
QUOTE_CHARS = 300
CONTEXT_UTTERANCES = 4

SUMMARY_CHARS = 1200
ADVICE_CHARS = 300
_POLISH_TRANSCRIPT_CHARS = 12_000


class Eyes(Protocol):
    """The part of the detector an analysis needs (services/detector.py)."""

    def detect_rules(
        self, text: str, *, speaker: Speaker, language: str, context: tuple[str, ...] = ()
    ) -> Detection: ...


class Ask(Protocol):
    """Renders the prompt `name` with the variables (and the language's name) and asks the model; None when
    that failed."""

    def __call__(self, name: str, language: str, **variables: str) -> Awaitable[str | None]: ...


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call that is over. Times are seconds since the epoch. `store_text` false: the customer opted out, so
    the document must hold nothing that was said."""

    conversation_id: str
    language: str
    started_at: float
    ended_at: float
    status: str
    utterances: tuple[Utterance, ...]
    tips: tuple[ShownTip, ...]
    last_stage: Stage
    facts: Mapping[str, str]
    store_text: bool = True


def analyse(record: CallRecord, eyes: Eyes) -> dict[str, Any]:
    """The analysis document (keys as on the wire; `atMs` counts from the start of the call).

    `conversationId, language, wordingLanguage, version, source, provisional, insufficient, status, startedAt,
    endedAt, durationMs, utterances, summary, stage {reached, last, path[]}, objections[], signals[],
    questions {open, closed, openShare}, conduct {…}, tips {shown, taken, ignored, unanswered, ledger[]},
    facts {}, nextStep {agreed, proposed, when, …}, strengths[], improvements[]`. With fewer than four
    utterances `insufficient` is true and nothing is judged. Without stored text every quote is null.
    """
    wording = wording_for(record.language)
    lines = follow(record.utterances, _detections(record, eyes))
    ledger = outcomes(record.tips, lines, record.language)
    call = debrief(lines, wording.cues, language=record.language, last_stage=record.last_stage)
    page = _Page(record, wording)
    document = page.frame() | page.stages(call) | page.tips(ledger)
    if len(lines) < FEWEST_UTTERANCES:
        return document | page.too_short()
    conduct = _conduct(record, eyes)
    return (
        document
        | page.findings(call)
        | page.conduct(conduct)
        | page.remarks(call, ledger, conduct)
        | {"summary": page.summary(call, ledger)}
    )


def _conduct(record: CallRecord, eyes: Eyes) -> metrics.Conduct:
    def question(sentence: str) -> tuple[Signal, ...]:
        return eyes.detect_rules(sentence, speaker=Speaker.AGENT, language=record.language).signals

    return metrics.conduct(record.utterances, classify=question)


def _detections(record: CallRecord, eyes: Eyes) -> Iterable[Detection]:
    before: list[str] = []
    for utterance in record.utterances:
        yield eyes.detect_rules(
            utterance.text,
            speaker=utterance.speaker,
            language=record.language,
            context=tuple(before[-CONTEXT_UTTERANCES:]),
        )
        before.append(utterance.text)


@dataclass(frozen=True, slots=True)
class _Page:
    """Writes the parts of the document for one record."""

    record: CallRecord
    wording: Wording

    def frame(self) -> dict[str, Any]:
        record = self.record
        return {
            "conversationId": record.conversation_id,
            "language": record.language,
            "wordingLanguage": self.wording.language,
            "version": VERSION,
            "source": "offline",
            "provisional": False,
            "insufficient": False,
            "status": record.status,
            "startedAt": round(record.started_at * 1000),
            "endedAt": round(record.ended_at * 1000),
            "durationMs": self._duration_ms(),
            "utterances": len(record.utterances),
            # What the customer told is in the customer's words.
            "facts": dict(sorted(record.facts.items())) if record.store_text else {},
        }

    def too_short(self) -> dict[str, Any]:
        return {
            "insufficient": True,
            "summary": self.wording.say("insufficient"),
            "objections": [],
            "signals": [],
            "questions": None,
            "conduct": None,
            "nextStep": None,
            "strengths": [],
            "improvements": [],
        }

    def stages(self, call: Debrief) -> dict[str, Any]:
        path = [
            {"stage": entry.stage, "sequence": entry.line.sequence, "atMs": self._at_ms(entry.line)}
            for entry in call.path
        ]
        return {"stage": {"reached": call.reached, "last": self.record.last_stage, "path": path}}

    def findings(self, call: Debrief) -> dict[str, Any]:
        return {
            "objections": [self._objection(objection) for objection in call.objections],
            "signals": [self._signal(signal) for signal in call.signals],
            "nextStep": self._next_step(call.next_step),
        }

    def conduct(self, conduct: metrics.Conduct) -> dict[str, Any]:
        share, pace = conduct.agent_share, conduct.pace_wpm
        return {
            "questions": {
                "open": conduct.open_questions,
                "closed": conduct.closed_questions,
                "openShare": round(conduct.open_questions / conduct.questions, 2)
                if conduct.questions
                else None,
            },
            "conduct": {
                "talkShare": None if share is None else round(share, 2),
                "agentWords": conduct.agent_words,
                "customerWords": conduct.customer_words,
                "longestMonologueWords": conduct.longest_monologue_words,
                "longestMonologueMs": round(conduct.longest_monologue_s * 1000),
                "wordsPerMinute": None if pace is None else round(pace),
            },
        }

    def tips(self, ledger: Sequence[TipOutcome]) -> dict[str, Any]:
        fates = [outcome.fate for outcome in ledger]
        return {
            "tips": {
                "shown": len(fates),
                "taken": fates.count(Fate.TAKEN),
                "ignored": fates.count(Fate.IGNORED),
                "unanswered": fates.count(Fate.UNANSWERED),
                "ledger": [self._outcome(outcome) for outcome in ledger],
            }
        }

    def remarks(
        self, call: Debrief, ledger: Sequence[TipOutcome], conduct: metrics.Conduct
    ) -> dict[str, Any]:
        cues = self.wording.cues
        return {
            "strengths": [
                {
                    "id": remark.id,
                    "text": self.wording.strengths[remark.id].substitute(self._values(remark)),
                    "evidence": self._evidence(remark),
                }
                for remark in strengths(call, ledger, conduct, cues)
            ],
            "improvements": [
                {
                    "id": remark.id,
                    "text": self.wording.improvements[remark.id].substitute(self._values(remark)),
                    "advice": self.wording.advice[remark.id],
                    "betterLine": self.wording.better[remark.objection] if remark.objection else None,
                    "evidence": self._evidence(remark),
                }
                for remark in improvements(call, conduct, cues)
            ],
        }

    def summary(self, call: Debrief, ledger: Sequence[TipOutcome]) -> str:
        say = self.wording.say
        parts = [say("length", duration=self._duration(), stage=self.wording.stages[call.reached])]
        parts.append(self._objections_in_words(call.objections))
        if call.refusal() is not None:
            parts.append(say("refused"))
        elif any(signal.kind is Signal.BUYING for signal in call.signals):
            parts.append(say("buying"))
        if self.record.store_text and self.record.facts:
            parts.append(say("facts", facts=self._facts_in_words()))
        if call.refusal() is None or call.next_step is not None:
            parts.append(self._next_step_in_words(call.next_step))
        if ledger:
            taken = sum(outcome.fate is Fate.TAKEN for outcome in ledger)
            many = len(ledger) > 1
            parts.append(
                say("tips_many", shown=len(ledger), taken=taken) if many else say("tips_one", taken=taken)
            )
        return " ".join(part for part in parts if part)

    def _objections_in_words(self, met: Sequence[ObjectionMet]) -> str:
        say = self.wording.say
        if not met:
            return say("objections_none")
        kinds = ", ".join(dict.fromkeys(self.wording.objections[objection.kind] for objection in met))
        if len(met) == 1:
            return say("objections_one", kinds=kinds, met=say(f"met_{met[0].met}"))
        handled = sum(objection.met in (Met.EXPLORED, Met.ANSWERED) for objection in met)
        return say("objections_many", count=len(met), kinds=kinds, handled=handled)

    def _facts_in_words(self) -> str:
        names = self.wording.facts
        return "; ".join(
            f"{names.get(key, key.replace('_', ' '))}: {value}"
            for key, value in sorted(self.record.facts.items())
            if not key.endswith("_known")
        )

    def _next_step_in_words(self, step: NextStep | None) -> str:
        say = self.wording.say
        if not self.wording.cues.known:
            return ""
        if step is None:
            return say("next_step_missing")
        if not step.agreed:
            return say("next_step_proposed")
        return say("next_step", when=step.when) if self.record.store_text else say("next_step_agreed")

    def _objection(self, objection: ObjectionMet) -> dict[str, Any]:
        well = objection.met in (Met.EXPLORED, Met.ANSWERED)
        return {
            "kind": objection.kind,
            **self._quote(objection.line),
            "met": objection.met,
            "aftermath": objection.aftermath,
            "response": self._turn(objection.response),
            "betterLine": None if well else self.wording.better[objection.kind],
        }

    def _signal(self, signal: SignalSeen) -> dict[str, Any]:
        return {"kind": signal.kind, **self._quote(signal.line), "takenUp": signal.taken_up}

    def _next_step(self, step: NextStep | None) -> dict[str, Any] | None:
        """None where the call's language has no cues to tell."""
        if not self.wording.cues.known:
            return None
        if step is None:
            return {"agreed": False, "proposed": False}
        confirmation = self._quote(step.confirmation) if step.confirmation else None
        return {
            "agreed": step.agreed,
            "proposed": True,
            "when": step.when if self.record.store_text else None,
            **self._quote(step.proposal),
            "confirmation": confirmation,
        }

    def _outcome(self, outcome: TipOutcome) -> dict[str, Any]:
        shown, keep = outcome.shown, self.record.store_text
        chosen = shown.tip.options[outcome.option - 1] if outcome.option else None
        return {
            "recommendationId": shown.recommendation_id,
            "atMs": self._ms(shown.shown_at),
            "trigger": shown.trigger,
            "stage": shown.tip.stage,
            "techniqueId": shown.tip.technique_id,
            "source": shown.tip.source,
            "latencyMs": shown.latency_ms,
            "fate": outcome.fate,
            "clicked": outcome.clicked,
            "option": outcome.option,
            "label": chosen.label if chosen else None,
            "lineId": chosen.line_id if chosen else None,
            "similarity": outcome.similarity,
            # A tip takes up what was said, so it is not kept either where the customer opted out.
            "heading": shown.tip.heading if keep else None,
            "suggested": chosen.script if chosen and keep else None,
            "said": self._turn(outcome.said),
            "reaction": outcome.reaction,
            "answer": self._turn(outcome.reaction_lines),
            "stageBefore": outcome.stage_before,
            "stageAfter": outcome.stage_after,
            "moved": outcome.moved,
        }

    def _values(self, remark: Remark) -> dict[str, str | int]:
        kind = {"kind": self.wording.objections[remark.objection]} if remark.objection else {}
        return {**remark.values, **kind}

    def _evidence(self, remark: Remark) -> list[dict[str, Any]]:
        return [self._quote(line) for line in remark.evidence]

    def _quote(self, line: Line) -> dict[str, Any]:
        return {
            "quote": _cut(line.utterance.text) if self.record.store_text else None,
            "speaker": _SPEAKER[line.utterance.speaker],
            "sequence": line.sequence,
            "atMs": self._at_ms(line),
        }

    def _turn(self, lines: Sequence[Line]) -> dict[str, Any] | None:
        """Several lines of one speaker as one quote, at the first one's place."""
        if not lines:
            return None
        said = " ".join(line.utterance.text for line in lines)
        return {**self._quote(lines[0]), "quote": _cut(said) if self.record.store_text else None}

    def _at_ms(self, line: Line) -> int:
        """A client's clock may be wrong by hours; then the moment the server heard it is the better one."""
        said, record = line.utterance.said_at, self.record
        believable = record.started_at - _CLOCK_SLACK_S <= said <= record.ended_at + _CLOCK_SLACK_S
        return self._ms(said if believable else line.utterance.heard_at)

    def _ms(self, when: float) -> int:
        return max(0, round((when - self.record.started_at) * 1000))

    def _duration_ms(self) -> int:
        return self._ms(self.record.ended_at)

    def _duration(self) -> str:
        minutes, seconds = divmod(self._duration_ms() // 1000, 60)
        if not minutes:
            return self.wording.say("seconds", seconds=seconds)
        return self.wording.say("minutes", minutes=minutes, seconds=seconds)


_SPEAKER = {Speaker.AGENT: "agent", Speaker.CUSTOMER: "caller"}
_CLOCK_SLACK_S = 5.0


def _cut(text: str) -> str:
    """At most `QUOTE_CHARS`, cut between words."""
    if len(text) <= QUOTE_CHARS:
        return text
    return text[: QUOTE_CHARS - 1].rsplit(" ", 1)[0] + "…"


# Texts of a document that name what was found, from closed sets or from files of ours.
_NAMES = {
    "conversationId", "language", "wordingLanguage", "source", "status", "stage", "reached", "last", "kind",
    "met", "aftermath", "speaker", "recommendationId", "trigger", "techniqueId", "fate", "label", "lineId",
    "reaction", "stageBefore", "stageAfter", "id", "betterLine",
}  # fmt: skip
# Sentences that may repeat what was said, where the document's shape wants a text.
_SENTENCES = {"summary", "text", "advice"}


def without_words(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as figures: every text that is not a known name is gone, and the facts with it."""
    kept = {key: _without_words(key, value) for key, value in document.items()}
    return kept | {"facts": {}}


def _without_words(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_words(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_words(key, item) for item in value]
    if not isinstance(value, str) or key in _NAMES:
        return value
    return "" if key in _SENTENCES else None


async def polish(document: dict[str, Any], record: CallRecord, ask: Ask) -> dict[str, Any]:
    """The document with summary and advice in a model's words, where the model gave usable ones.

    The prompt `summary` gets `figures` (the findings as compact JSON, the improvements in their order) and
    `call` ("agent: …" lines, empty where text is not stored), and answers with JSON `{"summary": str,
    "do_better": [str, …]}`; what else it says is not used. `do_better` replaces the advice when it has one
    sentence for each improvement. A text that is too long or has a figure nobody measured is not used.
    Anything unusable leaves the offline document and sets `provisional`.
    """
    if document["insufficient"]:
        return document
    figures, call = _figures_for_model(document), _call_for_model(record)
    try:
        answer = await ask("summary", record.language, figures=figures, call=call)
    except CoachError:
        answer = None
    try:
        return _polished(answer, document, figures + call)
    except (ValueError, RecursionError):
        return {**document, "provisional": True}


def _figures_for_model(document: Mapping[str, Any]) -> str:
    kept = {
        key: document[key]
        for key in (
            "summary", "stage", "durationMs", "objections", "questions", "conduct", "facts", "nextStep",
            "strengths", "improvements",
        )
    }  # fmt: skip
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _call_for_model(record: CallRecord) -> str:
    """The end of the call matters most, so a long one loses its beginning."""
    if not record.store_text:
        return ""
    lines = [f"{_SPEAKER[u.speaker]}: {u.text}" for u in record.utterances]
    text = "\n".join(lines)
    return (
        text if len(text) <= _POLISH_TRANSCRIPT_CHARS else text[-_POLISH_TRANSCRIPT_CHARS:].partition("\n")[2]
    )


def _polished(answer: str | None, document: Mapping[str, Any], known: str) -> dict[str, Any]:
    """Raises ValueError when the answer cannot be used."""
    if answer is None:
        raise ValueError("no answer")
    parsed = json.loads(answer)
    if not isinstance(parsed, dict):
        raise ValueError("not an object")
    figures = set(_FIGURE.findall(known))
    summary = _usable(parsed.get("summary"), SUMMARY_CHARS, figures)
    improvements: list[dict[str, Any]] = document["improvements"]
    advice = parsed.get("do_better")
    if isinstance(advice, list) and len(advice) == len(improvements):
        said = [_usable(text, ADVICE_CHARS, figures) for text in advice]
        improvements = [{**item, "advice": text} for item, text in zip(improvements, said, strict=True)]
    return {**document, "summary": summary, "improvements": improvements, "source": "openai"}


def _usable(text: object, limit: int, figures: set[str]) -> str:
    if not isinstance(text, str):
        raise ValueError("not a text")
    clean = one_line(text)
    if not clean or len(clean) > limit:
        raise ValueError("empty or too long")
    if not set(_FIGURE.findall(clean)) <= figures:
        raise ValueError("a figure nobody measured")
    return clean


_FIGURE = re.compile(r"\d+")
