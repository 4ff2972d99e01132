"""What the feedback on a talk says and listens for, per language, from `catalog/feedback/<language>.toml`.

Every file has every key, checked at the start. A language without a file gets the English sentences and no
words to listen for, so that nothing is judged by English words in another language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from coach_server.domain.language import base
from coach_server.domain.ledger import content_words
from coach_server.domain.practice.missed import RULES
from coach_server.domain.practice.scorecard import Kind
from coach_server.domain.practice.talk import TalkWords
from coach_server.errors import ConfigError
from coach_server.paths import catalog
from coach_server.services.catalog_file import CatalogFile

FALLBACK = "en"
_NAMED = frozenset({"technique"})
_NOTHING: frozenset[str] = frozenset()
# The rules of domain/practice/highlights.py and what they fill.
_REMARKS: Mapping[Kind, Mapping[str, frozenset[str]]] = {
    Kind.GOOD: {
        "resistance_met": _NOTHING,
        "commitment": _NOTHING,
        "technique_perfect": _NAMED,
        "technique_goed": _NAMED,
        "themes": frozenset({"count", "of"}),
        "room": frozenset({"percent"}),
        "echo": _NOTHING,
    },
    Kind.WARNING: {
        **dict.fromkeys(RULES, _NOTHING),
        "forbidden": _NAMED,
        "technique_gemist": _NAMED,
        "technique_bijna": _NAMED,
        "talked_much": frozenset({"percent"}),
        "talked_little": frozenset({"percent"}),
        "self_centred": _NOTHING,
        "few_questions": frozenset({"count"}),
    },
}
_ADVICE: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(RULES, _NOTHING),
    **dict.fromkeys(("technique", "next", "repeat"), _NAMED),
    **dict.fromkeys(("often_2", "often_3", "insufficient"), _NOTHING),
}
_QUOTES = frozenset({"customer", "seller"})
_WORD_LISTS = ("you", "we", "stop", "pain")


@dataclass(frozen=True, slots=True)
class RemarkWording:
    """`quoted` says the same with words of the talk, `$customer` or `$seller`; None where it has none."""

    text: Template
    quoted: Template | None


@dataclass(frozen=True, slots=True)
class FeedbackWording:
    """`language` is the one the sentences are in; `words`, what the rules listen for in the talk's own."""

    language: str
    words: TalkWords
    remarks: Mapping[Kind, Mapping[str, RemarkWording]]
    advice: Mapping[str, Template]


def load_feedback_wordings(folder: Path | None = None) -> dict[str, FeedbackWording]:
    """Every language there is. Raises ConfigError naming the file, the line and the field."""
    folder = folder or catalog() / "feedback"
    found = {path.stem: read_feedback_wording(path) for path in sorted(folder.glob("*.toml"))}
    if FALLBACK not in found:
        raise ConfigError(f"feedback/{FALLBACK}.toml is missing: every other language falls back to it.")
    return found


@cache
def feedback_wording(language: str) -> FeedbackWording:
    """The wording of a talk's language. Reads files the first time, so call it off the event loop."""
    known = load_feedback_wordings()
    code = base(language)
    return known[code] if code in known else replace(known[FALLBACK], words=TalkWords())


def read_feedback_wording(path: Path) -> FeedbackWording:
    file = CatalogFile.read(path)
    file.only(file.data, ("words", *Kind, "advice"), "")
    return FeedbackWording(
        language=path.stem,
        words=_words(file, path.stem),
        remarks={kind: _remarks(file, kind) for kind in Kind},
        advice=_advice(file),
    )


def _words(file: CatalogFile, language: str) -> TalkWords:
    table = file.table(file.data, "words", "words")
    file.only(table, _WORD_LISTS, "words")
    lists = {name: file.words(table, name, f"words.{name}") for name in _WORD_LISTS}
    for name, words in lists.items():
        if not words:
            raise file.wrong(f"words.{name}", "must not be empty.")
    # Stop words are compared with stems.
    stems = frozenset(stem for word in lists["stop"] for stem in content_words(word, language))
    return TalkWords(frozenset(lists["you"]), frozenset(lists["we"]), stems, _pain(file, lists["pain"]))


def _pain(file: CatalogFile, patterns: tuple[str, ...]) -> re.Pattern[str]:
    for pattern in patterns:
        file.pattern(pattern, "words.pain")
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)")


def _remarks(file: CatalogFile, kind: Kind) -> dict[str, RemarkWording]:
    table = file.table(file.data, kind, kind)
    file.only(table, _REMARKS[kind], kind)
    return {name: _remark(file, table, f"{kind}.{name}", allowed) for name, allowed in _REMARKS[kind].items()}


def _remark(
    file: CatalogFile, table: Mapping[str, Any], field: str, allowed: frozenset[str]
) -> RemarkWording:
    entry = file.table(table, field.partition(".")[2], field)
    file.only(entry, ("text", "quoted"), field)
    text = _template(file, file.text(entry, "text", f"{field}.text"), f"{field}.text", allowed)
    said = file.optional_text(entry, "quoted", f"{field}.quoted")
    quoted = _template(file, said, f"{field}.quoted", allowed | _QUOTES) if said else None
    return RemarkWording(text, quoted)


def _advice(file: CatalogFile) -> dict[str, Template]:
    table = file.table(file.data, "advice", "advice")
    file.only(table, _ADVICE, "advice")
    return {
        name: _template(file, file.text(table, name, f"advice.{name}"), f"advice.{name}", allowed)
        for name, allowed in _ADVICE.items()
    }


def _template(file: CatalogFile, text: str, field: str, allowed: frozenset[str]) -> Template:
    template = Template(text)
    if not template.is_valid():
        raise file.wrong(field, "has a $ without a name.", text)
    if unknown := set(template.get_identifiers()) - allowed:
        raise file.wrong(field, f"${min(unknown)} is no placeholder here.", text)
    return template
