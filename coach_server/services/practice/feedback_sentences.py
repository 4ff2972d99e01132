"""The sentences of a feedback document: its remarks and its advice, in the talk's language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import Template

from coach_server.domain.method.methodology import Methodology, say
from coach_server.domain.practice.blending import Blended, JudgedHighlight
from coach_server.domain.practice.scorecard import Evidence, Highlight, ScoreCard
from coach_server.domain.transcript import Speaker
from coach_server.domain.wording import clip
from coach_server.services.practice.feedback_wording import FeedbackWording

# A quote inside a sentence; the whole one stands in the evidence.
SPOKEN_CHARS = 140
# Much went wrong: once more in the week.
_OFTEN_BELOW = 60


@dataclass(frozen=True, slots=True)
class Sentences:
    """What is said about one talk."""

    card: ScoreCard
    blended: Blended
    method: Methodology
    wording: FeedbackWording
    language: str

    def highlight(self, found: Highlight | JudgedHighlight) -> dict[str, str]:
        if isinstance(found, JudgedHighlight):
            return {"type": found.kind.value, "text": found.text, "plain": ""}
        remark = self.wording.remarks[found.kind][found.id]
        values: dict[str, str | int] = {**found.values}
        if found.technique:
            values["technique"] = self._name(found.technique)
        plain = remark.text.substitute(values)
        quoted = _quoted(remark.quoted, values, found.evidence) if remark.quoted else None
        return {"type": found.kind.value, "text": quoted or plain, "plain": plain}

    def advice(self) -> str:
        """What to practise next and how often; at most two sentences of ours."""
        say_it = self.wording.advice
        if self.card.insufficient:
            return say_it["insufficient"].substitute()
        overall = self.blended.overall or 0
        often = say_it["often_3" if overall < _OFTEN_BELOW else "often_2"].substitute()
        return f"{self._to_practise()} {often}"

    def _to_practise(self) -> str:
        say_it, suggested = self.wording.advice, self.blended.next_step
        if self.card.missed:
            rules = {moment.id: moment.rule for moment in self.method.missed}
            return say_it[rules[self.card.missed[0].moment]].substitute()
        if suggested is None:
            return say_it["repeat"].substitute(technique=self._weakest())
        return say_it[self._how_far(suggested)].substitute(technique=self._name(suggested))

    def _how_far(self, step_id: str) -> str:
        """Whether the step is mastered, was tried, or is new."""
        steps = step_scores(self.blended, self.method)
        if step_id not in steps:
            return "next"
        return "technique" if steps[step_id] < self.method.unlock.step_score else "repeat"

    def _weakest(self) -> str:
        scores = self.blended.technique_scores
        return self._name(min(scores, key=lambda name: scores[name])) if scores else ""

    def _name(self, technique_id: str) -> str:
        technique = self.method.find(technique_id)
        return say(technique.name, self.language) if technique else technique_id


def step_scores(blended: Blended, method: Methodology) -> dict[str, int]:
    """By step the best of it and what is beneath it."""
    steps: dict[str, int] = {}
    for name, worth in blended.technique_scores.items():
        step = method.step(name)
        key = step.id if step else name
        steps[key] = max(steps.get(key, 0), worth)
    return steps


def _quoted(template: Template, values: Mapping[str, str | int], evidence: Iterable[Evidence]) -> str | None:
    """The sentence with the words of the talk; None where it needs words of somebody who said nothing."""
    said: dict[str, str] = {}
    for found in evidence:
        who = "seller" if found.speaker is Speaker.AGENT else "customer"
        said.setdefault(who, _inside_a_sentence(found.quote))
    if not set(template.get_identifiers()) <= {*values, *said}:
        return None
    return template.substitute({**values, **said})


def _inside_a_sentence(quote: str) -> str:
    """The sentence around it goes on, so its own full stop goes."""
    short = clip(quote, SPOKEN_CHARS)
    cut = "…" if short != quote else ""
    return short.removesuffix("…").rstrip(". ") + cut
