"""What a page says, one TOML file a language. English is complete by definition, the others equal it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from coach_server.errors import ConfigError

FOLDER = Path(__file__).resolve().parent / "strings"
DEFAULT = "en"
_GAP = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Strings:
    """`direction`: ltr or rtl. `table`: texts by section; the page fills in the `{gaps}` of a text."""

    language: str
    name: str
    direction: str
    table: Mapping[str, Any]


def load_strings(folder: Path = FOLDER) -> dict[str, Strings]:
    """Every language, English first. Raises ConfigError naming the file and the entry."""
    made = {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}
    if DEFAULT not in made:
        raise ConfigError(f"{folder.parent.name} strings: {DEFAULT}.toml is missing")
    wanted = dict(_flat(made[DEFAULT].table))
    for language, strings in made.items():
        _compare(f"{folder.parent.name} strings: {language}.toml", dict(_flat(strings.table)), wanted)
    return {DEFAULT: made[DEFAULT], **made}


def choose(strings: Mapping[str, Strings], request: web.Request) -> Strings:
    """`?lang=`, else the first language of Accept-Language that there is, else English."""
    asked = [request.query.get("lang", ""), *_accepted(request.headers.get("Accept-Language", ""))]
    return next((strings[tag] for tag in asked if tag in strings), strings[DEFAULT])


def _accepted(header: str) -> list[str]:
    weighed = []
    for number, part in enumerate(header[:500].split(",")):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        weighed.append((-weight, number, tag.split("-")[0].lower()))
    return [tag for _, _, tag in sorted(weighed)]


def _read(path: Path) -> Strings:
    where = f"{path.parent.parent.name} strings: {path.name}"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: {error}") from error
    name, direction = document.pop("name", None), document.pop("direction", None)
    if not isinstance(name, str) or direction not in ("ltr", "rtl"):
        raise ConfigError(f"{where}: name and direction (ltr or rtl) are needed")
    return Strings(path.stem, name, direction, document)


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _compare(where: str, mine: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in sorted(wanted.keys() ^ mine.keys()):
        fault = "is missing" if key in wanted else "is not known"
        raise ConfigError(f"{where}: {key} {fault}", field=key)
    for key, text in mine.items():
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where}: {key} must be a text", field=key)
        if set(_GAP.findall(text)) != set(_GAP.findall(str(wanted[key]))):
            raise ConfigError(f"{where}: {key} has other {{gaps}}", field=key)
