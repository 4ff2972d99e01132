"""Who the trainee meets in a simulation, and what the sale is about. All of it is data: nothing in the code
knows a product or a trade."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from coach_server.domain.method.methodology import Words

Lines = tuple[str, ...]


def pick(lines: Mapping[str, Lines], language: str) -> Lines:
    """The lines in that language, else in English, else in the first one there is."""
    code = re.split("[-_]", language.lower(), maxsplit=1)[0]
    return lines.get(code) or lines.get("en") or next(iter(lines.values()), ())


@dataclass(frozen=True, slots=True)
class WeakPoint:
    """What moves this customer once it is touched. Never spoken. `cues`: patterns of `domain/cues.py` by
    language that show that the trainee touched it; `worth`: how much it lifts the attitude (1..2); `shows`:
    what the customer says the moment it is touched."""

    id: str
    text: Words
    cues: Mapping[str, Lines]
    worth: float = 1.5
    shows: Mapping[str, Lines] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objection:
    """A line of the resistance. `answers`: cues that show that the trainee answered it; `softens`: what the
    customer says then."""

    id: str
    says: Mapping[str, Lines]
    answers: Mapping[str, Lines]
    softens: Mapping[str, Lines] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Product:
    """`fits`: types of persona it is right for. `facts`: what is true of it; `cues`: how it is named in a
    talk; `wrong`: cues of false claims about it."""

    id: str
    name: str
    facts: Words
    cues: Mapping[str, Lines]
    fits: Lines
    wrong: Mapping[str, Lines] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForbiddenWord:
    """A word the trainee must not use. `stems`: patterns of `domain/cues.py` by language (inflections are
    stems with a star); `instead`: what to say; `unless`: phrases in which it is harmless (`feel free`)."""

    id: str
    stems: Mapping[str, Lines]
    instead: Words
    unless: Mapping[str, Lines] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckRule:
    """A check the trainee must make before a product is named (age, user of the product). `cues`: questions
    that make it; `event`: a client event that proves it (`DOB_CHECK`), or None; `fatal`: naming a product
    before *every* fatal check ends the talk as `compliance_fail`; a single missing one costs points.
    `stops`: answers of the customer after which selling must stop (no smoker), by language."""

    id: str
    name: Words
    cues: Mapping[str, Lines]
    event: str | None
    fatal: bool
    stops: Mapping[str, Lines] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SalesStep:
    """A step of the checklist. `rule` names how rules see it: `greeting`, `needs_before_pitch`,
    `right_product`, `check` (of `check_id`), `product_facts`, `no_forbidden_words`, `objections`, `close`."""

    id: str
    name: Words
    rule: str
    check_id: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Domain:
    """A trade: its products, words that are forbidden, checks and sales steps. `pitch`: cues of pitching
    beside the products' names; `needs`: cues of asking for needs; `greetings`, `closes`, `goodbyes`,
    `small_talk`: cues. `topics`: cues of plain questions that any customer of the trade answers, by topic."""

    id: str
    name: Words
    products: tuple[Product, ...]
    forbidden: tuple[ForbiddenWord, ...]
    checks: tuple[CheckRule, ...]
    steps: tuple[SalesStep, ...]
    greetings: Mapping[str, Lines]
    needs: Mapping[str, Lines]
    pitch: Mapping[str, Lines]
    closes: Mapping[str, Lines]
    pushy: Mapping[str, Lines]
    empathy: Mapping[str, Lines]
    goodbyes: Mapping[str, Lines] = field(default_factory=dict)
    small_talk: Mapping[str, Lines] = field(default_factory=dict)
    topics: Mapping[str, Mapping[str, Lines]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SamplePhrases:
    """What the customer says by situation and language; the offline customer speaks with these."""

    greeting: Mapping[str, Lines]
    small_talk: Mapping[str, Lines]
    facts: Mapping[str, Mapping[str, Lines]]
    """Answers to plain questions by topic: the id of a check, a topic of the trade or one of the persona's
    own. The first line is the short answer, the next ones say more."""
    sceptical: Mapping[str, Lines]
    interested: Mapping[str, Lines]
    annoyed: Mapping[str, Lines]
    convinced: Mapping[str, Lines]
    farewells: Mapping[str, Mapping[str, Lines]]
    """By outcome: converted, rejected, walked_away, compliance_fail."""


@dataclass(frozen=True, slots=True)
class SimPersona:
    """A customer (seed 001, collection `personas`). `initial_attitude`: 0..10. `scoring`: weights of the
    seed's categories, summing up to one. `fact_cues`: questions by topic that `phrases.facts` answers, beside
    those of the trade.
    `rising_limit`, … of the supervisor are the machine's, not the persona's."""

    id: str
    name: str
    type: str
    age: int
    domain: str
    voice: str
    initial_attitude: float
    languages: tuple[str, ...]
    description: Words
    personality: Mapping[str, Lines]
    speech_style: Mapping[str, Lines]
    traits: Mapping[str, Lines]
    background: Words
    experience: Words
    criteria: Mapping[str, Lines]
    """What the supervisor looks at in this persona."""
    scoring: Mapping[str, float]
    weak_points: tuple[WeakPoint, ...]
    objections: tuple[Objection, ...]
    phrases: SamplePhrases
    fact_cues: Mapping[str, Mapping[str, Lines]]
    right_products: Lines
    """Ids of the products that suit."""
    conversion_signs: Mapping[str, Lines]
    names: Words = field(default_factory=dict)
    """The name in languages that write it otherwise."""


@dataclass(frozen=True, slots=True)
class SimScenario:
    """Whom to meet, where, and what counts as success."""

    id: str
    persona_id: str
    title: Words
    description: Words
    setting: Words
    goal: Words
    success: Mapping[str, Lines]
    max_exchanges: int = 10
