"""What the post-call analysis listens for and says, per language, from `catalog/analysis/<language>.toml`.

Every file must have every key; a language without a file gets the English sentences and no cues, so that
nothing is judged by English words in another language.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from string import Template

from coach_server.domain.debrief import CUE_NAMES, DebriefCues
from coach_server.domain.detection import Objection
from coach_server.domain.language import base
from coach_server.domain.tip import Stage
from coach_server.errors import ConfigError
from coach_server.paths import catalog

FALLBACK = "en"

# Key -> the placeholders it may use. None of them carries spoken words except `when` and `facts`, which the
# analysis leaves out where transcripts are not stored.
_SUMMARY: Mapping[str, frozenset[str]] = {
    "insufficient": frozenset(),
    "length": frozenset({"duration", "stage"}),
    "objections_none": frozenset(),
    "objections_one": frozenset({"kinds", "met"}),
    "objections_many": frozenset({"count", "kinds", "handled"}),
    **{
        f"met_{met}": frozenset()
        for met in ("explored", "answered", "conceded", "argued", "ignored", "unknown")
    },
    "refused": frozenset(),
    "buying": frozenset(),
    "facts": frozenset({"facts"}),
    "next_step": frozenset({"when"}),
    "next_step_agreed": frozenset(),
    "next_step_proposed": frozenset(),
    "next_step_missing": frozenset(),
    "tips_one": frozenset({"taken"}),
    "tips_many": frozenset({"shown", "taken"}),
    "minutes": frozenset({"minutes", "seconds"}),
    "seconds": frozenset({"seconds"}),
}
_STRENGTHS: Mapping[str, frozenset[str]] = {
    "next_step": frozenset(),
    "objection_explored": frozenset({"kind"}),
    "objection_answered": frozenset({"kind"}),
    "buying_taken_up": frozenset(),
    "open_questions": frozenset({"open", "closed"}),
    "impact": frozenset(),
    "summarised": frozenset(),
    "listened": frozenset({"percent"}),
    "tips_landed": frozenset({"count"}),
}
_IMPROVEMENTS: Mapping[str, frozenset[str]] = {
    "pushed_on": frozenset(),
    "no_next_step": frozenset(),
    "objection_argued": frozenset({"kind"}),
    "objection_ignored": frozenset({"kind"}),
    "objection_conceded": frozenset({"kind"}),
    "objection_repeated": frozenset({"kind"}),
    "buying_missed": frozenset(),
    "pain_passed_by": frozenset(),
    "few_open_questions": frozenset({"count"}),
    "talk_share": frozenset({"percent"}),
    "monologue": frozenset({"words"}),
    "pitched_first": frozenset(),
    "pace": frozenset({"pace"}),
    "stacked_questions": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Wording:
    """`language` is the one the sentences are in. `facts` names the keys of facts; a key without a name is
    shown as it is. `advice` and `improvements` have the same keys."""

    language: str
    cues: DebriefCues
    stages: Mapping[Stage, str]
    objections: Mapping[Objection, str]
    facts: Mapping[str, str]
    summary: Mapping[str, Template]
    strengths: Mapping[str, Template]
    improvements: Mapping[str, Template]
    advice: Mapping[str, str]
    better: Mapping[Objection, str]

    def say(self, key: str, **values: str | int) -> str:
        return self.summary[key].substitute(values)


def load_wordings(folder: Path | None = None) -> dict[str, Wording]:
    """Every language there is, checked. Raises ConfigError naming the file and the key."""
    folder = folder or catalog() / "analysis"
    found = {path.stem: read_wording(path) for path in sorted(folder.glob("*.toml"))}
    if FALLBACK not in found:
        raise ConfigError(f"analysis/{FALLBACK}.toml is missing: every other language falls back to it")
    return found


@cache
def wording_for(language: str) -> Wording:
    """The wording of the call's language. Reads files the first time, so call it off the event loop."""
    known = load_wordings()
    code = base(language)
    return known[code] if code in known else replace(known[FALLBACK], cues=DebriefCues())


def read_wording(path: Path) -> Wording:
    name = f"analysis/{path.name}"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from None
    cues = _table(name, document, "cues")
    about = _table(f"{name} cues", cues, "about")
    advice = _table(name, document, "improvements")
    return Wording(
        language=path.stem,
        cues=DebriefCues(
            patterns={key: _pattern(f"{name} cues.{key}", cues.get(key)) for key in CUE_NAMES},
            about={kind: _pattern(f"{name} cues.about.{kind}", about.get(kind)) for kind in Objection},
        ),
        stages={stage: _text(f"{name} stages", document, "stages", stage) for stage in Stage},
        objections={kind: _text(f"{name} objections", document, "objections", kind) for kind in Objection},
        facts={
            key: _sentence(f"{name} facts.{key}", value)
            for key, value in _table(name, document, "facts").items()
        },
        summary=_templates(name, "summary", _table(name, document, "summary"), _SUMMARY),
        strengths=_templates(name, "strengths", _table(name, document, "strengths"), _STRENGTHS),
        improvements=_templates(
            name,
            "improvements",
            {key: _table(f"{name} improvements", advice, key).get("text") for key in _IMPROVEMENTS},
            _IMPROVEMENTS,
        ),
        advice={
            key: _sentence(f"{name} improvements.{key}.advice", _table(name, advice, key).get("advice"))
            for key in _IMPROVEMENTS
        },
        better={kind: _text(f"{name} better", document, "better", kind) for kind in Objection},
    )


def _table(place: str, document: Mapping[str, object], key: str) -> Mapping[str, object]:
    table = document.get(key)
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: the table [{key}] is missing", field=key)
    return table


def _text(place: str, document: Mapping[str, object], table: str, key: str) -> str:
    return _sentence(f"{place}.{key}", _table(place, document, table).get(key))


def _sentence(place: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{place} must be a text")
    return value


def _pattern(place: str, value: object) -> re.Pattern[str]:
    """One pattern of all the alternatives, at word boundaries, the longest match of the first that fits."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise ConfigError(f"{place} must be a list of patterns")
    try:
        return re.compile(rf"(?<!\w)(?:{'|'.join(value)})(?!\w)")
    except re.error as error:
        raise ConfigError(f"{place}: not a pattern: {error}") from None


def _templates(
    name: str, table: str, texts: Mapping[str, object], keys: Mapping[str, frozenset[str]]
) -> dict[str, Template]:
    made: dict[str, Template] = {}
    for key, allowed in keys.items():
        place = f"{name} {table}.{key}"
        template = Template(_sentence(place, texts.get(key)))
        if not template.is_valid():
            raise ConfigError(f"{place}: a $ without a name")
        if unknown := set(template.get_identifiers()) - allowed:
            raise ConfigError(f"{place}: unknown placeholder ${min(unknown)}")
        made[key] = template
    return made
