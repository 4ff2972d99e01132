"""What the rules measured and what a model thinks of it, as one judgement.

    blended = rules + share * (model - rules), moved by at most `MOST_MOVED` points

Facts stay facts. Where the rules have no score, because the talk says nothing about it, the model cannot give
one. A technique that only the model saw counts when its quote was said by the seller, and starts from the
points of an almost: so a model alone, or somebody who talks to it, does not master a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coach_server.domain.method.methodology import Methodology, SubScore
from coach_server.domain.method.turns import Quality
from coach_server.domain.practice.scorecard import Evidence, Highlight, Kind, ScoreCard, clamp
from coach_server.domain.transcript import Speaker

MOST_MOVED = 25
MOST_OF_A_KIND = 2


@dataclass(frozen=True, slots=True)
class JudgedTechnique:
    """`id`: of the catalog, never an alias. `evidence`: the seller's words it rests on; None when the model's
    quote was never said."""

    id: str
    score: int
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class JudgedHighlight:
    """A remark in the model's words, resting on words that were said."""

    kind: Kind
    text: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class ModelJudgement:
    """What a model made of a talk, checked: ids of the catalog, scores 0..100, quotes that were said, bounded
    texts. `model`: the one that is configured. `advice` is empty and `next_step` None where it gave nothing
    usable."""

    model: str
    overall: int
    sub_scores: Mapping[SubScore, int]
    techniques: tuple[JudgedTechnique, ...]
    highlights: tuple[JudgedHighlight, ...]
    advice: str
    next_step: str | None

    def to_dict(self) -> dict[str, Any]:
        """As kept beside a stored feedback; `from_dict` reads it."""
        return {
            "model": self.model,
            "overall": self.overall,
            "subScores": {name.value: score for name, score in self.sub_scores.items()},
            "techniques": [
                {"id": t.id, "score": t.score, "evidence": _evidence_to_dict(t.evidence)}
                for t in self.techniques
            ],
            "highlights": [
                {"kind": h.kind.value, "text": h.text, "evidence": _evidence_to_dict(h.evidence)}
                for h in self.highlights
            ],
            "advice": self.advice,
            "nextStep": self.next_step,
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> ModelJudgement:
        """Raises KeyError, TypeError or ValueError for what `to_dict` did not write."""
        return cls(
            kept["model"],
            clamp(kept["overall"]),
            {SubScore(name): clamp(score) for name, score in kept["subScores"].items()},
            tuple(
                JudgedTechnique(t["id"], clamp(t["score"]), _evidence_from_dict(t["evidence"]))
                for t in kept["techniques"]
            ),
            tuple(_highlight_from_dict(h) for h in kept["highlights"]),
            kept["advice"],
            kept["nextStep"],
        )


@dataclass(frozen=True, slots=True)
class Blended:
    """The judgement that counts. `technique_scores` by step or detail id. `highlights`: at most two of a
    kind, good ones first; a `Highlight` is still to be worded. `advice` is empty where no model gave one, and
    is then worded from the rules. `judged`: a model took part."""

    overall: int | None
    sub_scores: Mapping[SubScore, int | None]
    technique_scores: Mapping[str, int]
    highlights: tuple[Highlight | JudgedHighlight, ...]
    advice: str
    next_step: str | None
    evidence: tuple[Evidence, ...]
    judged: bool


def blend(card: ScoreCard, judgement: ModelJudgement | None, method: Methodology) -> Blended:
    """The card's own where there is no judgement, or too little was said to judge."""
    if judgement is None or card.insufficient:
        return _own(card)
    share = method.scoring.model_share
    scores, evidence = _techniques(card, judgement, method)
    shown = _highlights(card, judgement.highlights)
    evidence += [found.evidence for found in shown if isinstance(found, JudgedHighlight)]
    return Blended(
        overall=_moved(card.overall, judgement.overall, share),
        sub_scores={
            name: _moved(score, judgement.sub_scores.get(name), share)
            for name, score in card.sub_scores.items()
        },
        technique_scores=scores,
        highlights=shown,
        advice=judgement.advice,
        next_step=_next_step(card, judgement, scores, method),
        evidence=(*card.evidence, *evidence),
        judged=True,
    )


def move(rules: int, model: float, share: float) -> int:
    """The rules' score after the model had its share (0..1) of it: monotone in both, 0..100."""
    shift = max(-MOST_MOVED, min(MOST_MOVED, share * (clamp(model) - rules)))
    return clamp(rules + shift)


def _moved(rules: int | None, model: int | None, share: float) -> int | None:
    return rules if rules is None or model is None else move(rules, model, share)


def _own(card: ScoreCard) -> Blended:
    return Blended(
        overall=card.overall,
        sub_scores=dict(card.sub_scores),
        technique_scores={name: found.score for name, found in card.technique_scores.items()},
        highlights=_highlights(card, ()),
        advice="",
        next_step=card.next_step,
        evidence=card.evidence,
        judged=False,
    )


def _techniques(
    card: ScoreCard, judgement: ModelJudgement, method: Methodology
) -> tuple[dict[str, int], list[Evidence]]:
    """The scores, and the evidence of what only the model saw."""
    share = method.scoring.model_share
    almost = clamp(10 * method.scoring.use_points.get(Quality.BIJNA, 0.0))
    measured = {name: found.score for name, found in card.technique_scores.items()}
    scores, evidence = dict(measured), list[Evidence]()
    for judged in judgement.techniques:
        if judged.id in measured:
            scores[judged.id] = move(measured[judged.id], judged.score, share)
        elif _counts(judged, method):
            scores[judged.id] = move(almost, judged.score, share)
            evidence += [judged.evidence] if judged.evidence else []
    return scores, evidence


def _counts(judged: JudgedTechnique, method: Methodology) -> bool:
    """Whether a technique that the rules have no score for is one: in the catalog, and the seller said it."""
    said = judged.evidence is not None and judged.evidence.speaker is Speaker.AGENT
    return said and method.find(judged.id) is not None


def _highlights(
    card: ScoreCard, judged: Iterable[JudgedHighlight]
) -> tuple[Highlight | JudgedHighlight, ...]:
    """The model's first, for they speak of this talk; the rules' heaviest fill what is left."""
    by_weight = sorted(card.highlights, key=lambda highlight: -highlight.weight)
    together: list[Highlight | JudgedHighlight] = [*judged, *by_weight]
    return tuple(found for kind in Kind for found in [h for h in together if h.kind is kind][:MOST_OF_A_KIND])


def _next_step(
    card: ScoreCard, judgement: ModelJudgement, scores: Mapping[str, int], method: Methodology
) -> str | None:
    """The model's suggestion where it is a step of the method that was not just done well and lies no further
    than the talk came or the rules suggest; else the rules' own."""
    step = method.step(judgement.next_step) if judgement.next_step else None
    if step is None or scores.get(step.id, 0) >= method.unlock.step_score:
        return card.next_step
    suggested = method.step(card.next_step) if card.next_step else None
    reached = [phase for phase, score in card.phases.items() if score is not None]
    furthest = max([*reached, suggested.phase if suggested else 0])
    return step.id if step.phase <= furthest else card.next_step


def _evidence_to_dict(evidence: Evidence | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    return {
        "criterion": evidence.criterion,
        "quote": evidence.quote,
        "speaker": evidence.speaker.value,
        "sequence": evidence.sequence,
        "atMs": evidence.at_ms,
    }


def _evidence_from_dict(kept: Mapping[str, Any] | None) -> Evidence | None:
    if kept is None:
        return None
    return Evidence(
        kept["criterion"], kept["quote"], Speaker(kept["speaker"]), int(kept["sequence"]), int(kept["atMs"])
    )


def _highlight_from_dict(kept: Mapping[str, Any]) -> JudgedHighlight:
    evidence = _evidence_from_dict(kept["evidence"])
    if evidence is None:
        raise ValueError("a highlight without evidence")
    return JudgedHighlight(Kind(kept["kind"]), kept["text"], evidence)
