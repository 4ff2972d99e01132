"""The scripted calls a newcomer can play. Words in `catalog/demo/<language>.toml`; checked here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coach_server.errors import CoachError, ConfigError
from coach_server.paths import catalog
from coach_server.services.recordings import Turn, parse_recording

_METADATA = ("agent_name", "customer_name", "company", "location")


@dataclass(frozen=True, slots=True)
class DemoCall:
    """`metadata` has `agent_name`, `customer_name`, `company` and `location`, for the tips' placeholders."""

    language: str
    title: str
    metadata: Mapping[str, str]
    turns: tuple[Turn, ...]

    @property
    def duration_ms(self) -> int:
        return sum(turn.pause_ms for turn in self.turns)


def demo_languages(folder: Path | None = None) -> tuple[str, ...]:
    """Languages a demo call exists in, sorted."""
    return tuple(sorted(path.stem for path in (folder or catalog() / "demo").glob("*.toml")))


def load_demo(language: str, folder: Path | None = None) -> DemoCall:
    """The demo call in `language`. Raises ConfigError naming the file and the field that is wrong."""
    folder = folder or catalog() / "demo"
    known = demo_languages(folder)
    # Looked up, not joined to a path: a language comes from a client.
    if language not in known:
        raise ConfigError(f"there is no demo call in that language; there are: {', '.join(known)}")
    path = folder / f"{language}.toml"
    return read_demo(f"demo/{path.name}", path.read_text(encoding="utf-8"), language)


def read_demo(name: str, text: str, language: str) -> DemoCall:
    try:
        turns = parse_recording(name, text)
    except CoachError as error:
        raise ConfigError(error.message, field=error.field) from None
    document = tomllib.loads(text)
    if document.get("language") != language:
        raise ConfigError(f'{name}: language must be "{language}", as the file is named', field="language")
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        raise ConfigError(f"{name}: a [metadata] table is missing", field="metadata")
    _check_pauses(name, document.get("turn"))
    title = _sentence(name, "title", document.get("title"))
    return DemoCall(
        language=language,
        title=title,
        metadata={key: _sentence(name, f"metadata.{key}", metadata.get(key)) for key in _METADATA},
        turns=tuple(turns),
    )


def _check_pauses(name: str, entries: object) -> None:
    """A recording may leave the pauses to the talking pace; a demo says how long each one is."""
    if not isinstance(entries, list):
        raise ConfigError(f"{name}: the turns must be [[turn]] tables", field="turn")
    for index, entry in enumerate(entries, start=1):
        if "pause_ms" not in entry:
            raise ConfigError(f"{name} turn[{index}]: pause_ms is missing", field="pause_ms")


def _sentence(name: str, field: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name}: {field} must be a text", field=field)
    return value.strip()
