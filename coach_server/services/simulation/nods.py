"""What a listener says while another one speaks, by language: `catalog/simulation/nods.toml`."""

from __future__ import annotations

from pathlib import Path

from coach_server.domain.language import base
from coach_server.services.catalog_file import CatalogFile

FALLBACK = "en"


class Nods:
    """Build it with `load`."""

    def __init__(self, words: dict[str, frozenset[str]]) -> None:
        self._words = words

    @classmethod
    def load(cls, path: Path) -> Nods:
        """Raises ConfigError naming file, line and field."""
        file = CatalogFile.read(path)
        words = {
            code: frozenset(word.casefold() for word in file.words(file.data, code, code))
            for code in file.data
        }
        if FALLBACK not in words:
            raise file.wrong(FALLBACK, "is missing.")
        return cls(words)

    def of(self, language: str) -> frozenset[str]:
        return self._words.get(base(language)) or self._words[FALLBACK]
