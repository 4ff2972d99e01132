"""The feedback on a practised or real talk as a document: the seed's JSON and what we add to it.

    sessionId (a call: conversationId), overallScore, delta, subScores {luisteren, samenvatten, objections,
    nextStep}, highlights [{type, text, plain}], advice, techniquesUsed, techniqueScores, nextStepSuggestion,
    sessionDuration "12:34", completedAt, comparedToPrevious {metric: {previous, current, delta}}

    method {id, version}, language, source, provisional, insufficient, notApplicable [], band, details {},
    phases {}, metrics {structure, attitudes, balance, impact}, evidence [], missedMoments [], advicePlain

- `techniquesUsed` and `techniqueScores` name the steps clients know; what is beneath them is in `details`.
- Where a talk gave no occasion for a sub-score, its number is the overall score and `notApplicable` names it:
  the client prints four numbers, and a made-up 0 would be a judgement (contract §10.3).
- A talk too short to judge has `insufficient: true` and null for every score and for `delta`. A client that
  does not look at `insufficient` prints "null%", which is uglier than a 0 and not a lie.
- `band`: the overall score is right within so many points.
- `plain` says what `text` says without a word of the talk, and so does `advicePlain` for `advice`: that is
  what is left after retention. A model's remark has no such form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from coach_server.domain.method.methodology import Methodology, SubScore, say, sort_key
from coach_server.domain.method.turns import Turn, seller_turns
from coach_server.domain.practice.blending import Blended, ModelJudgement, blend
from coach_server.domain.practice.scorecard import Evidence, Missed, ScoreCard
from coach_server.domain.practice.scoring import score
from coach_server.domain.transcript import Speaker
from coach_server.services.practice.feedback_sentences import Sentences, step_scores
from coach_server.services.practice.feedback_wording import FeedbackWording, feedback_wording

MOST_MISSED = 6
MOST_TO_READ = 3
# Of one criterion.
MOST_EVIDENCE = 6
_SPEAKERS = {
    "roleplay": {Speaker.AGENT: "user", Speaker.CUSTOMER: "hugo"},
    "call": {Speaker.AGENT: "agent", Speaker.CUSTOMER: "caller"},
}
_ID_KEY = {"roleplay": "sessionId", "call": "conversationId"}
# Uncertainty in points: what is always there, what few turns add, what a missing second opinion adds.
_BAND_LEAST, _BAND_FEW_TURNS, _BAND_NO_MODEL, _BAND_MOST = 4, 36, 4, 25

TalkKind = Literal["roleplay", "call"]


@dataclass(frozen=True, slots=True)
class TalkFrame:
    """Which talk it was. Times are seconds since the epoch; `ended_at` None while it is not over."""

    id: str
    started_at: float
    ended_at: float | None
    status: str


@dataclass(frozen=True, slots=True)
class PreviousScores:
    """The scores of the talk before; a sub-score that did not apply is None."""

    overall: int | None
    sub_scores: Mapping[SubScore, int | None]


def score_talk(
    turns: Sequence[Turn],
    method: Methodology,
    *,
    language: str,
    started_at: float,
    manual: Collection[str] = (),
) -> ScoreCard:
    """The card by the rules of `domain/practice/scoring.py` with what they listen for in that language. Plain
    computing; reads files the first time, so call it off the event loop."""
    words = feedback_wording(language).words
    return score(turns, method, language=language, started_at=started_at, manual=manual, words=words)


def to_read(document: Mapping[str, Any]) -> list[str]:
    """The techniques a feedback gives reason to read about: the next step, and what was missed."""
    wanted = [document["nextStepSuggestion"], *(missed["technique"] for missed in document["missedMoments"])]
    return list(dict.fromkeys(id for id in wanted if id))[:MOST_TO_READ]


def feedback_document(
    card: ScoreCard,
    turns: Sequence[Turn],
    method: Methodology,
    *,
    language: str,
    session: TalkFrame,
    source: str = "offline",
    provisional: bool = False,
    model: ModelJudgement | None = None,
    keep_words: bool = True,
    previous: PreviousScores | None = None,
    kind: TalkKind = "roleplay",
) -> dict[str, Any]:
    """The document. `source` and `provisional` are the caller's to say: who judged, and whether a model
    should have but did not. `keep_words` false: the document holds nothing that was said. `previous`: the
    talk before this one, for `delta` and the comparison."""
    page = _Page(card, blend(card, model, method), method, feedback_wording(language), language, kind)
    document = {
        _ID_KEY[kind]: session.id,
        "status": session.status,
        "method": {"id": method.id, "version": method.version},
        "language": language,
        "source": source,
        "provisional": provisional,
        "insufficient": card.insufficient,
        **page.scores(seller_count=len(seller_turns(turns))),
        **page.comparison(previous),
        **page.techniques(),
        **page.words(),
        **page.findings(),
        "sessionDuration": _duration(session),
        "completedAt": _iso(session.ended_at),
    }
    return document if keep_words else without_words(document)


def without_words(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without anything that was said: quotes are null, remarks and advice are in their
    plain form, a model's remarks are gone; figures, ids and better questions stay."""
    plain = [{**h, "text": h["plain"]} for h in document["highlights"] if h["plain"]]
    return {
        **document,
        "highlights": plain,
        "advice": document["advicePlain"],
        "evidence": [{**found, "quote": None} for found in document["evidence"]],
        "missedMoments": [
            {**moment, "customer": _mute(moment["customer"]), "seller": _mute(moment["seller"])}
            for moment in document["missedMoments"]
        ],
    }


@dataclass(frozen=True, slots=True)
class _Page:
    """Writes the parts of one document."""

    card: ScoreCard
    blended: Blended
    method: Methodology
    wording: FeedbackWording
    language: str
    kind: TalkKind

    def scores(self, seller_count: int) -> dict[str, Any]:
        overall, subs = self.blended.overall, self.blended.sub_scores
        return {
            "overallScore": overall,
            "band": None if overall is None else _band(seller_count, self.blended.judged),
            "subScores": {sub.value: _or(subs.get(sub), overall) for sub in SubScore},
            "notApplicable": [sub.value for sub in SubScore if subs.get(sub) is None],
            "phases": {str(phase): score for phase, score in self.card.phases.items()},
            "metrics": {
                name: {"score": metric.score, "parts": dict(metric.parts)}
                for name, metric in self.card.metrics.items()
            },
        }

    def comparison(self, previous: PreviousScores | None) -> dict[str, Any]:
        """Only what both talks have a score for is compared; a first talk has nothing to compare with."""
        if previous is None:
            return {"delta": None, "comparedToPrevious": {}}
        now = {"overallScore": self.blended.overall} | {
            sub.value: self.blended.sub_scores.get(sub) for sub in SubScore
        }
        before = {"overallScore": previous.overall} | {
            sub.value: previous.sub_scores.get(sub) for sub in SubScore
        }
        compared = {
            name: {"previous": was, "current": current, "delta": current - was}
            for name, current in now.items()
            if current is not None and (was := before[name]) is not None
        }
        return {
            "delta": compared.get("overallScore", {}).get("delta"),
            "comparedToPrevious": compared,
        }

    def techniques(self) -> dict[str, Any]:
        scores = self.blended.technique_scores
        steps = step_scores(self.blended, self.method)
        ordered = sorted(steps, key=sort_key)
        beneath = {name: worth for name, worth in scores.items() if name not in steps}
        return {
            "techniquesUsed": [name for name in ordered if steps[name] > 0],
            "techniqueScores": {name: steps[name] for name in ordered},
            "details": {name: beneath[name] for name in sorted(beneath, key=sort_key)},
            "nextStepSuggestion": self.blended.next_step,
        }

    def words(self) -> dict[str, Any]:
        sentences = Sentences(self.card, self.blended, self.method, self.wording, self.language)
        advice = sentences.advice()
        return {
            "highlights": [sentences.highlight(found) for found in self.blended.highlights],
            "advice": self.blended.advice or advice,
            "advicePlain": advice,
        }

    def findings(self) -> dict[str, Any]:
        return {
            "evidence": [self._evidence(found) for found in _some_of_each(self.blended.evidence)],
            "missedMoments": [self._missed(found) for found in self.card.missed[:MOST_MISSED]],
        }

    def _missed(self, found: Missed) -> dict[str, Any]:
        kind = next(moment for moment in self.method.missed if moment.id == found.moment)
        return {
            "id": found.moment,
            "name": say(kind.name, self.language),
            "why": say(kind.why, self.language),
            "better": found.better,
            "technique": found.technique,
            "customer": self._evidence(found.customer) if found.customer else None,
            "seller": self._evidence(found.seller) if found.seller else None,
        }

    def _evidence(self, found: Evidence) -> dict[str, Any]:
        return {
            "criterion": str(found.criterion),
            "quote": found.quote,
            "speaker": _SPEAKERS[self.kind][found.speaker],
            "sequence": found.sequence,
            "atMs": found.at_ms,
        }


def _some_of_each(evidence: Iterable[Evidence]) -> list[Evidence]:
    """The first few of each criterion, none twice: a long call would fill pages."""
    counts: Counter[str] = Counter()
    kept: list[Evidence] = []
    for found in dict.fromkeys(evidence):
        counts[found.criterion] += 1
        if counts[found.criterion] <= MOST_EVIDENCE:
            kept.append(found)
    return kept


def _mute(evidence: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if evidence is None else {**evidence, "quote": None}


def _or(score: int | None, instead: int | None) -> int | None:
    return instead if score is None else score


def _band(seller_count: int, judged: bool) -> int:
    few = round(_BAND_FEW_TURNS / max(1, seller_count))
    return min(_BAND_MOST, _BAND_LEAST + few + (0 if judged else _BAND_NO_MODEL))


def _duration(session: TalkFrame) -> str:
    """Minutes and seconds, as `12:34`; an hour is `60:00`."""
    seconds = 0 if session.ended_at is None else max(0, int(session.ended_at - session.started_at))
    return f"{seconds // 60:02d}:{seconds % 60:02d}"


def _iso(when: float | None) -> str | None:
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
