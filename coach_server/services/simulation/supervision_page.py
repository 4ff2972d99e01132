"""What the supervisor's model is shown of a talk: the customer, the trade, where the talk stands, what was
said and done. What people said and what clients sent is data between delimiters (services/prompts.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from coach_server.domain.method.methodology import say
from coach_server.domain.simulation.persona import Domain, SimPersona, pick
from coach_server.domain.simulation.scene import TalkSoFar
from coach_server.domain.simulation.talk import CLIENT_EVENTS, SessionEvent, StepState, Utterance, Verdict
from coach_server.domain.wording import clip, one_line

NOTHING = "-"
MOST_UTTERANCES = 60
MOST_EVENTS = 20
UTTERANCE_CHARS = 400
EVENT_CHARS = 160
TEXT_CHARS = 400
OBJECTION_LINES = 1


def variables(
    talk: TalkSoFar, persona: SimPersona, domain: Domain, language: str, rules: Verdict, named: str
) -> dict[str, str]:
    """What fills the prompt `supervise`. `named`: the language's own name."""
    return {
        "language": named,
        "persona": f"{persona.name}, {persona.age}. {_text(persona.description, language)}",
        "experience": _text(persona.experience, language) or NOTHING,
        "criteria": _listed(pick(persona.criteria, language)),
        "weak_points": _listed(f"{point.id}: {_text(point.text, language)}" for point in persona.weak_points),
        "objections": _listed(_objections(persona, language)),
        "checklist": _listed(_steps(domain, rules.steps, language)),
        "products": _listed(_products(persona, domain, language)),
        "forbidden": ", ".join(word.id for word in domain.forbidden) or NOTHING,
        "mood": _mood(talk),
        "exchanges": str(talk.exchanges),
        "events": _events(talk.events),
        "call": _call(talk.utterances, talk.since),
    }


def _objections(persona: SimPersona, language: str) -> list[str]:
    return [
        f"{objection.id}: {' / '.join(pick(objection.says, language)[:OBJECTION_LINES])}"
        for objection in persona.objections
    ]


def _steps(domain: Domain, states: Sequence[StepState], language: str) -> list[str]:
    known = {state.id: state.state for state in states}
    return [f"{step.id}: {say(step.name, language)} ({known.get(step.id, 'open')})" for step in domain.steps]


def _products(persona: SimPersona, domain: Domain, language: str) -> list[str]:
    return [
        f"{product.name}{' (suits)' if product.id in persona.right_products else ''}: "
        f"{_text(product.facts, language)}"
        for product in domain.products
    ]


def _mood(talk: TalkSoFar) -> str:
    before = ", ".join(f"{value:.1f}" for value in talk.attitudes[-10:]) or NOTHING
    return f"{talk.attitude:.1f} of 10 now; {talk.initial:.1f} at the start; after each evaluation: {before}"


def _events(events: Sequence[SessionEvent]) -> str:
    """What the client reported; the server's own records say nothing new."""
    shown = [event for event in events if event.type in CLIENT_EVENTS][-MOST_EVENTS:]
    return "\n".join(f"{event.time:.1f} s {event.type.value} {_data(event)}" for event in shown) or NOTHING


def _data(event: SessionEvent) -> str:
    return clip(one_line(json.dumps(event.data, ensure_ascii=False, default=str)), EVENT_CHARS)


def _call(utterances: Sequence[Utterance], since: int) -> str:
    """The latest of the talk, each line with its speaker; what is new since the last evaluation is marked."""
    lines = [
        f"{'[new] ' if one.sequence > since else ''}{one.role.value}: "
        f"{clip(one_line(one.text), UTTERANCE_CHARS)}"
        for one in utterances[-MOST_UTTERANCES:]
    ]
    return "\n".join(lines) or NOTHING


def _text(words: Mapping[str, str], language: str) -> str:
    return clip(one_line(say(words, language)), TEXT_CHARS)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or NOTHING
