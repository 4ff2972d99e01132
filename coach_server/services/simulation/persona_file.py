"""Personas and scenarios of the simulation as documents, in the form of `catalog/personas` and
`catalog/simulations`; see `document.py` for how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from coach_server.domain.simulation.persona import (
    Objection,
    SamplePhrases,
    SimPersona,
    SimScenario,
    WeakPoint,
)
from coach_server.domain.simulation.talk import Outcome
from coach_server.errors import Invalid
from coach_server.services.simulation.document import (
    CueList,
    Id,
    Line,
    LineList,
    Name,
    Short,
    Strict,
    Text,
    by_language,
    by_name,
    read,
    same_everywhere,
)

CATEGORIES = ("empathy", "argumentQuality", "persistence", "adaptability")
"""The categories of a score (seed 001)."""
WEIGHT_TOLERANCE = 0.001


class _ObjectionText(Strict):
    says: LineList
    answers: CueList
    softens: list[Line] = Field(default_factory=list, max_length=20)


class _WeakPointText(Strict):
    text: Line
    cues: CueList
    shows: list[Line] = Field(default_factory=list, max_length=20)


class _PersonaText(Strict):
    name: Short | None = None
    description: Text
    background: Text
    experience: Text
    personality: LineList
    speech_style: LineList
    traits: LineList
    criteria: LineList
    conversion_signs: LineList
    greeting: LineList
    small_talk: LineList
    sceptical: LineList
    interested: LineList
    annoyed: LineList
    convinced: LineList
    farewells: dict[Outcome, LineList]
    facts: Annotated[dict[Name, LineList], Field(max_length=40)]
    fact_cues: dict[Name, CueList] = Field(default_factory=dict, max_length=40)
    objections: Annotated[dict[Name, _ObjectionText], Field(min_length=1, max_length=20)]
    weak_points: Annotated[dict[Name, _WeakPointText], Field(min_length=1, max_length=20)]


class _PersonaHead(Strict):
    id: Id
    name: Short
    type: Short
    age: Annotated[int, Field(ge=18, le=120)]
    domain: Id
    voice: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")] = "verse"
    initial_attitude: Annotated[float, Field(ge=0, le=10)]
    right_products: Annotated[list[Id], Field(min_length=1, max_length=20)]
    scoring: dict[str, float]
    worth: dict[Name, Annotated[float, Field(ge=0, le=2)]] = Field(default_factory=dict)


def persona_from(document: Mapping[str, Any]) -> SimPersona:
    """Raises Invalid naming the field. Whether its trade and products exist is for `Personas` to say."""
    head, texts = read(document, _PersonaHead, _PersonaText)
    _weights(head.scoring)
    for place in ("facts", "objections", "weak_points", "farewells"):
        same_everywhere(texts, place)
    for code, text in texts.items():
        if lacking := [o for o in Outcome if o not in text.farewells]:
            raise Invalid("Every outcome needs a farewell.", field=f"{code}.farewells.{lacking[0]}")
    first = next(iter(texts.values()))
    if odd := sorted(set(head.worth) - set(first.weak_points)):
        raise Invalid("There is no such weak point.", field=f"worth.{odd[0]}")
    return SimPersona(
        id=head.id,
        name=head.name,
        type=head.type,
        age=head.age,
        domain=head.domain,
        voice=head.voice,
        initial_attitude=head.initial_attitude,
        languages=tuple(texts),
        description={code: text.description for code, text in texts.items()},
        personality=by_language(texts, lambda text: text.personality),
        speech_style=by_language(texts, lambda text: text.speech_style),
        traits=by_language(texts, lambda text: text.traits),
        background={code: text.background for code, text in texts.items()},
        experience={code: text.experience for code, text in texts.items()},
        criteria=by_language(texts, lambda text: text.criteria),
        scoring=dict(head.scoring),
        weak_points=tuple(_weak_point(id_, head, texts) for id_ in first.weak_points),
        objections=tuple(_objection(id_, texts) for id_ in first.objections),
        phrases=_phrases(texts),
        fact_cues=by_name(texts, lambda text: text.fact_cues),
        right_products=tuple(head.right_products),
        conversion_signs=by_language(texts, lambda text: text.conversion_signs),
        names={code: text.name for code, text in texts.items() if text.name},
    )


def _weights(scoring: Mapping[str, float]) -> None:
    if odd := sorted(set(scoring) - set(CATEGORIES)):
        raise Invalid("There is no such category.", field=f"scoring.{odd[0]}")
    for category in CATEGORIES:
        if not 0 <= scoring.get(category, -1) <= 1:
            raise Invalid("A weight from 0 to 1 is needed.", field=f"scoring.{category}")
    if abs(sum(scoring.values()) - 1) > WEIGHT_TOLERANCE:
        raise Invalid(f"The weights sum up to {sum(scoring.values()):g}, not to 1.", field="scoring")


def _phrases(texts: Mapping[str, _PersonaText]) -> SamplePhrases:
    return SamplePhrases(
        greeting=by_language(texts, lambda text: text.greeting),
        small_talk=by_language(texts, lambda text: text.small_talk),
        facts=by_name(texts, lambda text: text.facts),
        sceptical=by_language(texts, lambda text: text.sceptical),
        interested=by_language(texts, lambda text: text.interested),
        annoyed=by_language(texts, lambda text: text.annoyed),
        convinced=by_language(texts, lambda text: text.convinced),
        farewells=by_name(texts, lambda text: text.farewells),
    )


def _objection(id_: str, texts: Mapping[str, _PersonaText]) -> Objection:
    return Objection(
        id_,
        says=by_language(texts, lambda text: text.objections[id_].says),
        answers=by_language(texts, lambda text: text.objections[id_].answers),
        softens=by_language(texts, lambda text: text.objections[id_].softens),
    )


def _weak_point(id_: str, head: _PersonaHead, texts: Mapping[str, _PersonaText]) -> WeakPoint:
    return WeakPoint(
        id_,
        text={code: text.weak_points[id_].text for code, text in texts.items()},
        cues=by_language(texts, lambda text: text.weak_points[id_].cues),
        worth=head.worth.get(id_, 1.5),
        shows=by_language(texts, lambda text: text.weak_points[id_].shows),
    )


class _ScenarioText(Strict):
    title: Short
    description: Text
    setting: Text
    goal: Text
    success: LineList


class _ScenarioHead(Strict):
    id: Id
    persona_id: Id
    max_exchanges: Annotated[int, Field(ge=2, le=40)] = 10


def scenario_from(document: Mapping[str, Any]) -> SimScenario:
    """Raises Invalid naming the field. Whether its persona exists is for the caller to say."""
    head, texts = read(document, _ScenarioHead, _ScenarioText)
    return SimScenario(
        id=head.id,
        persona_id=head.persona_id,
        title={code: text.title for code, text in texts.items()},
        description={code: text.description for code, text in texts.items()},
        setting={code: text.setting for code, text in texts.items()},
        goal={code: text.goal for code, text in texts.items()},
        success=by_language(texts, lambda text: text.success),
        max_exchanges=head.max_exchanges,
    )
