"""What models are told about a persona: the realtime model's instructions, and the persona's own part of the
supervisor's and the scorer's prompts (seed 001: `realtimePrompt`, `supervisorPrompt`, `scoringPrompt`,
`productKnowledge`). The words stand in `prompts/<language>/`; here they are filled, each part within a bound,
so that nothing of it can push the rules out of a model's sight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coach_server.domain.method.methodology import say
from coach_server.domain.simulation.attitude import shown
from coach_server.domain.simulation.persona import Domain, Lines, SimPersona, SimScenario, pick
from coach_server.services.prompts import Prompts

MOST_CHARS = 18_000
"""No instructions are longer; the parts' bounds see to it."""
PART_CHARS = 600
FACTS_CHARS = 1_500
TEXT_CHARS = 700
NONE = "–"
_SITUATIONS = ("greeting", "small_talk", "sceptical", "interested", "annoyed", "convinced")


class Prompting:
    """Persona, scenario and trade put into words for models."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    def realtime(self, persona: SimPersona, scenario: SimScenario, domain: Domain, language: str) -> str:
        """Instructions for a talk, in the order Role, Personality, Speech, Flow, Rules, Tools (contract
        simulation.md §4). They stay the same for the whole talk; state is injected beside them."""
        named = self._prompts.language(language).name if self._prompts.speaks(language) else language[:20]
        fatal = [say(check.name, language) for check in domain.checks if check.fatal]
        situations = {s: _bullets(pick(getattr(persona.phrases, s), language)) for s in _SITUATIONS}
        farewells = {o: _bullets(pick(lines, language)) for o, lines in persona.phrases.farewells.items()}
        return self._filled(
            "realtime",
            language,
            language=named,
            name=say(persona.names, language) or persona.name,
            age=str(persona.age),
            description=say(persona.description, language)[:TEXT_CHARS],
            background=say(persona.background, language)[:TEXT_CHARS],
            setting=say(scenario.setting, language)[:TEXT_CHARS],
            experience=say(persona.experience, language)[:TEXT_CHARS],
            personality=_bullets((*pick(persona.personality, language), *pick(persona.traits, language))),
            speech=_bullets(pick(persona.speech_style, language)),
            **situations,
            **farewells,
            facts=_bullets(_facts(persona.phrases.facts, language), FACTS_CHARS),
            objections=_bullets((pick(o.says, language)[0] for o in persona.objections), FACTS_CHARS),
            weak_points=_bullets(say(point.text, language) for point in persona.weak_points),
            signs=_bullets(pick(persona.conversion_signs, language)),
            start=str(shown(persona.initial_attitude)),
            exchanges=str(scenario.max_exchanges),
            checks=", ".join(fatal) or NONE,
        )

    def supervisor(self, persona: SimPersona, domain: Domain, language: str) -> str:
        """The persona's part: criteria, weak points, signs; and the trade's checks, steps and words."""
        return self._filled(
            "persona_supervisor",
            language,
            criteria=_bullets(pick(persona.criteria, language), FACTS_CHARS),
            weak_points=_bullets(say(point.text, language) for point in persona.weak_points),
            signs=_bullets(pick(persona.conversion_signs, language)),
            checks=_bullets(say(check.name, language) for check in domain.checks),
            steps=_bullets((say(step.name, language) for step in domain.steps), FACTS_CHARS),
            forbidden=_bullets(f"{word.id} → {say(word.instead, language)}" for word in domain.forbidden),
        )

    def scoring(self, persona: SimPersona, domain: Domain, language: str) -> str:
        """The persona's part: criteria, weights of the categories, products that suit."""
        suiting = [product.name for product in domain.products if product.id in persona.right_products]
        return self._filled(
            "persona_scoring",
            language,
            criteria=_bullets(pick(persona.criteria, language), FACTS_CHARS),
            weights=_bullets(f"{name}: {round(100 * weight)}" for name, weight in persona.scoring.items()),
            products=_bullets(suiting),
            signs=_bullets(pick(persona.conversion_signs, language)),
        )

    def knowledge(self, domain: Domain, language: str) -> str:
        """What is true of the trade's products, one a line."""
        return _bullets((f"{p.name}: {say(p.facts, language)}" for p in domain.products), 2 * FACTS_CHARS)

    def persona_document(
        self, persona: SimPersona, scenario: SimScenario, domain: Domain, language: str
    ) -> dict[str, Any]:
        """The document of seed 001's collection `personas`. It tells everything, weak points too: for those
        who run trainings, not for trainees. `scenario`: where the realtime prompt places the persona."""
        return {
            "id": persona.id,
            "name": say(persona.names, language) or persona.name,
            "type": persona.type,
            "age": persona.age,
            "description": say(persona.description, language),
            "voice": persona.voice,
            "initialAttitude": shown(persona.initial_attitude),
            "traits": list(pick(persona.traits, language)),
            "realtimePrompt": self.realtime(persona, scenario, domain, language),
            "supervisorPrompt": self.supervisor(persona, domain, language),
            "scoringPrompt": self.scoring(persona, domain, language),
            "productKnowledge": self.knowledge(domain, language),
        }

    def _filled(self, name: str, language: str, /, **variables: str) -> str:
        rendered = self._prompts.render(name, language, **variables)
        return f"{rendered.system}\n\n{rendered.user}"


def _facts(facts: Mapping[str, Mapping[str, Lines]], language: str) -> Iterable[str]:
    return (f"{topic}: {' '.join(pick(lines, language)[:2])}" for topic, lines in facts.items())


def _bullets(lines: Iterable[str], most: int = PART_CHARS) -> str:
    """As many lines as fit, each with a dash; a single dash when there are none."""
    made: list[str] = []
    for line in lines:
        most -= len(line) + 3
        if most < 0:
            break
        made.append(f"- {line}")
    return "\n".join(made) or NONE
