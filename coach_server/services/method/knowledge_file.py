"""One knowledge file (`catalog/knowledge/<method>.<language>.toml`) read strictly into a `KnowledgeBook`.
Every mistake names the file, the line and the field."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from coach_server.domain.practice.knowledge import Entry, Kind, KnowledgeBook
from coach_server.errors import ConfigError
from coach_server.services.catalog_file import CatalogFile
from coach_server.services.method.entry import Entry as Table
from coach_server.services.method.entry import Section

ANSWER_CHARS = 1200
PROMPT_CHARS = 4000
_ENTRY_KEYS = ("id", "kind", "question", "also", "answer", "better", "techniques", "attitudes", "phases")
_HEADING = re.compile(r"^[ \t]*\[\[entry\]\]", re.MULTILINE)
_MARKUP = re.compile(r"[*_#`<>|]|https?:|\n")
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def read_book(
    path: Path, known_techniques: Collection[str], known_attitudes: Collection[str]
) -> KnowledgeBook:
    """One language of a method's knowledge, whole and checked. Raises ConfigError."""
    file = CatalogFile.read(path)
    top = Table(Section(file.path, file.source, file.data, 0, len(file.source)), file.data)
    top.only("language", "version", "example", "context", "entry")
    context = top.inner("context")
    context.only("opening", "prompt")
    tables = _tables(top)
    entries = tuple(_entry(table, known_techniques, known_attitudes) for table in tables)
    _distinct(tables)
    return KnowledgeBook(
        language=_language(top, path),
        version=top.whole("version", 1, 1_000_000),
        example=top.text("example"),
        prompt=_long(context, "prompt", PROMPT_CHARS),
        opening=context.text("opening"),
        entries=entries,
    )


def _tables(top: Table) -> list[Table]:
    """The entries, each with its own stretch of the file."""
    source = top.section.source
    starts = [found.start() for found in _HEADING.finditer(source)]
    tables = [data for _, data in top.entries("entry")]
    if not tables or len(starts) != len(tables):
        raise top.wrong("entry", "must be one or more, each under its own [[entry]].")
    path, data = top.section.path, top.section.data
    return [
        Table(Section(path, source, data, begins, ends), table, f"entry[{table.get('id', number)}]")
        for number, (table, begins, ends) in enumerate(
            zip(tables, starts, [*starts[1:], len(source)], strict=True), 1
        )
    ]


def _entry(table: Table, known_techniques: Collection[str], known_attitudes: Collection[str]) -> Entry:
    table.only(*_ENTRY_KEYS)
    return Entry(
        id=table.id(),
        kind=_kind(table),
        question=_spoken(table, "question", table.text("question")),
        answer=_spoken(table, "answer", _long(table, "answer", ANSWER_CHARS)),
        techniques=_known(table, "techniques", known_techniques),
        attitudes=_known(table, "attitudes", known_attitudes),
        phases=_phases(table),
        also=tuple(_spoken(table, "also", each) for each in table.texts("also")),
        better=_spoken(table, "better", table.text("better")) if "better" in table.data else None,
    )


def _kind(table: Table) -> Kind:
    value = table.text("kind")
    if value not in list(Kind):
        raise table.wrong("kind", f"{value!r} is none of {', '.join(Kind)}.", value)
    return Kind(value)


def _known(table: Table, key: str, known: Collection[str]) -> tuple[str, ...]:
    ids = table.texts(key)
    for each in ids:
        if each not in known:
            raise table.wrong(key, f"the method has no {each!r}.", each)
    return ids


def _phases(table: Table) -> tuple[int, ...]:
    phases = table.numbers("phases")
    if not phases:
        raise table.wrong("phases", "is missing: where does it help?")
    return phases


def _spoken(table: Table, key: str, value: str) -> str:
    """An avatar reads it aloud, so marks that only mean something on a page are refused."""
    if found := _MARKUP.search(value):
        raise table.wrong(key, f"is spoken; {found.group()!r} cannot be.", value)
    return value


def _long(table: Table, key: str, limit: int) -> str:
    value = table.section.optional_text(table.data, key, table.field(key), limit=limit)
    if value is None:
        raise table.wrong(key, "is missing.")
    return value


def _language(top: Table, path: Path) -> str:
    language = top.text("language")
    if not _LANGUAGE.fullmatch(language) or path.stem.rpartition(".")[2] != language:
        raise top.wrong("language", "must be the code in the file's name, such as nl.", language)
    return language


def _distinct(tables: Iterable[Table]) -> None:
    seen: set[str] = set()
    for table in tables:
        if (name := str(table.data["id"])) in seen:
            raise _twice(table, name)
        seen.add(name)


def _twice(table: Table, name: str) -> ConfigError:
    return table.wrong("id", f"{name!r} is used twice.", name)
