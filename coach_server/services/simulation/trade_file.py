"""Trades of the simulation as documents, in the form of `catalog/trades`: products, checks, forbidden words,
sales steps, and what a trainee's moves sound like; see `document.py` for how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from coach_server.domain.simulation.persona import CheckRule, Domain, ForbiddenWord, Product, SalesStep
from coach_server.errors import Invalid
from coach_server.services.simulation.document import (
    CueList,
    Id,
    Line,
    MaybeCues,
    Name,
    Short,
    Strict,
    Text,
    by_language,
    by_name,
    parts,
    read,
    same_everywhere,
)


class _ProductText(Strict):
    facts: Text
    cues: CueList
    wrong: MaybeCues = Field(default_factory=list)


class _ForbiddenText(Strict):
    stems: CueList
    instead: Line
    unless: MaybeCues = Field(default_factory=list)


class _CheckText(Strict):
    name: Short
    cues: CueList
    stops: MaybeCues = Field(default_factory=list)


class _StepText(Strict):
    name: Short


class _ProductHead(Strict):
    id: Id
    name: Short
    fits: list[Short]


class _ForbiddenHead(Strict):
    id: Id


class _CheckHead(Strict):
    id: Name
    event: Literal["DOB_CHECK"] | None = None
    fatal: bool = False


class _StepHead(Strict):
    id: Id
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
    check_id: Name | None = None
    weight: Annotated[float, Field(gt=0, le=10)] = 1.0


class _DomainText(Strict):
    name: Short
    greetings: CueList
    needs: CueList
    pitch: CueList
    closes: CueList
    pushy: CueList
    empathy: CueList
    goodbyes: CueList
    small_talk: CueList
    topics: dict[Name, CueList]


class _DomainHead(Strict):
    id: Id
    products: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=60)]
    forbidden: list[dict[str, Any]] = Field(default_factory=list, max_length=60)
    checks: list[dict[str, Any]] = Field(default_factory=list, max_length=20)
    steps: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=40)]


def domain_from(document: Mapping[str, Any]) -> Domain:
    """Raises Invalid naming the field (`products.1.en.cues`)."""
    head, texts = read(document, _DomainHead, _DomainText)
    same_everywhere(texts, "topics")
    checks = tuple(_check(*part) for part in parts(head.checks, "checks", _CheckHead, _CheckText, texts))
    steps = tuple(_step(*part) for part in parts(head.steps, "steps", _StepHead, _StepText, texts))
    known = {check.id for check in checks}
    for number, step in enumerate(steps):
        if (step.rule == "check") != (step.check_id in known):
            raise Invalid("A step of the rule 'check' names a check.", field=f"steps.{number}.check_id")
    return Domain(
        id=head.id,
        name={code: text.name for code, text in texts.items()},
        products=tuple(
            _product(*part) for part in parts(head.products, "products", _ProductHead, _ProductText, texts)
        ),
        forbidden=tuple(
            _forbidden(*part)
            for part in parts(head.forbidden, "forbidden", _ForbiddenHead, _ForbiddenText, texts)
        ),
        checks=checks,
        steps=steps,
        greetings=by_language(texts, lambda text: text.greetings),
        needs=by_language(texts, lambda text: text.needs),
        pitch=by_language(texts, lambda text: text.pitch),
        closes=by_language(texts, lambda text: text.closes),
        pushy=by_language(texts, lambda text: text.pushy),
        empathy=by_language(texts, lambda text: text.empathy),
        goodbyes=by_language(texts, lambda text: text.goodbyes),
        small_talk=by_language(texts, lambda text: text.small_talk),
        topics=by_name(texts, lambda text: text.topics),
    )


def _product(head: _ProductHead, texts: Mapping[str, _ProductText]) -> Product:
    return Product(
        head.id,
        head.name,
        facts={code: text.facts for code, text in texts.items()},
        cues=by_language(texts, lambda text: text.cues),
        fits=tuple(head.fits),
        wrong=by_language(texts, lambda text: text.wrong),
    )


def _forbidden(head: _ForbiddenHead, texts: Mapping[str, _ForbiddenText]) -> ForbiddenWord:
    return ForbiddenWord(
        head.id,
        stems=by_language(texts, lambda text: text.stems),
        instead={code: text.instead for code, text in texts.items()},
        unless=by_language(texts, lambda text: text.unless),
    )


def _check(head: _CheckHead, texts: Mapping[str, _CheckText]) -> CheckRule:
    return CheckRule(
        head.id,
        name={code: text.name for code, text in texts.items()},
        cues=by_language(texts, lambda text: text.cues),
        event=head.event,
        fatal=head.fatal,
        stops=by_language(texts, lambda text: text.stops),
    )


def _step(head: _StepHead, texts: Mapping[str, _StepText]) -> SalesStep:
    names = {code: text.name for code, text in texts.items()}
    return SalesStep(head.id, names, head.rule, head.check_id, head.weight)
