"""The words for what the rules advise the customer: `catalog/simulation/guidance.toml`, by language."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coach_server.domain.language import base
from coach_server.domain.simulation.verdict import Guidance
from coach_server.services.catalog_file import CatalogFile

FALLBACK = "en"


class GuidanceWords:
    """Build it with `load`."""

    def __init__(self, words: Mapping[str, Mapping[str, str]]) -> None:
        self._words = words

    @classmethod
    def load(cls, path: Path) -> GuidanceWords:
        """Raises ConfigError naming file, line and field. Blocks: call it before serving."""
        file = CatalogFile.read(path)
        words = {code: _read(file, code) for code in file.data}
        if FALLBACK not in words:
            raise file.wrong(FALLBACK, "is missing.")
        return cls(words)

    def say(self, advice: str, language: str) -> str:
        """The sentences for the name of an advice; English where the language has none."""
        words = self._words.get(base(language)) or self._words[FALLBACK]
        return words[advice]


def _read(file: CatalogFile, code: str) -> Mapping[str, str]:
    table = file.table(file.data, code, code)
    names = [advice.value for advice in Guidance]
    file.only(table, names, code)
    return {name: file.text(table, name, f"{code}.{name}") for name in names}
