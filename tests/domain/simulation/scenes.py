"""A small trade and a customer of it, for tests: bicycles, sold to people who ride."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coach_server.domain.simulation.persona import (
    CheckRule,
    Domain,
    ForbiddenWord,
    Objection,
    Product,
    SalesStep,
    SamplePhrases,
    SimPersona,
    SimScenario,
    WeakPoint,
)
from coach_server.domain.simulation.scene import Scene, TalkSoFar
from coach_server.domain.simulation.talk import EventType, Role, SessionEvent, Utterance

AVATAR, TRAINEE = Role.AVATAR, Role.TRAINEE


def en(*lines: str) -> dict[str, tuple[str, ...]]:
    return {"en": lines}


CITY = Product(
    "city", "City 5", {"en": "Weighs 14 kilos, belt drive, costs 900."}, en("city 5"), ("commuter",),
    wrong=en("city 5 ~ weighs 5"),
)  # fmt: skip
RACER = Product("racer", "Racer", {"en": "Weighs 7 kilos, costs 4000."}, en("racer"), ())
DOMAIN = Domain(
    id="bicycles",
    name={"en": "Bicycles"},
    products=(CITY, RACER),
    forbidden=(
        ForbiddenWord("free", en("free", "free of charge"), {"en": "included"}, unless=en("feel free")),
        ForbiddenWord("healthy", en("health*"), {"en": "pleasant"}),
    ),
    checks=(
        CheckRule("age", {"en": "Age"}, en("how old are you", "your age"), "DOB_CHECK", True),
        CheckRule("rider", {"en": "Rides"}, en("do you ride"), None, True, stops=en("i (never|do not) ride")),
        CheckRule("helmet", {"en": "Helmet"}, en("a helmet"), None, False),
    ),
    steps=(
        SalesStep("greet", {"en": "Greet"}, "greeting"),
        SalesStep("needs", {"en": "Needs"}, "needs_before_pitch"),
        SalesStep("product", {"en": "Right product"}, "right_product"),
        SalesStep("age_check", {"en": "Age"}, "check", "age"),
        SalesStep("facts", {"en": "Facts"}, "product_facts"),
        SalesStep("words", {"en": "Words"}, "no_forbidden_words"),
        SalesStep("objections", {"en": "Objections"}, "objections"),
        SalesStep("close", {"en": "Close"}, "close"),
    ),
    greetings=en("good morning", "hello"),
    needs=en("what do you need", "how far ~ go"),
    pitch=en("the best ~ market", "our model"),
    closes=en("would you like to take"),
    pushy=en("buy it now", "last chance"),
    empathy=en("i understand", "that must be hard", "take your time", "i hear you"),
)
PERSONA = SimPersona(
    id="eva",
    name="Eva",
    type="commuter",
    age=41,
    domain="bicycles",
    voice="verse",
    initial_attitude=3,
    languages=("en",),
    description={"en": "Rides to work."},
    personality=en("dry"),
    speech_style=en("short"),
    traits=en("sceptical"),
    background={"en": "Lives uphill."},
    experience={"en": "Had a folding bike."},
    criteria=en("Warms up when asked about her way to work."),
    scoring={"empathy": 0.25, "argumentQuality": 0.25, "persistence": 0.25, "adaptability": 0.25},
    weak_points=(WeakPoint("hill", {"en": "The hill wears her out."}, en("(the|that) hill"), 2.0),),
    objections=(
        Objection("price", en("That is far too expensive for a bicycle."), en("lease", "monthly")),
        Objection("theft", en("Mine was stolen twice in front of the office."), en("insur*", "lock")),
    ),
    phrases=SamplePhrases(en("Hi."), en("Fine."), {}, en("Hm."), en("Oh."), en("No."), en("Yes."), {}),
    fact_cues={},
    right_products=("city",),
    conversion_signs=en("Asks about delivery."),
)
STRANGER = replace(PERSONA, type="walker", right_products=())
"""Nothing suits this one."""
SCENARIO = SimScenario(
    "shop", "eva", {"en": "Shop"}, {"en": "A shop."}, {"en": "Counter"}, {"en": "Sell"}, {}, max_exchanges=8
)


def said(*lines: tuple[Role, str]) -> tuple[Utterance, ...]:
    """A line every three seconds, numbered from 1."""
    return tuple(
        Utterance(n, role, text, 3.0 * (n - 1), 3.0 * (n - 1) + 2) for n, (role, text) in enumerate(lines, 1)
    )


def trainee(*texts: str) -> tuple[Utterance, ...]:
    return said(*((TRAINEE, text) for text in texts))


def dob(time: float, correct: Any = True) -> SessionEvent:
    return SessionEvent(time, EventType.DOB_CHECK, {"entered": "1980-01-01", "correct": correct})


def scene(
    utterances: tuple[Utterance, ...],
    *events: SessionEvent,
    persona: SimPersona = PERSONA,
    domain: Domain = DOMAIN,
) -> Scene:
    return Scene.of(utterances, events, persona, domain, "en")


def so_far(utterances: tuple[Utterance, ...], *events: SessionEvent, **changes: Any) -> TalkSoFar:
    exchanges = sum(one.role is AVATAR for one in utterances)
    talk = TalkSoFar(utterances, events, PERSONA.initial_attitude, PERSONA.initial_attitude, (), exchanges)
    return replace(talk, **changes)
