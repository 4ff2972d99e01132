"""One TOML file of the catalog, read strictly: every mistake names the file and the field, and the line where
that can be told."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from coach_server.domain.phrases import sentences
from coach_server.domain.tip import HEADING_CHARS, HEADING_WORDS, SCRIPT_CHARS
from coach_server.errors import ConfigError

MAX_FILE_BYTES = 1_000_000
_Named = TypeVar("_Named", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """A file's text and its parsed tables. `field` in the messages is the path of keys from the top."""

    path: Path
    source: str
    data: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> CatalogFile:
        """Raises ConfigError for a file that cannot be read, is not UTF-8, is too large or is not TOML."""
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ConfigError(f"{_name(path)}: the file is larger than {MAX_FILE_BYTES} bytes.")
            source = path.read_text(encoding="utf-8")
            return cls(path, source, tomllib.loads(source))
        except OSError as error:
            raise ConfigError(f"{_name(path)}: cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{_name(path)}: is not UTF-8.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{_name(path)}: {error}.") from error

    def wrong(self, field: str, problem: str, near: str | None = None) -> ConfigError:
        """The error to raise. `near`: words of the offending value, to find its line."""
        line = self._line(near) if near else None
        where = f"line {line}, {field}" if line else field
        return ConfigError(f"{_name(self.path)}: {where}: {problem}", field=field)

    def table(self, holder: Mapping[str, Any], key: str, field: str) -> Mapping[str, Any]:
        value = holder.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(field, "must be a table.")
        return value

    def tables(self, key: str) -> list[Mapping[str, Any]]:
        """The entries of `[[key]]`."""
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, f"must be a list of tables, [[{key}]].")
        return value

    def text(self, holder: Mapping[str, Any], key: str, field: str, *, limit: int = SCRIPT_CHARS) -> str:
        value = self.optional_text(holder, key, field, limit=limit)
        if value is None:
            raise self.wrong(field, "is missing.", _any_text(holder))
        return value

    def optional_text(
        self, holder: Mapping[str, Any], key: str, field: str, *, limit: int = SCRIPT_CHARS
    ) -> str | None:
        value = holder.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "must be a text that is not empty.")
        if len(value) > limit:
            raise self.wrong(field, f"has {len(value)} characters; at most {limit} are allowed.", value)
        return value.strip()

    def words(self, holder: Mapping[str, Any], key: str, field: str) -> tuple[str, ...]:
        """A list of texts; an absent one is empty."""
        value = holder.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.wrong(field, "must be a list of texts.")
        return tuple(value)

    def one_of(self, value: str, kind: type[_Named], field: str) -> _Named:
        try:
            return kind(value)
        except ValueError:
            raise self.wrong(field, f"{value!r} is none of {', '.join(kind)}.", value) from None

    def only(self, holder: Mapping[str, Any], allowed: Iterable[str], field: str) -> None:
        """Refuses keys that nobody reads: they are typing mistakes."""
        unknown = sorted(set(holder) - set(allowed))
        if unknown:
            name = f"{field}.{unknown[0]}" if field else unknown[0]
            raise self.wrong(name, "is not known here.", unknown[0])

    def heading(self, value: str, field: str) -> str:
        if len(value) > HEADING_CHARS or len(value.split()) > HEADING_WORDS:
            raise self.wrong(field, f"{value!r}: at most two words and {HEADING_CHARS} characters.", value)
        return value

    def sentences(self, value: str, allowed: range, field: str) -> str:
        count = sentences(value)
        if count not in allowed:
            wanted = f"{allowed.start} to {allowed.stop - 1}" if len(allowed) > 1 else f"{allowed.start}"
            raise self.wrong(field, f"has {count} sentences, wanted {wanted}: {value!r}", value)
        return value

    def pattern(self, value: str, field: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
        try:
            return re.compile(value, flags)
        except re.error as error:
            raise self.wrong(field, f"is not a pattern ({error}).", value) from error

    def _line(self, near: str) -> int | None:
        probe = near.splitlines()[0][:60] if near else ""
        position = self.source.find(probe) if probe else -1
        return self.source.count("\n", 0, position) + 1 if position >= 0 else None


def _any_text(holder: Mapping[str, Any]) -> str | None:
    return next((value for value in holder.values() if isinstance(value, str) and value), None)


def _name(path: Path) -> str:
    """The file with its folder, because several folders hold an `en.toml`."""
    return f"{path.parent.name}/{path.name}"
