"""A model's judgement of a whole simulation, in one strict answer; a long one in parts.

The model is told what the rules measured, who the customer was and what was said. Its answer is untrusted:
scores are clamped, a remark counts only with words that were really said, texts are bounded and cleaned. What
is kept under which key, and how parts are asked, is `assessment.py`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from coach_server.domain.method.methodology import say
from coach_server.domain.simulation.blending import SimJudgement
from coach_server.domain.simulation.persona import Domain, SimPersona, pick
from coach_server.domain.simulation.scorecard import SimScoreCard, TalkRecord, weights_of
from coach_server.domain.simulation.talk import CLIENT_EVENTS, SessionEvent, Utterance
from coach_server.domain.wording import clip, one_line
from coach_server.providers.llm import LLM
from coach_server.services.breaker import Breaker
from coach_server.services.costs import CostGovernor, Meter
from coach_server.services.practice.assessment import (
    DEADLINE_S,
    JudgementCache,
    Judges,
    RecentJudgements,
    parts,
)
from coach_server.services.prompts import Prompts, Rendered
from coach_server.services.simulation.assess_answer import ScoreRecord, merge_scores

PROMPT = "score"
VERSION = 1
"""Raised when answers are read differently than before: what was kept then no longer fits."""
UTTERANCE_CHARS = 600
TEXT_CHARS = 400
EVENT_CHARS = 160
MOST_EVENTS = 30
NOTHING = "-"

SimJudgementCache = JudgementCache[SimJudgement]


class SimulationAssessor:
    """`llm` None: no model is configured, and nothing is ever judged. `models` maps a role to a model."""

    def __init__(
        self,
        llm: LLM | None,
        prompts: Prompts,
        governor: CostGovernor,
        breaker: Breaker,
        models: Mapping[str, str],
        *,
        cache: SimJudgementCache | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._prompts = prompts
        self._governor = governor
        self._cache: SimJudgementCache = RecentJudgements[SimJudgement]() if cache is None else cache
        self._judges = Judges(llm, breaker, models, deadline_s)

    @property
    def configured(self) -> bool:
        """Whether there is a model: a talk it has not judged is provisional then."""
        return self._judges.configured

    async def assess(
        self,
        card: SimScoreCard,
        record: TalkRecord,
        persona: SimPersona,
        domain: Domain,
        language: str,
        meter: Meter | None = None,
        *,
        cache: SimJudgementCache | None = None,
    ) -> SimJudgement | None:
        """None without a model, for a talk that is too short to score, and when the model did not answer
        usefully: then the rules' card stands. `cache` instead of the assessor's own."""
        if not self.configured or card.insufficient or not record.utterances:
            return None
        pieces = parts(record.utterances)
        questions = [self._question(piece, card, record, persona, domain, language) for piece in pieces]
        key = self._judges.key(card.facts_hash, VERSION, questions[0])
        shelf = self._cache if cache is None else cache
        kept = await shelf.get(key)
        if kept is not None:
            return kept
        read = ScoreRecord(record, questions[0].system, self._prompts.language(language)).read
        answers = await self._judges.ask(questions, read, meter or self._governor.meter())
        if answers is None:
            return None
        judgement = merge_scores(answers, [len(piece) for piece in pieces], self._judges.model(questions[0]))
        await shelf.put(key, judgement)
        return judgement

    def _question(
        self,
        piece: Sequence[Utterance],
        card: SimScoreCard,
        record: TalkRecord,
        persona: SimPersona,
        domain: Domain,
        language: str,
    ) -> Rendered:
        return self._prompts.render(
            PROMPT,
            language,
            language=self._prompts.language(language).name,
            persona=f"{persona.name}, {persona.age}. {_text(persona.description, language)}",
            criteria=_listed(pick(persona.criteria, language)),
            weak_points=_listed(f"{one.id}: {_text(one.text, language)}" for one in persona.weak_points),
            products=_listed(_products(persona, domain, language)),
            part=f"{piece[0].sequence}-{piece[-1].sequence} / {record.utterances[-1].sequence}",
            facts=_facts(card, record, persona),
            events=_events(record.events),
            call="\n".join(_line(one) for one in piece),
        )


def _products(persona: SimPersona, domain: Domain, language: str) -> list[str]:
    return [
        f"{one.name}{' (suits)' if one.id in persona.right_products else ''}: {_text(one.facts, language)}"
        for one in domain.products
    ]


def _facts(card: SimScoreCard, record: TalkRecord, persona: SimPersona) -> str:
    """The rules' findings, figures and ids alone: the words stand in the talk."""
    found = {
        "categories": {category.value: score for category, score in card.categories.items()},
        "weights": {category.value: round(weight, 2) for category, weight in weights_of(persona).items()},
        "steps": {step.id: step.state for step in card.steps},
        "checks": {id: result.value for id, result in card.compliance.checks.items()},
        "forbiddenWords": [use.word for use in card.compliance.words],
        "weakPointsTouched": list(card.phases.weak_points),
        "attitude": [round(value, 1) for value in (record.initial, *record.attitudes)],
        "outcome": record.outcome.value if record.outcome else None,
        "remarks": [remark.id for remark in card.remarks],
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def _events(events: Sequence[SessionEvent]) -> str:
    shown = [event for event in events if event.type in CLIENT_EVENTS][-MOST_EVENTS:]
    return "\n".join(f"{event.time:.1f} s {event.type.value} {_data(event)}" for event in shown) or NOTHING


def _data(event: SessionEvent) -> str:
    return clip(one_line(json.dumps(event.data, ensure_ascii=False, default=str)), EVENT_CHARS)


def _line(said: Utterance) -> str:
    return f"[{said.sequence}] {said.role.value}: {clip(one_line(said.text), UTTERANCE_CHARS)}"


def _text(words: Mapping[str, str], language: str) -> str:
    return clip(one_line(say(words, language)), TEXT_CHARS)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or NOTHING
