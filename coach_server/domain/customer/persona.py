"""Who is practised against: a customer on four axes, and the scenario he lives in (contract §7).

A scenario tells the same story once for each language. Its facts are what the customer knows; he never makes
up others, so that two questions for the same thing get the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

Lines = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a behaviour style stands, each 0..1."""

    people: float
    assertiveness: float
    tempo: float
    risk: float


class BehaviourStyle(StrEnum):
    PROMOVEREND = "promoverend"
    FACILITEREND = "faciliterend"
    CONTROLEREND = "controlerend"
    ANALYSEREND = "analyserend"

    @property
    def position(self) -> Position:
        return _POSITIONS[self]


_POSITIONS = {
    BehaviourStyle.PROMOVEREND: Position(0.85, 0.75, 0.80, 0.75),
    BehaviourStyle.FACILITEREND: Position(0.90, 0.25, 0.45, 0.40),
    BehaviourStyle.CONTROLEREND: Position(0.20, 0.85, 0.70, 0.55),
    BehaviourStyle.ANALYSEREND: Position(0.25, 0.35, 0.25, 0.20),
}


class BuyingClock(StrEnum):
    """How far the customer is on the way to buying, in its order."""

    SITUATION_AS_IS = "situation_as_is"
    FIELD_OF_TENSION = "field_of_tension"
    MARKET_RESEARCH = "market_research"
    HESITATION = "hesitation"
    DECISION = "decision"


class Experience(StrEnum):
    """With what is sold."""

    GEEN = "geen_ervaring"
    ENIGE = "enige_ervaring"
    VEEL = "veel_ervaring"


class Difficulty(StrEnum):
    """The easiest customer first."""

    ONBEWUSTE_ONKUNDE = "onbewuste_onkunde"
    BEWUSTE_ONKUNDE = "bewuste_onkunde"
    BEWUSTE_KUNDE = "bewuste_kunde"
    ONBEWUSTE_KUNDE = "onbewuste_kunde"


@dataclass(frozen=True, slots=True)
class Persona:
    style: BehaviourStyle = BehaviourStyle.ANALYSEREND
    clock: BuyingClock = BuyingClock.MARKET_RESEARCH
    experience: Experience = Experience.ENIGE
    difficulty: Difficulty = Difficulty.BEWUSTE_KUNDE


@dataclass(frozen=True, slots=True)
class Value:
    """A line of the value map: what hurts today, and what it would be worth without that."""

    pain: str
    gain: str


@dataclass(frozen=True, slots=True)
class Objection:
    """One of the objection bank. `attitude`: the key of the attitude it is an instance of. `says`: how it is
    raised, `softens`: what a good answer brings, `insists`: what a poor one does."""

    id: str
    attitude: str
    says: str
    softens: str
    insists: str


@dataclass(frozen=True, slots=True)
class Story:
    """A scenario in one language. `facts` by topic: the short answer first, then what is told to those who
    ask on. `cues`: patterns of `domain/cues.py` by topic, for topics that only this scenario has."""

    title: str
    who: str
    role: str
    company: str
    sector: str
    product: str
    customer_type: str
    sales_channel: str
    experience: str
    background: str
    openings: Lines
    facts: Mapping[str, Lines]
    opinions: Lines
    pains: Lines
    impacts: Lines
    questions: Lines
    values: tuple[Value, ...]
    objections: tuple[Objection, ...]
    cues: Mapping[str, Lines] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Scenario:
    """`methodology`: the id of the method it is practised with. `stories` by language code."""

    id: str
    methodology: str
    persona: Persona
    stories: Mapping[str, Story]

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.stories)

    def language(self, wanted: str) -> str:
        """The code of the story told to one who wants this language: that one, English, else the first."""
        code = re.split("[-_]", wanted.lower(), maxsplit=1)[0]
        if code in self.stories:
            return code
        return "en" if "en" in self.stories else next(iter(self.stories))

    def story(self, wanted: str) -> Story:
        return self.stories[self.language(wanted)]


@dataclass(frozen=True, slots=True)
class Script:
    """A drill: the customer's own words, which come first, and the attitude the seller has to meet."""

    lines: Lines
    attitude: str
