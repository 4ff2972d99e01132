"""Reads a model's assessment: what of it can be believed, and several parts as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, FiniteFloat, ValidationError, model_validator

from coach_server.domain.method.methodology import Methodology, SubScore
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.blending import (
    MOST_OF_A_KIND,
    JudgedHighlight,
    JudgedTechnique,
    ModelJudgement,
)
from coach_server.domain.practice.scorecard import Evidence, Kind, clamp
from coach_server.domain.quoting import Said
from coach_server.domain.wording import one_line
from coach_server.errors import ProviderError
from coach_server.services.answers import WRONG_FORM
from coach_server.services.asking import usable
from coach_server.services.prompts import Language

HIGHLIGHT_CHARS = 240
ADVICE_CHARS = 500
MOST_TECHNIQUES = 60
MOST_HIGHLIGHTS = 8


class _Technique(BaseModel):
    id: str
    score: FiniteFloat
    quote: str = ""


class _Highlight(BaseModel):
    type: Literal["good", "warning"]
    text: str
    quote: str = ""


class _Answer(BaseModel):
    overallScore: FiniteFloat  # noqa: N815
    subScores: dict[str, FiniteFloat | None] = {}  # noqa: N815
    techniqueScores: list[_Technique] = []  # noqa: N815
    highlights: list[_Highlight] = []
    advice: str = ""
    nextStepSuggestion: str | None = None  # noqa: N815

    @model_validator(mode="before")
    @classmethod
    def _from_map(cls, data: Any) -> Any:
        """The seed's own form, `{"1.1": 95}`, from models that know no schema. It has no quotes."""
        scores = data.get("techniqueScores") if isinstance(data, dict) else None
        if not isinstance(scores, dict):
            return data
        return {**data, "techniqueScores": [{"id": name, "score": score} for name, score in scores.items()]}


@dataclass(frozen=True, slots=True)
class Part:
    """A checked answer about the turns of one question."""

    overall: int
    sub_scores: Mapping[SubScore, int]
    techniques: tuple[JudgedTechnique, ...]
    highlights: tuple[JudgedHighlight, ...]
    advice: str
    next_step: str | None


class Record:
    """The whole talk, against which an answer is checked. `system`: the prompt's text, never to be shown.
    `started_at`: seconds since the epoch."""

    def __init__(
        self,
        turns: Sequence[Turn],
        method: Methodology,
        system: str,
        language: Language,
        started_at: float,
    ) -> None:
        self._said = [(turn, Said(one_line(turn.text))) for turn in turns]
        self._start = started_at
        self._method = method
        self._system = system
        self._language = language

    def read(self, answer: Mapping[str, Any]) -> Part:
        """Raises ProviderError for an answer of another form."""
        try:
            told = _Answer.model_validate(answer)
        except ValidationError:
            # Not chained: pydantic's message quotes the answer.
            raise ProviderError(WRONG_FORM) from None
        scores = ((name, told.subScores.get(name)) for name in SubScore)
        step = self._method.step((told.nextStepSuggestion or "").strip())
        return Part(
            overall=clamp(told.overallScore),
            sub_scores={name: clamp(score) for name, score in scores if score is not None},
            techniques=tuple(self._techniques(told.techniqueScores[:MOST_TECHNIQUES])),
            highlights=tuple(self._highlights(told.highlights[:MOST_HIGHLIGHTS])),
            advice=usable(told.advice, ADVICE_CHARS, self._system, self._language),
            next_step=step.id if step else None,
        )

    def _techniques(self, told: Iterable[_Technique]) -> list[JudgedTechnique]:
        """Those of the catalog. Only the seller's words are evidence of a technique."""
        return _best(
            JudgedTechnique(known.id, clamp(one.score), self._evidence(known.id, one.quote, seller_only=True))
            for one in told
            if (known := self._method.find(one.id.strip())) is not None
        )

    def _highlights(self, told: Iterable[_Highlight]) -> Iterable[JudgedHighlight]:
        for one in told:
            text = usable(one.text, HIGHLIGHT_CHARS, self._system, self._language)
            evidence = self._evidence("highlight", one.quote)
            if text and evidence is not None:
                yield JudgedHighlight(Kind(one.type), text, evidence)

    def _evidence(self, criterion: str, quote: str, *, seller_only: bool = False) -> Evidence | None:
        """The first turn in which it was said."""
        for turn, said in self._said:
            if (turn.is_seller or not seller_only) and (words := said.find(quote)) is not None:
                at_ms = max(0, round((turn.at - self._start) * 1000))
                return Evidence(criterion, words, turn.speaker, turn.sequence, at_ms)
        return None


def merge(parts: Sequence[Part], weights: Sequence[int], model: str) -> ModelJudgement:
    """Several parts as one judgement, the same for the same parts: scores are averages by `weights`, a
    technique counts by its best use, highlights are taken in turn from each part, and advice comes from the
    weakest one."""
    weakest = min(parts, key=lambda part: part.overall)
    return ModelJudgement(
        model=model,
        overall=_average([(part.overall, weight) for part, weight in zip(parts, weights, strict=True)]),
        sub_scores=_sub_scores(parts, weights),
        techniques=tuple(_best(technique for part in parts for technique in part.techniques)),
        highlights=tuple(_in_turn([part.highlights for part in parts])),
        advice=weakest.advice or next((part.advice for part in parts if part.advice), ""),
        next_step=weakest.next_step or next((part.next_step for part in parts if part.next_step), None),
    )


def _best(judged: Iterable[JudgedTechnique]) -> list[JudgedTechnique]:
    """One for each technique: with evidence before without, then the higher score."""
    best: dict[str, JudgedTechnique] = {}
    for one in judged:
        held = best.get(one.id)
        if held is None or _rank(one) > _rank(held):
            best[one.id] = one
    return list(best.values())


def _rank(judged: JudgedTechnique) -> tuple[bool, int]:
    return judged.evidence is not None, judged.score


def _sub_scores(parts: Sequence[Part], weights: Sequence[int]) -> dict[SubScore, int]:
    both = list(zip(parts, weights, strict=True))
    given = {name: [(p.sub_scores[name], w) for p, w in both if name in p.sub_scores] for name in SubScore}
    return {name: _average(scores) for name, scores in given.items() if scores}


def _average(scores: Sequence[tuple[int, int]]) -> int:
    """Of scores with their weights."""
    return clamp(sum(score * weight for score, weight in scores) / sum(weight for _, weight in scores))


def _in_turn(parts: Sequence[Sequence[JudgedHighlight]]) -> Iterable[JudgedHighlight]:
    """The first of each part, then the second of each, and so on; at most two of a kind, good ones first."""
    longest = max(map(len, parts), default=0)
    ordered = [part[n] for n in range(longest) for part in parts if n < len(part)]
    for kind in Kind:
        yield from [highlight for highlight in ordered if highlight.kind is kind][:MOST_OF_A_KIND]
