"""The rules' card of a simulated talk and what a model thinks of it, as one judgement.

Each category is moved by the model as in practice talks (`domain/practice/blending.py`: a share of the
difference, a bounded number of points). The overall score follows from the categories, so that
nobody can talk a model into one that they do not bear out, and compliance caps hold whatever it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coach_server.domain.practice.blending import move
from coach_server.domain.practice.scorecard import clamp
from coach_server.domain.simulation.persona import SimPersona
from coach_server.domain.simulation.scorecard import Category, SimEvidence, SimScoreCard, Tone
from coach_server.domain.simulation.scoring import overall
from coach_server.domain.simulation.talk import Role

MODEL_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class JudgedRemark:
    """A remark in the model's words, resting on words that were said."""

    tone: Tone
    text: str
    evidence: SimEvidence


@dataclass(frozen=True, slots=True)
class SimJudgement:
    """What a model made of a talk, checked. A category it did not judge is absent; `summary` is empty where
    it gave none that can be shown."""

    model: str
    categories: Mapping[Category, int]
    remarks: tuple[JudgedRemark, ...]
    summary: str

    def to_dict(self) -> dict[str, Any]:
        """As kept beside a stored score; `from_dict` reads it."""
        return {
            "model": self.model,
            "categories": {category.value: score for category, score in self.categories.items()},
            "remarks": [
                {
                    "tone": remark.tone.value,
                    "text": remark.text,
                    "quote": remark.evidence.quote,
                    "role": remark.evidence.role.value,
                    "sequence": remark.evidence.sequence,
                    "at": remark.evidence.at,
                }
                for remark in self.remarks
            ],
            "summary": self.summary,
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> SimJudgement:
        """Raises KeyError, TypeError or ValueError for what `to_dict` did not write."""
        return cls(
            kept["model"],
            {Category(name): clamp(score) for name, score in kept["categories"].items()},
            tuple(_remark(remark) for remark in kept["remarks"]),
            kept["summary"],
        )


@dataclass(frozen=True, slots=True)
class SimBlended:
    """The scores that count."""

    overall: int | None
    categories: Mapping[Category, int | None]


def blend(card: SimScoreCard, judgement: SimJudgement | None, persona: SimPersona) -> SimBlended:
    """The card's own without a judgement, and where too little was said to judge."""
    if judgement is None or card.insufficient:
        return SimBlended(card.overall, card.categories)
    categories = {
        category: score if score is None else _moved(score, judgement.categories.get(category))
        for category, score in card.categories.items()
    }
    return SimBlended(overall(categories, persona, card.compliance), categories)


def _moved(rules: int, model: int | None) -> int:
    return rules if model is None else move(rules, model, MODEL_SHARE)


def _remark(kept: Mapping[str, Any]) -> JudgedRemark:
    evidence = SimEvidence(
        "model", kept["quote"], Role(kept["role"]), int(kept["sequence"]), float(kept["at"])
    )
    return JudgedRemark(Tone(kept["tone"]), kept["text"], evidence)
