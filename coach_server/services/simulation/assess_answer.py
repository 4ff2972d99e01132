"""Reads a model's score of a simulation: what of it can be believed, and several parts as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, FiniteFloat, ValidationError

from coach_server.domain.practice.scorecard import clamp
from coach_server.domain.quoting import Said
from coach_server.domain.simulation.blending import JudgedRemark, SimJudgement
from coach_server.domain.simulation.scorecard import Category, SimEvidence, TalkRecord, Tone
from coach_server.domain.wording import one_line
from coach_server.errors import ProviderError
from coach_server.services.answers import WRONG_FORM
from coach_server.services.asking import usable
from coach_server.services.prompts import Language

REMARK_CHARS = 240
SUMMARY_CHARS = 400
MOST_REMARKS = 8
MOST_OF_A_TONE = 2
# The languages that can be told from each other by their words (`domain/language.py`).
_TOLD = ("en", "nl", "he")


class _Remark(BaseModel):
    text: str
    quote: str = ""


class _Answer(BaseModel):
    categories: dict[str, FiniteFloat | None]
    highlights: list[_Remark] = []
    improvements: list[_Remark] = []
    summary: str = ""


@dataclass(frozen=True, slots=True)
class ScorePart:
    """A checked answer about the utterances of one question."""

    categories: Mapping[Category, int]
    remarks: tuple[JudgedRemark, ...]
    summary: str

    @property
    def mean(self) -> float:
        return sum(self.categories.values()) / len(self.categories) if self.categories else 0.0


class ScoreRecord:
    """The whole talk, against which an answer is checked. `system`: the prompt's text, never to be shown."""

    def __init__(self, record: TalkRecord, system: str, language: Language) -> None:
        self._said = [(one, Said(one_line(one.text))) for one in record.utterances]
        self._system = system
        self._language = language

    def read(self, answer: Mapping[str, Any]) -> ScorePart:
        """Raises ProviderError for an answer of another form."""
        try:
            told = _Answer.model_validate(answer)
        except ValidationError:
            # Not chained: pydantic's message quotes the answer.
            raise ProviderError(WRONG_FORM) from None
        scores = ((category, told.categories.get(category)) for category in Category)
        remarks = [
            *self._remarks(told.highlights[:MOST_REMARKS], Tone.GOOD),
            *self._remarks(told.improvements[:MOST_REMARKS], Tone.WARNING),
        ]
        return ScorePart(
            categories={category: clamp(score) for category, score in scores if score is not None},
            remarks=tuple(remarks),
            summary=self._usable(told.summary, SUMMARY_CHARS),
        )

    def _remarks(self, told: Iterable[_Remark], tone: Tone) -> Iterable[JudgedRemark]:
        for one in told:
            text, evidence = self._usable(one.text, REMARK_CHARS), self._evidence(one.quote)
            if text and evidence is not None:
                yield JudgedRemark(tone, text, evidence)

    def _evidence(self, quote: str) -> SimEvidence | None:
        """The first utterance in which it was said."""
        for one, said in self._said:
            if (words := said.find(quote)) is not None:
                return SimEvidence("model", words, one.role, one.sequence, one.start)
        return None

    def _usable(self, text: str, limit: int) -> str:
        """As `usable`; a language that cannot be told by its words may look like any that is written in the
        same letters."""
        known = self._language
        codes = (known.code,) if known.code in _TOLD else _TOLD
        tried = (usable(text, limit, self._system, replace(known, code=code)) for code in codes)
        return next((fit for fit in tried if fit), "")


def merge_scores(answers: Sequence[ScorePart], weights: Sequence[int], model: str) -> SimJudgement:
    """Several parts as one judgement: scores are averages by `weights`, remarks are taken in turn, the
    summary comes from the weakest part."""
    weakest = min(answers, key=lambda part: part.mean)
    return SimJudgement(
        model=model,
        categories={
            category: _average([(p.categories[category], w) for p, w in given])
            for category in Category
            if (given := [(p, w) for p, w in zip(answers, weights, strict=True) if category in p.categories])
        },
        remarks=tuple(_in_turn([part.remarks for part in answers])),
        summary=weakest.summary or next((part.summary for part in answers if part.summary), ""),
    )


def _average(scores: Sequence[tuple[int, int]]) -> int:
    return clamp(sum(score * weight for score, weight in scores) / sum(weight for _, weight in scores))


def _in_turn(parts: Sequence[Sequence[JudgedRemark]]) -> Iterable[JudgedRemark]:
    """The first of a tone of each part, then the second of each; at most two of a tone."""
    for tone in Tone:
        own = [[remark for remark in part if remark.tone is tone] for part in parts]
        longest = max(map(len, own), default=0)
        yield from [part[n] for n in range(longest) for part in own if n < len(part)][:MOST_OF_A_TONE]
