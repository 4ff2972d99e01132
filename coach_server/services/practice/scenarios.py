"""Scenarios to practise with: `catalog/scenarios/*.toml`, and documents of the same form from elsewhere.

    id, methodology, order        [persona] style, clock, experience, difficulty
    [nl] title, who, role, company, sector, product, customer_type, sales_channel, experience, background,
         openings, opinions, pains, impacts, questions
    [nl.facts]  topic = ["short answer", "more"]      [nl.cues]  own topic = ["pattern"]
    [[nl.values]] pain, gain      [[nl.objections]] id, attitude, says, softens, insists

Every language of a scenario tells the same story: the same facts and the same objections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coach_server.domain.customer.persona import (
    BehaviourStyle,
    BuyingClock,
    Difficulty,
    Experience,
    Objection,
    Persona,
    Scenario,
    Story,
    Value,
)
from coach_server.domain.customer.phrasebook import TOPICS, hearing
from coach_server.errors import ConfigError, Invalid, NotFound
from coach_server.services.catalog_file import CatalogFile
from coach_server.services.method.methodologies import Methodologies

DEFAULT = "default-sales-scenario"
ATTITUDES = ("twijfel", "bezwaar", "uitstel", "angst")

_Short: TypeAlias = Annotated[str, Field(min_length=1, max_length=160)]
_Line: TypeAlias = Annotated[str, Field(min_length=1, max_length=300)]
_Lines: TypeAlias = Annotated[list[_Line], Field(min_length=1, max_length=20)]
_Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Persona(_Strict):
    style: BehaviourStyle = BehaviourStyle.ANALYSEREND
    clock: BuyingClock = BuyingClock.MARKET_RESEARCH
    experience: Experience = Experience.ENIGE
    difficulty: Difficulty = Difficulty.BEWUSTE_KUNDE


class _Value(_Strict):
    pain: _Line
    gain: _Line


class _Objection(_Strict):
    id: _Name
    attitude: str
    says: _Line
    softens: _Line
    insists: _Line


class _Story(_Strict):
    title: _Short
    who: _Short
    role: _Short
    company: _Short
    sector: _Short
    product: _Short
    customer_type: _Short
    sales_channel: _Short
    experience: _Short
    background: Annotated[str, Field(min_length=1, max_length=1200)]
    openings: _Lines
    facts: Annotated[dict[_Name, _Lines], Field(min_length=3, max_length=40)]
    opinions: _Lines
    pains: _Lines
    impacts: _Lines
    questions: _Lines
    values: Annotated[list[_Value], Field(min_length=1, max_length=10)]
    objections: Annotated[list[_Objection], Field(min_length=1, max_length=20)]
    cues: dict[_Name, _Lines] = {}


class _Document(_Strict):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    methodology: Annotated[str, Field(min_length=1, max_length=64)]
    order: int = 100
    persona: _Persona = _Persona()


class Scenarios:
    """The catalog's scenarios in their order. Build it with `load`."""

    def __init__(self, scenarios: Mapping[str, Scenario]) -> None:
        self._scenarios = scenarios

    @classmethod
    def load(cls, folder: Path, methodologies: Methodologies) -> Scenarios:
        """Raises ConfigError naming file, line and field. Blocks: call it before serving."""
        files = [CatalogFile.read(path) for path in sorted(folder.glob("*.toml"))]
        found: dict[str, Scenario] = {}
        for file in sorted(files, key=_order):
            scenario = _checked(file)
            if scenario.methodology not in methodologies.methods:
                raise file.wrong(
                    "methodology", f"{scenario.methodology!r} is not known.", scenario.methodology
                )
            if scenario.id in found:
                raise file.wrong("id", f"{scenario.id!r} stands in two files.", scenario.id)
            found[scenario.id] = scenario
        if DEFAULT not in found:
            raise ConfigError(f"{folder.name}: the scenario {DEFAULT!r} is missing.", field="id")
        return cls(found)

    def get(self, scenario_id: str) -> Scenario:
        """Raises NotFound."""
        found = self._scenarios.get(scenario_id)
        if found is None:
            raise NotFound("There is no such scenario.", field="scenarioId")
        return found

    def find(self, scenario_id: str) -> Scenario | None:
        return self._scenarios.get(scenario_id)

    def all(self) -> tuple[Scenario, ...]:
        return tuple(self._scenarios.values())


def from_dict(document: Mapping[str, Any]) -> Scenario:
    """A scenario from a document such as a row's JSON, in the form of the files. Raises Invalid naming the
    field (`nl.facts.budget`)."""
    stories = {k: v for k, v in document.items() if k != "id" and re.fullmatch("[a-z]{2}", k)}
    head = _validated(_Document, {k: v for k, v in document.items() if k not in stories}, "")
    if not stories:
        raise Invalid("At least one language is needed.", field="nl")
    told = {code: _story(_validated(_Story, story, code), code) for code, story in stories.items()}
    _same_everywhere(told)
    axes = Persona(head.persona.style, head.persona.clock, head.persona.experience, head.persona.difficulty)
    return Scenario(head.id, head.methodology, axes, told)


def _validated(model: type[Any], data: object, prefix: str) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in (prefix, *first["loc"]) if part not in ("", "[key]"))
        raise Invalid(f"{first['msg']}.", field=field or None) from None


def _story(made: _Story, code: str) -> Story:
    unknown = [topic for topic in made.facts if topic not in TOPICS and topic not in made.cues]
    if unknown:
        raise Invalid("Nobody can ask for this: it needs cues.", field=f"{code}.facts.{unknown[0]}")
    _check_cues(made, code)
    for objection in made.objections:
        if objection.attitude not in ATTITUDES:
            message = f"{objection.attitude!r} is none of {', '.join(ATTITUDES)}."
            raise Invalid(message, field=f"{code}.objections.{objection.id}.attitude")
    return Story(
        title=made.title,
        who=made.who,
        role=made.role,
        company=made.company,
        sector=made.sector,
        product=made.product,
        customer_type=made.customer_type,
        sales_channel=made.sales_channel,
        experience=made.experience,
        background=made.background,
        openings=tuple(made.openings),
        opinions=tuple(made.opinions),
        pains=tuple(made.pains),
        impacts=tuple(made.impacts),
        questions=tuple(made.questions),
        facts={topic: tuple(lines) for topic, lines in made.facts.items()},
        cues={topic: tuple(lines) for topic, lines in made.cues.items()},
        values=tuple(Value(value.pain, value.gain) for value in made.values),
        objections=tuple(Objection(**objection.model_dump()) for objection in made.objections),
    )


def _check_cues(made: _Story, code: str) -> None:
    for topic, patterns in made.cues.items():
        if topic not in made.facts:
            raise Invalid("There is no such fact.", field=f"{code}.cues.{topic}")
        try:
            hearing([(topic, patterns)])
        except ValueError as error:
            raise Invalid(f"{error}.", field=f"{code}.cues.{topic}") from error


def _same_everywhere(told: Mapping[str, Story]) -> None:
    first = next(iter(told.values()))
    for code, story in told.items():
        if odd := sorted(set(story.facts) ^ set(first.facts)):
            raise Invalid("This fact must stand in every language.", field=f"{code}.facts.{odd[0]}")
        if odd := sorted({o.id for o in story.objections} ^ {o.id for o in first.objections}):
            raise Invalid("This objection must stand in every language.", field=f"{code}.objections.{odd[0]}")


def _order(file: CatalogFile) -> tuple[int, str]:
    order = file.data.get("order", 100)
    return (order if isinstance(order, int) else 100, file.path.name)


def _checked(file: CatalogFile) -> Scenario:
    try:
        return from_dict(file.data)
    except Invalid as error:
        field = error.field or "scenario"
        raise ConfigError(
            f"{file.path.parent.name}/{file.path.name}: line {_line(file.source, field)}, {field}: "
            f"{error.message}",
            field=field,
        ) from error


def _line(source: str, field: str) -> int:
    """The line of the deepest part of a dotted field that can be found among its language's tables."""
    lines = [line.strip() for line in source.splitlines()]
    first, *parts = field.split(".")
    own = [n for n, line in enumerate(lines) if re.match(rf"\[+{re.escape(first)}[].]", line)]
    if own:
        others = (
            n for n in range(own[0], len(lines)) if re.match(rf"\[+(?!\[|{re.escape(first)})", lines[n])
        )
        at, end = own[0], next(others, len(lines))
    else:
        at, end, parts = 0, len(lines), [first, *parts]
    for part in parts:
        name = re.escape(part)
        wanted = re.compile(rf'\[+.*\b{name}\]|"?{name}"?\s*=|id\s*=\s*"{name}"')
        at = next((n for n in range(at, end) if wanted.match(lines[n])), at)
    return at + 1
