"""Personas, scenarios and trades that ship with the server: `catalog/personas`, `catalog/simulations` and
`catalog/trades`, read and checked once at the start; and the same checks for those that clients make."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic.alias_generators import to_camel

from coach_server import paths
from coach_server.domain.simulation.persona import Domain, SimPersona, SimScenario
from coach_server.errors import CoachError, ConfigError, Invalid, NotFound
from coach_server.services.catalog_file import CatalogFile
from coach_server.services.simulation import persona_file, trade_file

_Made = TypeVar("_Made", Domain, SimPersona, SimScenario)


class Personas:
    """Everything a simulation can be held with. Build it with `load`."""

    def __init__(
        self,
        domains: Mapping[str, Domain],
        personas: Mapping[str, SimPersona],
        scenarios: Mapping[str, SimScenario],
    ) -> None:
        self._domains = domains
        self._personas = personas
        self._scenarios = scenarios

    @classmethod
    def load(cls, folder: Path | None = None) -> Personas:
        """The catalog in `folder`, the server's own by default. Raises ConfigError naming file, line and
        field. Blocks: call it before serving."""
        home = folder or paths.catalog()
        domains = _folder(home / "trades", trade_file.domain_from)
        personas = _folder(home / "personas", lambda data: _known_persona(data, domains))
        scenarios = _folder(home / "simulations", lambda data: _known_scenario(data, personas))
        if not scenarios:
            raise ConfigError("simulations: there is no scenario.", field="id")
        return cls(domains, personas, scenarios)

    def persona(self, persona_id: str) -> SimPersona:
        """Raises NotFound."""
        return _found(self._personas, persona_id, "persona", "personaId")

    def scenario(self, scenario_id: str) -> SimScenario:
        """Raises NotFound."""
        return _found(self._scenarios, scenario_id, "scenario", "scenarioId")

    def domain(self, domain_id: str) -> Domain:
        """Raises NotFound."""
        return _found(self._domains, domain_id, "trade", "domain")

    def personas(self) -> tuple[SimPersona, ...]:
        return tuple(self._personas.values())

    def scenarios(self) -> tuple[SimScenario, ...]:
        return tuple(self._scenarios.values())

    def domains(self) -> tuple[Domain, ...]:
        return tuple(self._domains.values())

    def persona_from(self, document: Mapping[str, Any]) -> SimPersona:
        """A persona that a client made, or a row's JSON. Raises Invalid naming the field as clients write
        it, Conflict never: whether the id is free is for the caller to say."""
        return _as_clients_say(lambda: _known_persona(document, self._domains))

    def scenario_from(self, document: Mapping[str, Any], others: Collection[str] = ()) -> SimScenario:
        """As `persona_from`. `others`: ids of personas that are not of the catalog."""
        known = {*self._personas, *others}
        return _as_clients_say(lambda: _known_scenario(document, known))


def _known_persona(document: Mapping[str, Any], domains: Mapping[str, Domain]) -> SimPersona:
    persona = persona_file.persona_from(document)
    domain = domains.get(persona.domain)
    if domain is None:
        raise Invalid(f"There is no trade {persona.domain!r}.", field="domain")
    products = {product.id for product in domain.products}
    if odd := [product for product in persona.right_products if product not in products]:
        raise Invalid(f"The trade has no product {odd[0]!r}.", field="right_products")
    for code in persona.languages:
        if code not in domain.name:
            raise Invalid("The trade is not told in this language.", field=code)
        _can_be_asked(persona, domain, code)
    return persona


def _can_be_asked(persona: SimPersona, domain: Domain, code: str) -> None:
    """Every fact has a question that brings it out, and every check an answer."""
    checks = {check.id for check in domain.checks}
    for topic in persona.phrases.facts:
        if topic in checks or topic in domain.topics or code in persona.fact_cues.get(topic, {}):
            continue
        raise Invalid("Nobody can ask for this: it needs cues.", field=f"{code}.facts.{topic}")
    if lacking := sorted(checks - set(persona.phrases.facts)):
        raise Invalid("A check of the trade needs its answer.", field=f"{code}.facts.{lacking[0]}")
    for topic in persona.fact_cues:
        if topic not in persona.phrases.facts:
            raise Invalid("There is no such fact.", field=f"{code}.fact_cues.{topic}")


def _known_scenario(document: Mapping[str, Any], personas: Collection[str]) -> SimScenario:
    scenario = persona_file.scenario_from(document)
    if scenario.persona_id not in personas:
        raise Invalid(f"There is no persona {scenario.persona_id!r}.", field="persona_id")
    return scenario


def _found(kept: Mapping[str, _Made], wanted: str, what: str, field: str) -> _Made:
    if wanted not in kept:
        raise NotFound(f"There is no such {what}.", field=field)
    return kept[wanted]


def _as_clients_say(make: Callable[[], _Made]) -> _Made:
    try:
        return make()
    except Invalid as error:
        parts = (error.field or "").split(".")
        # Names of topics and ids are the client's own; only ours are written otherwise on the wire.
        named = ".".join(to_camel(part) if part in _OURS else part for part in parts)
        raise Invalid(error.message, field=named or None) from None


_OURS = frozenset(
    {
        "initial_attitude",
        "right_products",
        "persona_id",
        "max_exchanges",
        "speech_style",
        "conversion_signs",
        "small_talk",
        "fact_cues",
        "weak_points",
    }
)


# Files


def _folder(folder: Path, make: Callable[[Mapping[str, Any]], _Made]) -> dict[str, _Made]:
    found: dict[str, _Made] = {}
    for path in sorted(folder.glob("*.toml")):
        file = CatalogFile.read(path)
        try:
            made = make(file.data)
        except Invalid as error:
            raise _wrong(file, error) from error
        if made.id != path.stem:
            raise _wrong(file, Invalid(f"{made.id!r} must be the name of the file.", field="id"))
        found[made.id] = made
    return found


def _wrong(file: CatalogFile, error: CoachError) -> ConfigError:
    field = error.field or "id"
    where = f"{file.path.parent.name}/{file.path.name}: line {line_of(file.source, field)}, {field}"
    return ConfigError(f"{where}: {error.message}", field=field)


def line_of(source: str, field: str) -> int:
    """The line of the deepest part of a dotted field that can be found, counted from one."""
    lines = [line.strip() for line in source.splitlines()]
    at, before = 0, ""
    for part in field.split("."):
        if part.isdigit():
            headings = [n for n, line in enumerate(lines) if line == f"[[{before}]]"]
            at = headings[int(part)] if int(part) < len(headings) else at
        else:
            name = re.escape(part)
            wanted = re.compile(rf'\[+(?:[\w.]+\.)?{name}[.\]]|"?{name}"?\s*=')
            at = next((n for n in range(at, len(lines)) if wanted.match(lines[n])), at)
        before = part
    return at + 1
