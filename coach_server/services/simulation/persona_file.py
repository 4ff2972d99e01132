"""Personas, scenarios and trades of the simulation as documents: a file's tables or a client's JSON, the same
form for both. A document is read strictly; what is wrong is named by its field (`en.objections.brand.says`).

A language stands in a table of its own (`[en]`, `[cs]`, …), and every language tells the same: the same
topics, objections and weak points. Files write `initial_attitude`; a client may write `initialAttitude`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from coach_server.domain.cues import compile_pattern
from coach_server.domain.simulation.persona import (
    CheckRule,
    Domain,
    ForbiddenWord,
    Lines,
    Objection,
    Product,
    SalesStep,
    SamplePhrases,
    SimPersona,
    SimScenario,
    WeakPoint,
)
from coach_server.domain.simulation.talk import Outcome
from coach_server.errors import Invalid

CATEGORIES = ("empathy", "argumentQuality", "persistence", "adaptability")
"""The categories of a score (seed 001)."""
WEIGHT_TOLERANCE = 0.001

_LANGUAGE = re.compile("[a-z]{2}")
_Made = TypeVar("_Made", bound="_Strict")


def _compiles(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


_Id: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
_Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_Short: TypeAlias = Annotated[str, Field(min_length=1, max_length=160)]
_Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=900)]
_Line: TypeAlias = Annotated[str, Field(min_length=1, max_length=240)]
_Lines: TypeAlias = Annotated[list[_Line], Field(min_length=1, max_length=20)]
_Cue: TypeAlias = Annotated[str, Field(min_length=1, max_length=240), AfterValidator(_compiles)]
_Cues: TypeAlias = Annotated[list[_Cue], Field(min_length=1, max_length=80)]
_MaybeCues: TypeAlias = Annotated[list[_Cue], Field(max_length=80)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, loc_by_alias=False
    )


# A persona


class _ObjectionText(_Strict):
    says: _Lines
    answers: _Cues
    softens: Annotated[list[_Line], Field(max_length=20)] = []


class _WeakPointText(_Strict):
    text: _Line
    cues: _Cues
    shows: Annotated[list[_Line], Field(max_length=20)] = []


class _PersonaText(_Strict):
    name: _Short | None = None
    description: _Text
    background: _Text
    experience: _Text
    personality: _Lines
    speech_style: _Lines
    traits: _Lines
    criteria: _Lines
    conversion_signs: _Lines
    greeting: _Lines
    small_talk: _Lines
    sceptical: _Lines
    interested: _Lines
    annoyed: _Lines
    convinced: _Lines
    farewells: dict[Outcome, _Lines]
    facts: Annotated[dict[_Name, _Lines], Field(max_length=40)]
    fact_cues: Annotated[dict[_Name, _Cues], Field(max_length=40)] = {}
    objections: Annotated[dict[_Name, _ObjectionText], Field(min_length=1, max_length=20)]
    weak_points: Annotated[dict[_Name, _WeakPointText], Field(min_length=1, max_length=20)]


class _PersonaHead(_Strict):
    id: _Id
    name: _Short
    type: _Short
    age: Annotated[int, Field(ge=18, le=120)]
    domain: _Id
    voice: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")] = "verse"
    initial_attitude: Annotated[float, Field(ge=0, le=10)]
    right_products: Annotated[list[_Id], Field(min_length=1, max_length=20)]
    scoring: dict[str, float]
    worth: dict[_Name, Annotated[float, Field(ge=0, le=2)]] = {}


def persona_from(document: Mapping[str, Any]) -> SimPersona:
    """Raises Invalid naming the field. Whether its trade and products exist is for `Personas` to say."""
    head, texts = _read(document, _PersonaHead, _PersonaText)
    _weights(head.scoring)
    for place in ("facts", "objections", "weak_points", "farewells"):
        _same_everywhere(texts, place)
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
        personality=_lines(texts, lambda text: text.personality),
        speech_style=_lines(texts, lambda text: text.speech_style),
        traits=_lines(texts, lambda text: text.traits),
        background={code: text.background for code, text in texts.items()},
        experience={code: text.experience for code, text in texts.items()},
        criteria=_lines(texts, lambda text: text.criteria),
        scoring=dict(head.scoring),
        weak_points=tuple(_weak_point(id_, head, texts) for id_ in first.weak_points),
        objections=tuple(_objection(id_, texts) for id_ in first.objections),
        phrases=_phrases(texts),
        fact_cues=_pivot(texts, lambda text: text.fact_cues),
        right_products=tuple(head.right_products),
        conversion_signs=_lines(texts, lambda text: text.conversion_signs),
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
        greeting=_lines(texts, lambda text: text.greeting),
        small_talk=_lines(texts, lambda text: text.small_talk),
        facts=_pivot(texts, lambda text: text.facts),
        sceptical=_lines(texts, lambda text: text.sceptical),
        interested=_lines(texts, lambda text: text.interested),
        annoyed=_lines(texts, lambda text: text.annoyed),
        convinced=_lines(texts, lambda text: text.convinced),
        farewells=_pivot(texts, lambda text: text.farewells),
    )


def _objection(id_: str, texts: Mapping[str, _PersonaText]) -> Objection:
    return Objection(
        id_,
        says=_lines(texts, lambda text: text.objections[id_].says),
        answers=_lines(texts, lambda text: text.objections[id_].answers),
        softens=_lines(texts, lambda text: text.objections[id_].softens),
    )


def _weak_point(id_: str, head: _PersonaHead, texts: Mapping[str, _PersonaText]) -> WeakPoint:
    return WeakPoint(
        id_,
        text={code: text.weak_points[id_].text for code, text in texts.items()},
        cues=_lines(texts, lambda text: text.weak_points[id_].cues),
        worth=head.worth.get(id_, 1.5),
        shows=_lines(texts, lambda text: text.weak_points[id_].shows),
    )


# A scenario


class _ScenarioText(_Strict):
    title: _Short
    description: _Text
    setting: _Text
    goal: _Text
    success: _Lines


class _ScenarioHead(_Strict):
    id: _Id
    persona_id: _Id
    max_exchanges: Annotated[int, Field(ge=2, le=40)] = 10


def scenario_from(document: Mapping[str, Any]) -> SimScenario:
    """Raises Invalid naming the field. Whether its persona exists is for the caller to say."""
    head, texts = _read(document, _ScenarioHead, _ScenarioText)
    return SimScenario(
        id=head.id,
        persona_id=head.persona_id,
        title={code: text.title for code, text in texts.items()},
        description={code: text.description for code, text in texts.items()},
        setting={code: text.setting for code, text in texts.items()},
        goal={code: text.goal for code, text in texts.items()},
        success=_lines(texts, lambda text: text.success),
        max_exchanges=head.max_exchanges,
    )


# A trade


class _ProductText(_Strict):
    facts: _Text
    cues: _Cues
    wrong: _MaybeCues = []


class _ForbiddenText(_Strict):
    stems: _Cues
    instead: _Line
    unless: _MaybeCues = []


class _CheckText(_Strict):
    name: _Short
    cues: _Cues
    stops: _MaybeCues = []


class _StepText(_Strict):
    name: _Short


class _ProductHead(_Strict):
    id: _Id
    name: _Short
    fits: list[_Short]


class _ForbiddenHead(_Strict):
    id: _Id


class _CheckHead(_Strict):
    id: _Name
    event: Literal["DOB_CHECK"] | None = None
    fatal: bool = False


class _StepHead(_Strict):
    id: _Id
    rule: Literal[
        "greeting",
        "needs_before_pitch",
        "right_product",
        "check",
        "product_facts",
        "no_forbidden_words",
        "objections",
        "close",
    ]
    check_id: _Name | None = None
    weight: Annotated[float, Field(gt=0, le=10)] = 1.0


class _DomainText(_Strict):
    name: _Short
    greetings: _Cues
    needs: _Cues
    pitch: _Cues
    closes: _Cues
    pushy: _Cues
    empathy: _Cues
    goodbyes: _Cues
    small_talk: _Cues
    topics: dict[_Name, _Cues]


class _DomainHead(_Strict):
    id: _Id
    products: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=60)]
    forbidden: Annotated[list[dict[str, Any]], Field(max_length=60)] = []
    checks: Annotated[list[dict[str, Any]], Field(max_length=20)] = []
    steps: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=40)]


def domain_from(document: Mapping[str, Any]) -> Domain:
    """Raises Invalid naming the field (`products.1.en.cues`)."""
    head, texts = _read(document, _DomainHead, _DomainText)
    _same_everywhere(texts, "topics")
    checks = tuple(_check(*part) for part in _parts(head.checks, "checks", _CheckHead, _CheckText, texts))
    steps = tuple(_step(*part) for part in _parts(head.steps, "steps", _StepHead, _StepText, texts))
    known = {check.id for check in checks}
    for number, step in enumerate(steps):
        if (step.rule == "check") != (step.check_id in known):
            raise Invalid("A step of the rule 'check' names a check.", field=f"steps.{number}.check_id")
    return Domain(
        id=head.id,
        name={code: text.name for code, text in texts.items()},
        products=tuple(
            _product(*part) for part in _parts(head.products, "products", _ProductHead, _ProductText, texts)
        ),
        forbidden=tuple(
            _forbidden(*part)
            for part in _parts(head.forbidden, "forbidden", _ForbiddenHead, _ForbiddenText, texts)
        ),
        checks=checks,
        steps=steps,
        greetings=_lines(texts, lambda text: text.greetings),
        needs=_lines(texts, lambda text: text.needs),
        pitch=_lines(texts, lambda text: text.pitch),
        closes=_lines(texts, lambda text: text.closes),
        pushy=_lines(texts, lambda text: text.pushy),
        empathy=_lines(texts, lambda text: text.empathy),
        goodbyes=_lines(texts, lambda text: text.goodbyes),
        small_talk=_lines(texts, lambda text: text.small_talk),
        topics=_pivot(texts, lambda text: text.topics),
    )


def _product(head: _ProductHead, texts: Mapping[str, _ProductText]) -> Product:
    return Product(
        head.id,
        head.name,
        facts={code: text.facts for code, text in texts.items()},
        cues=_lines(texts, lambda text: text.cues),
        fits=tuple(head.fits),
        wrong=_lines(texts, lambda text: text.wrong),
    )


def _forbidden(head: _ForbiddenHead, texts: Mapping[str, _ForbiddenText]) -> ForbiddenWord:
    return ForbiddenWord(
        head.id,
        stems=_lines(texts, lambda text: text.stems),
        instead={code: text.instead for code, text in texts.items()},
        unless=_lines(texts, lambda text: text.unless),
    )


def _check(head: _CheckHead, texts: Mapping[str, _CheckText]) -> CheckRule:
    return CheckRule(
        head.id,
        name={code: text.name for code, text in texts.items()},
        cues=_lines(texts, lambda text: text.cues),
        event=head.event,
        fatal=head.fatal,
        stops=_lines(texts, lambda text: text.stops),
    )


def _step(head: _StepHead, texts: Mapping[str, _StepText]) -> SalesStep:
    names = {code: text.name for code, text in texts.items()}
    return SalesStep(head.id, names, head.rule, head.check_id, head.weight)


# Reading


_Head = TypeVar("_Head", bound=_Strict)
_Told = TypeVar("_Told", bound=_Strict)


def _read(
    document: Mapping[str, Any], head: type[_Head], text: type[_Told], prefix: str = ""
) -> tuple[_Head, dict[str, _Told]]:
    """The document without its languages, and each language's table."""
    told = {key: value for key, value in document.items() if key != "id" and _LANGUAGE.fullmatch(key)}
    made = _validated(head, {key: value for key, value in document.items() if key not in told}, prefix)
    if not told:
        raise Invalid("At least one language is needed.", field=f"{prefix}en")
    return made, {code: _validated(text, table, f"{prefix}{code}.") for code, table in told.items()}


def _parts(
    tables: list[dict[str, Any]],
    name: str,
    head: type[_Head],
    text: type[_Told],
    languages: Mapping[str, Any],
) -> list[tuple[_Head, dict[str, _Told]]]:
    """Entries of a list, each in the languages of the whole and with an id of its own."""
    made: list[tuple[_Head, dict[str, _Told]]] = []
    ids: set[str] = set()
    for number, table in enumerate(tables):
        part, texts = _read(table, head, text, f"{name}.{number}.")
        if odd := sorted(set(texts) ^ set(languages)):
            raise Invalid("Every part is told in the same languages.", field=f"{name}.{number}.{odd[0]}")
        part_id = str(getattr(part, "id", ""))
        if part_id in ids:
            raise Invalid(f"{part_id!r} stands here twice.", field=f"{name}.{number}.id")
        ids.add(part_id)
        made.append((part, texts))
    return made


def _validated(model: type[_Made], data: object, prefix: str) -> _Made:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = prefix + ".".join(str(part) for part in first["loc"] if part != "[key]")
        raise Invalid(
            f"{first['msg'].removeprefix('Value error, ')}.", field=field.rstrip(".") or None
        ) from None


def _same_everywhere(texts: Mapping[str, Any], place: str) -> None:
    first: set[str] = set(getattr(next(iter(texts.values())), place))
    for code, text in texts.items():
        if odd := sorted(first ^ set(getattr(text, place))):
            raise Invalid("This must stand in every language.", field=f"{code}.{place}.{odd[0]}")


def _lines(texts: Mapping[str, _Told], of: Callable[[_Told], list[str]]) -> dict[str, Lines]:
    return {code: tuple(lines) for code, text in texts.items() if (lines := of(text))}


def _pivot(
    texts: Mapping[str, _Told], of: Callable[[_Told], Mapping[Any, list[str]]]
) -> dict[str, dict[str, Lines]]:
    """Tables of lines by language turned into languages by name of the table."""
    names = dict.fromkeys(name for text in texts.values() for name in of(text))
    return {
        str(name): {code: tuple(of(text)[name]) for code, text in texts.items() if name in of(text)}
        for name in names
    }
