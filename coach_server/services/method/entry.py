"""The tables of a method file, one at a time: typed reading, with messages that name file, line and field."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coach_server.domain.cues import compile_pattern
from coach_server.domain.method.methodology import Words
from coach_server.errors import ConfigError
from coach_server.services.catalog_file import CatalogFile

LANGUAGES = ("nl", "en", "he")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Section(CatalogFile):
    """A stretch of the file, `begins` to `ends`: what is wrong in it is looked for there and nowhere else."""

    begins: int = 0
    ends: int = 0

    def wrong(self, field: str, problem: str, near: str | None = None) -> ConfigError:
        where = f"line {self._line(near or '')}, {field}"
        return ConfigError(f"{self.path.parent.name}/{self.path.name}: {where}: {problem}", field=field)

    def _line(self, near: str) -> int:
        """The line of the offending words, as a value or as a key; the heading's when they are not found."""
        probe = near.splitlines()[0][:60] if near else ""
        for needle in (f'"{probe}"', f"\n{probe} =", f"[{probe}", probe) if probe else ():
            position = self.source.find(needle, self.begins, self.ends)
            if position >= 0:
                return self.source.count("\n", 0, position + needle.startswith("\n")) + 1
        return self.source.count("\n", 0, self.begins) + 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of the file. `name` is how the messages call it, empty for the top of the file."""

    section: Section
    data: Mapping[str, Any]
    name: str = ""

    def field(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def wrong(self, key: str, problem: str, near: str | None = None) -> ConfigError:
        return self.section.wrong(self.field(key), problem, near or key)

    def only(self, *allowed: str) -> None:
        self.section.only(self.data, allowed, self.name)

    def inner(self, key: str) -> Entry:
        return Entry(self.section, self.section.table(self.data, key, self.field(key)), self.field(key))

    def text(self, key: str) -> str:
        value = self.section.optional_text(self.data, key, self.field(key))
        if value is None:
            raise self.wrong(key, "is missing.")
        return value

    def optional(self, key: str) -> str | None:
        return self.section.optional_text(self.data, key, self.field(key))

    def id(self, key: str = "id") -> str:
        value = self.text(key)
        if not _ID.fullmatch(value):
            raise self.wrong(key, f"{value!r}: only letters, digits, '-', '_' and '.'.", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return self.section.words(self.data, key, self.field(key))

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false.")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self.data.get(key, default)
        if value is None:
            raise self.wrong(key, "is missing.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(key, f"must be a number from {low:g} to {high:g}.")
        return float(value)

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.number(key, low, high, default)
        if not value.is_integer():
            raise self.wrong(key, "must be a whole number.")
        return int(value)

    def numbers(self, key: str) -> tuple[int, ...]:
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise self.wrong(key, "must be a list of whole numbers.")
        return tuple(value)

    def table_of_numbers(self, key: str, low: float, high: float) -> dict[str, float]:
        inner = self.inner(key)
        return {name: inner.number(name, low, high) for name in inner.data}

    def entries(self, key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "must be a list of tables.")
        return enumerate(value, 1)

    # what is said in several languages stands in a table a language: [technique.nl], [technique.en]

    def languages(self, *allowed: str) -> None:
        for language in LANGUAGES:
            self.inner(language).only(*allowed)

    def spoken(self, key: str, needed: Collection[str] = LANGUAGES) -> Words:
        found: dict[str, str] = {}
        for language in LANGUAGES:
            said = self.inner(language).optional(key)
            if said is not None:
                found[language] = said
            elif language in needed:
                raise self._unsaid(language, key)
        return found

    def spoken_lists(self, key: str, needed: Collection[str] = LANGUAGES) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for language in LANGUAGES:
            said = self.inner(language).texts(key)
            if said:
                found[language] = said
            elif language in needed:
                raise self._unsaid(language, key)
        return found

    def _unsaid(self, language: str, key: str) -> ConfigError:
        kind = self.name.partition("[")[0]
        return self.wrong(f"{language}.{key}", "is missing.", f"{kind}.{language}" if kind else language)

    def cues(self, needed: Collection[str] = ()) -> Mapping[str, tuple[str, ...]]:
        found = self.spoken_lists("cues", needed)
        for language, patterns in found.items():
            self._compiles(f"{language}.cues", patterns)
        return found

    def marks(self) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        found: dict[str, tuple[tuple[str, ...], ...]] = {}
        for language in LANGUAGES:
            groups = self.inner(language).data.get("marks", [])
            if not isinstance(groups, list) or not all(_is_group(group) for group in groups):
                raise self.wrong(f"{language}.marks", "must be a list of lists of texts.", "marks")
            for group in groups:
                self._compiles(f"{language}.marks", group)
            if groups:
                found[language] = tuple(tuple(group) for group in groups)
        return found

    def _compiles(self, key: str, patterns: Collection[str]) -> None:
        for pattern in patterns:
            try:
                compile_pattern(pattern)
            except ValueError as error:
                raise self.wrong(key, f"pattern {pattern!r}: {error}.", pattern) from error


def _is_group(group: object) -> bool:
    return isinstance(group, list) and bool(group) and all(isinstance(item, str) for item in group)
