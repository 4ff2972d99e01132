"""Cue files (TOML) read and checked; what is wrong is told with file and line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from coach_server.domain.cues import (
    NAMES,
    WORD_LISTS,
    Cue,
    Cues,
    Nodes,
    Pattern,
    Phrases,
    compile_pattern,
    index_patterns,
    plain,
)
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError


def parse_cues(source: str, file: str) -> Cues:
    """A cue file's text into cues. Raises ConfigError naming the file and line."""
    try:
        data = tomllib.loads(source)
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError(f"{file}: {fault}") from fault
    return _Reader(source, file).read(data)


class _Reader:
    """Turns one file's tables into Cues; knows where in the file to point when something is wrong."""

    def __init__(self, source: str, file: str) -> None:
        self.lines = source.splitlines()
        self.file = file
        self.cue_lines = [n for n, line in enumerate(self.lines, 1) if line.strip() == "[[cue]]"]

    def read(self, data: Mapping[str, Any]) -> Cues:
        self._only(data, {"language", "words", "cue"}, 1)
        language = data.get("language")
        if not isinstance(language, str) or not language:
            raise self._wrong(1, 'language: a code such as "en" is needed')
        lists = self._lists(data.get("words", {}))
        negators = frozenset(lists["negators"])
        cues, patterns = self._cues(data.get("cue", []))
        return Cues(
            language,
            tuple(cues),
            index_patterns(patterns),
            {name: self._phrases(entries) for name, entries in lists.items()},
            negators,
            frozenset(lists["negators_behind"]),
            frozenset(lists["not_negating"]),
        )

    def _lists(self, table: Mapping[str, Any]) -> dict[str, list[str]]:
        start = self._line_of("[words]")
        self._only(table, set(WORD_LISTS), start)
        result: dict[str, list[str]] = {}
        for name in WORD_LISTS:
            if name not in table:
                raise self._wrong(start, f"words.{name} is missing")
            entries = self._strings(table[name], f"words.{name}", self._line_of(f"{name} =", start))
            plain_only = name in ("negators", "negators_behind", "not_negating")
            result[name] = [plain(entry) for entry in entries] if plain_only else entries
        return result

    def _phrases(self, entries: list[str]) -> Phrases:
        return index_patterns(Pattern(self._nodes(entry)) for entry in entries)

    def _cues(self, tables: Any) -> tuple[list[Cue], list[Pattern]]:
        cues: list[Cue] = []
        patterns: list[Pattern] = []
        if not isinstance(tables, list) or not tables:
            raise self._wrong(1, "there is no [[cue]]")
        for number, table in enumerate(tables):
            line = self.cue_lines[number] if number < len(self.cue_lines) else 1
            cues.append(self._cue(table, line))
            for key in ("any", "unless"):
                entries = self._strings(table.get(key, []), key, line)
                patterns += [Pattern(self._nodes(entry), number, key == "unless") for entry in entries]
        return cues, patterns

    def _cue(self, table: Mapping[str, Any], line: int) -> Cue:
        self._only(table, {"finds", "any", "unless", "speaker", "strength", "negatable", "question"}, line)
        name = table.get("finds")
        if name not in NAMES:
            raise self._wrong(line, f"finds: '{name}' is none of {', '.join(sorted(NAMES))}")
        if not table.get("any"):
            raise self._wrong(line, "any: at least one pattern is needed")
        strength = table.get("strength", 0.8)
        if not isinstance(strength, int | float) or not 0 < strength <= 1:
            raise self._wrong(line, "strength: a number above 0 and up to 1 is needed")
        return Cue(
            str(name),
            float(strength),
            self._speaker(table.get("speaker", "customer"), line),
            self._flag(table, "negatable", line) is not False,
            self._flag(table, "question", line),
        )

    def _speaker(self, value: object, line: int) -> Speaker | None:
        match value:
            case "customer":
                return Speaker.CUSTOMER
            case "seller":
                return Speaker.AGENT
            case "any":
                return None
        raise self._wrong(line, f"speaker: '{value}' is none of customer, seller, any")

    def _flag(self, table: Mapping[str, Any], name: str, line: int) -> bool | None:
        value = table.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong(line, f"{name}: true or false is needed")

    def _nodes(self, entry: str) -> Nodes:
        try:
            return compile_pattern(entry)
        except ValueError as fault:
            raise self._wrong(self._line_of(f'"{entry}"'), f'pattern "{entry}": {fault}') from fault

    def _strings(self, value: object, name: str, line: int) -> list[str]:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return value
        raise self._wrong(line, f"{name}: a list of texts is needed")

    def _only(self, table: Mapping[str, Any], known: set[str], line: int) -> None:
        for name in table:
            if name not in known:
                found = self._line_of(f"{name} =", line)
                raise self._wrong(found, f"'{name}' is unknown here; known: {', '.join(sorted(known))}")

    def _line_of(self, needle: str, start: int = 1) -> int:
        return next((n for n, text in enumerate(self.lines, 1) if n >= start and needle in text), start)

    def _wrong(self, line: int, what: str) -> ConfigError:
        return ConfigError(f"{self.file}, line {line}: {what}")
