"""What the supervisor's steering says to the customer's model, in the persona's language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coach_server.domain.language import base
from coach_server.domain.simulation.effects import Steer, SteerKind
from coach_server.domain.simulation.talk import Direction, Outcome, TalkPhase
from coach_server.services.catalog_file import CatalogFile

FALLBACK = "en"
_LINES = ("mood", "topics", "off_track", "short", "end", *(phase.value for phase in TalkPhase))


@dataclass(frozen=True, slots=True)
class _Words:
    lines: Mapping[str, str]
    direction: Mapping[str, str]
    farewell: Mapping[str, str]


class Director:
    """Build it with `load`."""

    def __init__(self, words: Mapping[str, _Words]) -> None:
        self._words = words

    @classmethod
    def load(cls, path: Path) -> Director:
        """Raises ConfigError naming file, line and field."""
        file = CatalogFile.read(path)
        words = {code: _read(file, code) for code in file.data}
        if FALLBACK not in words:
            raise file.wrong(FALLBACK, "is missing.")
        return cls(words)

    def lines(self, steer: Steer, language: str) -> list[str]:
        """The lines of the block to inject."""
        words = self._words.get(base(language)) or self._words[FALLBACK]
        mood = words.lines["mood"].format(
            attitude=steer.attitude, direction=words.direction[steer.direction.value]
        )
        if steer.kind is SteerKind.FAREWELL and steer.outcome is not None:
            end = words.lines["end"].format(outcome=steer.outcome.value)
            return [mood, words.farewell[steer.outcome.value], end]
        told = [mood, words.lines[steer.phase.value], steer.guidance]
        if steer.topics:
            told.append(words.lines["topics"].format(topics=", ".join(steer.topics)))
        if not steer.is_on_track:
            told.append(words.lines["off_track"])
        return [line for line in (*told, words.lines["short"]) if line]


def _read(file: CatalogFile, code: str) -> _Words:
    table = file.table(file.data, code, code)
    file.only(table, (*_LINES, "direction", "farewell"), code)
    return _Words(
        lines={name: file.text(table, name, f"{code}.{name}") for name in _LINES},
        direction=_named(file, table, "direction", [one.value for one in Direction], code),
        farewell=_named(file, table, "farewell", [one.value for one in Outcome], code),
    )


def _named(
    file: CatalogFile, holder: Mapping[str, Any], key: str, names: list[str], code: str
) -> Mapping[str, str]:
    table = file.table(holder, key, f"{code}.{key}")
    return {name: file.text(table, name, f"{code}.{key}.{name}") for name in names}
