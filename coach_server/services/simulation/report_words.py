"""What a simulation's score and report card say: `catalog/simulation/report.<language>.toml`.

Every file has every key, checked when it is read. A language without a file gets the English sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from coach_server.domain.language import base
from coach_server.domain.simulation.checklist import DONE, FAILED, OPEN
from coach_server.domain.simulation.remarks import GOOD, WARNINGS
from coach_server.domain.simulation.scorecard import Category, Tone
from coach_server.domain.simulation.talk import EventType, Outcome
from coach_server.errors import ConfigError
from coach_server.paths import catalog
from coach_server.services.catalog_file import CatalogFile

FALLBACK = "en"
NO_OUTCOME = "none"
MARKED_EVENTS = (EventType.DOB_CHECK, EventType.VR_INTERACTION, EventType.TABLET_CHOICE, EventType.ERROR)
_OUTCOMES = (*(outcome.value for outcome in Outcome), NO_OUTCOME)
_NAMED, _COUNTED = frozenset({"name"}), frozenset({"count"})
_FILLED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("right_product", "false_claim", "wrong_product"), _NAMED),
    **dict.fromkeys(("check_missing", "check_failed", "check_late"), _NAMED),
    **dict.fromkeys(("won", "few_needs"), _COUNTED),
    "forbidden": frozenset({"word", "instead", "count"}),
}
_SUMMARY: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("strong", "solid", "mixed", "weak"), frozenset({"persona"})),
    **dict.fromkeys(("insufficient", *_OUTCOMES), frozenset()),
    "capped": frozenset({"cap"}),
}
_LABELS = (
    "title", "trainee", "persona", "scenario", "date", "duration", "session", "score", "no_score",
    "provisional", "categories", "attitude", "checklist", "highlights", "improvements", "nothing",
    "transcript", "left_out", "avatar", "speaker", "compliance", "page",
)  # fmt: skip
_PLAIN: Mapping[str, Iterable[str]] = {
    "outcome": _OUTCOMES,
    "category": tuple(category.value for category in Category),
    "state": (DONE, FAILED, OPEN),
    "label": _LABELS,
    "event": tuple(event.value for event in MARKED_EVENTS),
}


@dataclass(frozen=True, slots=True)
class RemarkWords:
    """`quoted` says the same with words of the talk; None where it has none."""

    text: Template
    quoted: Template | None


@dataclass(frozen=True, slots=True)
class ReportWords:
    """`plain`: texts without placeholders by section (`outcome`, `category`, `state`, `label`, `event`)."""

    language: str
    remarks: Mapping[Tone, Mapping[str, RemarkWords]]
    summary: Mapping[str, Template]
    plain: Mapping[str, Mapping[str, str]]


def load_report_words(folder: Path | None = None) -> dict[str, ReportWords]:
    """Every language there is. Raises ConfigError naming the file, the line and the field. Blocks."""
    folder = folder or catalog() / "simulation"
    paths = sorted(folder.glob("report.*.toml"))
    found = {path.stem.partition(".")[2]: read_report_words(path) for path in paths}
    if FALLBACK not in found:
        raise ConfigError(f"simulation/report.{FALLBACK}.toml is missing: other languages fall back to it.")
    return found


@cache
def _all_words() -> Mapping[str, ReportWords]:
    return load_report_words()


def report_words(language: str) -> ReportWords:
    """The words of that language. Reads files the first time, so call it off the event loop."""
    known = _all_words()
    return known.get(base(language)) or known[FALLBACK]


def read_report_words(path: Path) -> ReportWords:
    file = CatalogFile.read(path)
    file.only(file.data, (*Tone, "summary", *_PLAIN), "")
    names = {Tone.GOOD: GOOD, Tone.WARNING: WARNINGS}
    return ReportWords(
        language=path.stem.partition(".")[2],
        remarks={tone: _remarks(file, tone, known) for tone, known in names.items()},
        summary=_summary(file),
        plain={section: _texts(file, section, keys) for section, keys in _PLAIN.items()},
    )


def _remarks(file: CatalogFile, tone: Tone, known: Iterable[str]) -> dict[str, RemarkWords]:
    table = file.table(file.data, tone, tone)
    file.only(table, known, tone)
    return {name: _remark(file, table, tone, name) for name in known}


def _remark(file: CatalogFile, table: Mapping[str, Any], tone: Tone, name: str) -> RemarkWords:
    field = f"{tone}.{name}"
    entry = file.table(table, name, field)
    file.only(entry, ("text", "quoted"), field)
    filled = _FILLED.get(name, frozenset())
    text = _template(file, file.text(entry, "text", f"{field}.text"), f"{field}.text", filled)
    said = file.optional_text(entry, "quoted", f"{field}.quoted")
    quoted = _template(file, said, f"{field}.quoted", filled | {"quote"}) if said else None
    return RemarkWords(text, quoted)


def _summary(file: CatalogFile) -> dict[str, Template]:
    table = file.table(file.data, "summary", "summary")
    file.only(table, _SUMMARY, "summary")
    return {
        name: _template(file, file.text(table, name, f"summary.{name}"), f"summary.{name}", allowed)
        for name, allowed in _SUMMARY.items()
    }


def _texts(file: CatalogFile, section: str, keys: Iterable[str]) -> dict[str, str]:
    table = file.table(file.data, section, section)
    file.only(table, keys, section)
    return {key: file.text(table, key, f"{section}.{key}") for key in keys}


def _template(file: CatalogFile, text: str, field: str, allowed: frozenset[str]) -> Template:
    template = Template(text)
    if not template.is_valid():
        raise file.wrong(field, "has a $ without a name.", text)
    if unknown := set(template.get_identifiers()) - allowed:
        raise file.wrong(field, f"${min(unknown)} is no placeholder here.", text)
    return template
