"""The words of the simulated customer: `catalog/customers/<language>.toml`, read and checked at start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coach_server.domain.customer.mind import Tone
from coach_server.domain.customer.phrasebook import (
    BUCKETS,
    MOODS,
    MOVES,
    TOPICS,
    Hearing,
    Phrasebook,
    hearing,
)
from coach_server.domain.language import base
from coach_server.errors import ConfigError
from coach_server.services.catalog_file import CatalogFile

BASE_LANGUAGE = "en"
LINE_CHARS = 300
# Buckets whose lines carry a piece of the scenario.
_SLOTS = {"again": "{fact}", "summary_half": "{missing}"}


class CustomerWords:
    """The phrasebook of each language. Build it with `load`."""

    def __init__(self, books: Mapping[str, Phrasebook]) -> None:
        self._books = books

    @classmethod
    def load(cls, folder: Path) -> CustomerWords:
        """Raises ConfigError naming file, line and field. Blocks: call it before serving."""
        books = {path.stem: _book(CatalogFile.read(path)) for path in sorted(folder.glob("*.toml"))}
        if BASE_LANGUAGE not in books:
            raise ConfigError(f"{folder.name}/{BASE_LANGUAGE}.toml: is missing")
        return cls(books)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self._books)

    def book(self, language: str) -> Phrasebook:
        """The phrasebook of `language` (`nl-BE` is `nl`), English where there is none."""
        return self._books.get(base(language)) or self._books[BASE_LANGUAGE]


def _book(file: CatalogFile) -> Phrasebook:
    file.only(file.data, ("language", "moves", "topics", "lines", "moods"), "")
    language = file.text(file.data, "language", "language")
    if language != file.path.stem:
        raise file.wrong("language", f"{language!r} is not the name of the file.", language)
    lines = file.table(file.data, "lines", "lines")
    return Phrasebook(
        language,
        _hearing(file, "moves", MOVES),
        _hearing(file, "topics", TOPICS),
        {bucket: _lines(file, lines, bucket) for bucket in _buckets(file, lines)},
        _moods(file),
    )


def _hearing(file: CatalogFile, key: str, wanted: tuple[str, ...]) -> Hearing:
    table = file.table(file.data, key, key)
    file.only(table, wanted, key)
    try:
        cues = {name: file.words(table, name, f"{key}.{name}") for name in wanted}
        if lacking := [name for name, entries in cues.items() if not entries]:
            raise file.wrong(f"{key}.{lacking[0]}", "is missing.")
        return hearing(cues.items())
    except ValueError as error:
        raise file.wrong(key, f"{error}.", _quoted(str(error))) from error


def _moods(file: CatalogFile) -> dict[str, str]:
    table = file.table(file.data, "moods", "moods")
    file.only(table, MOODS, "moods")
    return {name: file.text(table, name, f"moods.{name}", limit=LINE_CHARS) for name in MOODS}


def _buckets(file: CatalogFile, lines: Mapping[str, Any]) -> list[str]:
    known = {f"{bucket}.{tone}" for bucket in BUCKETS for tone in Tone} | set(BUCKETS)
    file.only(lines, known, "lines")
    if lacking := [bucket for bucket in BUCKETS if bucket not in lines]:
        raise file.wrong(f"lines.{lacking[0]}", "is missing.")
    return list(lines)


def _lines(file: CatalogFile, lines: Mapping[str, Any], bucket: str) -> tuple[str, ...]:
    field = f"lines.{bucket}"
    made = file.words(lines, bucket, field)
    if not made:
        raise file.wrong(field, "needs at least one line.", bucket)
    slot = _SLOTS.get(bucket.split(".")[0])
    for line in made:
        if len(line) > LINE_CHARS:
            raise file.wrong(field, f"at most {LINE_CHARS} characters are allowed.", line)
        if line.count("{") != (slot is not None) or (slot and slot not in line):
            raise file.wrong(field, f"must contain {slot or 'no slot'}: {line!r}.", line)
    return made


def _quoted(message: str) -> str | None:
    parts = message.split("'")
    return parts[1] if len(parts) > 2 else None
