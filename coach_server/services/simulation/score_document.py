"""The score of a simulation as clients, files and the dashboard get it: seed 001's shape first, then ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from coach_server.domain.method.methodology import say
from coach_server.domain.simulation.blending import JudgedRemark, SimJudgement, blend
from coach_server.domain.simulation.persona import CheckRule, Domain, SimPersona
from coach_server.domain.simulation.remarks import BREACHES
from coach_server.domain.simulation.scorecard import (
    Category,
    CheckResult,
    SimEvidence,
    SimRemark,
    SimScoreCard,
    TalkRecord,
    Tone,
    weights_of,
)
from coach_server.domain.simulation.talk import Outcome
from coach_server.services.simulation.report_words import NO_OUTCOME, ReportWords, report_words

MOST = {Tone.GOOD: 4, Tone.WARNING: 5}
# Of these at most so many come from the model, so that what the rules are sure of is always told.
MOST_JUDGED = 2
_BANDS = ((75, "strong"), (55, "solid"), (35, "mixed"), (0, "weak"))
_CONTRACT = {
    CheckResult.PASSED: "passed",
    CheckResult.LATE: "failed",
    CheckResult.FAILED: "failed",
    CheckResult.SKIPPED: "skipped",
}


@dataclass(frozen=True, slots=True)
class _Told:
    """A remark in words."""

    tone: Tone
    id: str
    text: str
    evidence: SimEvidence | None


def simulation_score_document(
    card: SimScoreCard,
    judgement: SimJudgement | None,
    record: TalkRecord,
    persona: SimPersona,
    domain: Domain,
    language: str,
    *,
    provisional: bool = False,
    keep_words: bool = True,
) -> dict[str, Any]:
    """`provisional`: a model should have judged and did not. `keep_words` false: nothing that was said is in
    it. Reads files the first time, so call it off the event loop."""
    words = report_words(language)
    blended = blend(card, judgement, persona)
    told = _remarks(card, judgement if keep_words else None, words, domain, language, keep_words)
    summary = judgement.summary if judgement is not None and keep_words and not card.insufficient else ""
    return {
        "overall": blended.overall,
        "categories": {category.value: blended.categories[category] for category in Category},
        "highlights": [one.text for one in told if one.tone is Tone.GOOD],
        "improvements": [one.text for one in told if one.tone is Tone.WARNING],
        "summary": summary or _summary(card, blended.overall, record.outcome, persona, words, language),
        "complianceDetails": _compliance(card, domain, keep_words),
        "phaseHandling": {
            "skepseBreakthrough": card.phases.breakthrough,
            "interestRecognized": card.phases.interest_recognised,
            "weakPointsUsed": list(card.phases.weak_points),
            "decisionHelped": card.phases.decision_helped,
        },
        "fails": [one.text for one in told if one.id in BREACHES],
        "outcome": record.outcome.value if record.outcome else None,
        "steps": _steps(card, record, domain, language, keep_words),
        "remarks": [_remark(one, keep_words) for one in told],
        "weights": {category.value: round(weight, 4) for category, weight in weights_of(persona).items()},
        "insufficient": card.insufficient,
        "provisional": provisional,
        "source": "rules" if judgement is None else "openai",
        "language": language,
    }


def _remarks(
    card: SimScoreCard,
    judgement: SimJudgement | None,
    words: ReportWords,
    domain: Domain,
    language: str,
    keep_words: bool,
) -> list[_Told]:
    """Heaviest first; what broke a rule stands before anything a model says."""
    if card.insufficient:
        return []
    judged = judgement.remarks if judgement is not None else ()
    kept: list[_Told] = []
    for tone in Tone:
        rules = [
            _worded(one, words, domain, language, keep_words) for one in card.remarks if one.tone is tone
        ]
        first = [one for one in rules if one.id in BREACHES]
        rest = [one for one in rules if one.id not in BREACHES]
        kept += [*first, *_judged(judged, tone), *rest][: MOST[tone]]
    return kept


def _judged(remarks: Iterable[JudgedRemark], tone: Tone) -> list[_Told]:
    found = [_Told(tone, "model", one.text, one.evidence) for one in remarks if one.tone is tone]
    return found[:MOST_JUDGED]


def _worded(remark: SimRemark, words: ReportWords, domain: Domain, language: str, keep_words: bool) -> _Told:
    wording = words.remarks[remark.tone][remark.id]
    values = {**remark.values, **_named(remark, domain, language, keep_words)}
    if keep_words and wording.quoted is not None and remark.evidence is not None:
        text = wording.quoted.substitute(values, quote=remark.evidence.quote)
    else:
        text = wording.text.substitute(values)
    return _Told(remark.tone, remark.id, text, remark.evidence)


def _named(remark: SimRemark, domain: Domain, language: str, keep_words: bool) -> dict[str, str]:
    """What the id that a remark is about is called."""
    if remark.id == "forbidden":
        word = next((one for one in domain.forbidden if one.id == remark.about), None)
        instead = say(word.instead, language) if word else ""
        said = str(remark.values.get("said", "")) if keep_words else ""
        return {"word": said or remark.about.replace("_", " "), "instead": instead}
    check = next((one for one in domain.checks if one.id == remark.about), None)
    if check is not None:
        return {"name": say(check.name, language)}
    product = next((one for one in domain.products if one.id == remark.about), None)
    return {"name": product.name if product else remark.about}


def _summary(
    card: SimScoreCard,
    overall: int | None,
    outcome: Outcome | None,
    persona: SimPersona,
    words: ReportWords,
    language: str,
) -> str:
    if card.insufficient or overall is None:
        return words.summary["insufficient"].substitute()
    band = next(name for least, name in _BANDS if overall >= least)
    name = persona.names.get(words.language, persona.name)
    parts = [words.summary[band].substitute(persona=name)]
    parts.append(words.summary[outcome.value if outcome else NO_OUTCOME].substitute())
    if card.compliance.cap is not None:
        parts.append(words.summary["capped"].substitute(cap=card.compliance.cap))
    return " ".join(parts)


def _compliance(card: SimScoreCard, domain: Domain, keep_words: bool) -> dict[str, Any]:
    """The contract's two checks by what they are: the one that a client event proves is the age check,
    the one that can end the selling asks for a user. A trade may have neither."""
    checks = card.compliance.checks
    by_event = next((rule for rule in domain.checks if rule.event is not None), None)
    stopping = next((rule for rule in domain.checks if rule.stops and rule is not by_event), None)
    return {
        "ageVerification": _contract(by_event, card),
        "smokerCheck": _contract(stopping, card),
        "forbiddenWords": [
            {
                "word": use.word,
                "sequence": use.sequence,
                "position": use.position,
                "quote": use.quote if keep_words else None,
            }
            for use in card.compliance.words
        ],
        "checks": {id: result.value for id, result in checks.items()},
        "score": card.compliance.score,
        "penalty": card.compliance.penalty,
        "cap": card.compliance.cap,
    }


def _contract(rule: CheckRule | None, card: SimScoreCard) -> str | None:
    return None if rule is None else _CONTRACT[card.compliance.checks[rule.id]]


def _steps(
    card: SimScoreCard, record: TalkRecord, domain: Domain, language: str, keep_words: bool
) -> list[dict[str, Any]]:
    names = {step.id: say(step.name, language) for step in domain.steps}
    times = {one.sequence: one.start for one in record.utterances}
    return [
        {
            "id": step.id,
            "name": names[step.id],
            "state": step.state,
            "quote": step.quote if keep_words and step.quote else None,
            "time": None if step.sequence is None else times.get(step.sequence),
        }
        for step in card.steps
    ]


def _remark(told: _Told, keep_words: bool) -> dict[str, Any]:
    found = told.evidence
    return {
        "type": told.tone.value,
        "id": told.id,
        "text": told.text,
        "quote": found.quote if found and keep_words else None,
        "speaker": found.role.value if found else None,
        "time": found.at if found else None,
    }
