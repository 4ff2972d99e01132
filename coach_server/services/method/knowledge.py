"""The knowledge base of a method: read from the catalog, found by meaning, and given out to avatar vendors.

`catalog/knowledge/<method>.<language>.toml`, checked at the start. Found by sentence embeddings and shared
words together; by words alone where there is no embedder or it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coach_server.domain.language import base
from coach_server.domain.practice.knowledge import Entry, KnowledgeBook, Wanted, WordIndex, index_of, terms
from coach_server.errors import ConfigError, ProviderError
from coach_server.providers.embedder import Embedder
from coach_server.services.method.knowledge_file import read_book

DEFAULT_METHOD = "hugo"
DEFAULT_LANGUAGE = "en"
ASKED_CHARS = 1000
BATCH = 8
"""Texts embedded at a time, so that the calls' own sentences need not wait for the whole book."""
WORDS_SHARE = 0.3
"""How much shared words count beside the embeddings' likeness."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry and how well it fits; scores compare within one answer only."""

    entry: Entry
    score: float


def told_entry(entry: Entry, book: KnowledgeBook, technique: str | None = None) -> dict[str, Any]:
    """`{id, technique, question, answer, better, language}`, plain JSON. `technique`: what it was found for,
    by default what it is most about."""
    return {
        "id": entry.id,
        "technique": technique or (entry.techniques[0] if entry.techniques else None),
        "question": entry.question,
        "answer": entry.answer,
        "better": entry.better,
        "language": book.language,
    }


@dataclass(frozen=True, slots=True)
class AvatarContext:
    """What LiveAvatar's `POST /v1/contexts` takes."""

    name: str
    prompt: str
    opening_text: str


class Knowledge:
    """All languages of one method's knowledge. A language that is not written is answered in English."""

    def __init__(self, method: str, books: Mapping[str, KnowledgeBook], embedder: Embedder | None) -> None:
        self.method = method
        self._books = books
        self._shelves = {code: _Shelf(book, embedder) for code, book in books.items()}

    @classmethod
    def load(
        cls,
        folder: Path,
        known_techniques: Collection[str],
        known_attitudes: Collection[str],
        embedder: Embedder | None = None,
        *,
        method: str = DEFAULT_METHOD,
    ) -> Knowledge:
        """Raises ConfigError naming file and line, also for an id that the method does not know."""
        paths = sorted(folder.glob(f"{method}.*.toml"))
        books = {b.language: b for b in (read_book(p, known_techniques, known_attitudes) for p in paths)}
        if DEFAULT_LANGUAGE not in books:
            raise ConfigError(f"{folder.name}/{method}.{DEFAULT_LANGUAGE}.toml is missing.")
        return cls(method, books, embedder)

    def by_meaning(self, embedder: Embedder | None) -> Knowledge:
        """The same books, found by meaning too where there is an embedder."""
        return Knowledge(self.method, self._books, embedder)

    def reading(self, techniques: Iterable[str], language: str) -> list[dict[str, Any]]:
        """What to read about these techniques, in their order and each entry once; empty for a technique that
        nothing was written about."""
        book = self.book(language)
        found = [(id, entry) for id in techniques if (entry := book.about_technique(id)) is not None]
        once = {entry.id: (id, entry) for id, entry in reversed(found)}
        return [told_entry(entry, book, id) for id, entry in found if once[entry.id][0] == id]

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self._books)

    def book(self, language: str) -> KnowledgeBook:
        return self._books.get(base(language)) or self._books[DEFAULT_LANGUAGE]

    def version(self, language: str) -> int:
        return self.book(language).version

    async def prepare(self) -> None:
        """Make the vectors now (some seconds a language, in a thread) instead of at the first question."""
        for shelf in self._shelves.values():
            await asyncio.to_thread(shelf.prepare)

    async def find(
        self,
        text: str,
        language: str,
        *,
        techniques: Iterable[str] = (),
        attitude: str | None = None,
        phase: int | None = None,
        limit: int = 3,
    ) -> list[Hit]:
        """The entries that fit best, the best first, equal ones by id. With `phase`, only what may be done in
        that phase, and what names one of the techniques or the attitude."""
        shelf = self._shelves[self.book(language).language]
        wanted = Wanted(frozenset(techniques), attitude, phase)
        return await asyncio.to_thread(shelf.find, text.strip()[:ASKED_CHARS], wanted, limit)

    def about_technique(self, technique_id: str, language: str) -> Entry | None:
        """The entry most about a technique, without embeddings; None when there is none."""
        return self.book(language).about_technique(technique_id)

    def about_attitude(self, attitude_id: str, language: str) -> Entry | None:
        """The entry most about a customer attitude, without embeddings; None when there is none."""
        return self.book(language).about_attitude(attitude_id)

    def export(self, language: str) -> str:
        """`Q:` and `A:` lines, the form of HeyGen's knowledge base (seed 000)."""
        return self.book(language).as_questions()

    def context(self, language: str) -> AvatarContext:
        """The knowledge as a LiveAvatar context, with the coach's manner and first sentence."""
        book = self.book(language)
        return AvatarContext(f"{self.method}-{book.language}-v{book.version}", book.as_prompt(), book.opening)


class _Shelf:
    """One book with its indexes. Blocking; any thread may call it."""

    def __init__(self, book: KnowledgeBook, embedder: Embedder | None) -> None:
        self._book = book
        self._embedder = embedder
        self._words: WordIndex = index_of(book)
        self._meanings: _Meanings | None = None
        self._making = threading.Lock()

    def prepare(self) -> None:
        """Make the vectors once; whoever comes meanwhile waits. An embedder that fails is tried again at the
        next question."""
        if self._embedder is not None:
            with contextlib.suppress(ProviderError):
                self._made(self._embedder)

    def find(self, text: str, wanted: Wanted, limit: int) -> list[Hit]:
        hits = [
            Hit(entry, round(likeness + wanted.bonus(entry), 4))
            for entry, likeness in zip(self._book.entries, self._likeness(text), strict=True)
            if wanted.fits(entry)
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.entry.id))[:limit]

    def _likeness(self, text: str) -> list[float]:
        by_words = self._words.scores(terms(text))
        if self._embedder is None or not text:
            return by_words
        try:
            by_meaning = self._made(self._embedder).scores(self._embedder.embed([text])[0])
        except ProviderError:
            return by_words
        return [
            WORDS_SHARE * word + (1 - WORDS_SHARE) * float(meaning)
            for word, meaning in zip(by_words, by_meaning, strict=True)
        ]

    def _made(self, embedder: Embedder) -> _Meanings:
        with self._making:
            if self._meanings is None:
                asked = [text for entry in self._book.entries for text in entry.asked]
                self._meanings = _Meanings(
                    _embed_all(embedder, asked), [len(e.asked) for e in self._book.entries]
                )
            return self._meanings


class _Meanings:
    """Entries as the vectors of the ways they are asked, `counts` of them each, one entry after the other.

    The model puts all sentences into one narrow cone; taking the mean of all away spreads them.
    """

    def __init__(self, vectors: Vectors, counts: Sequence[int]) -> None:
        self._mean = vectors.mean(axis=0)
        self._rows = _unit(vectors - self._mean)
        self._counts = np.asarray(counts)
        self._starts = np.cumsum(self._counts) - self._counts

    def scores(self, asked: Vectors) -> Vectors:
        """One likeness an entry, -1..1: half its nearest way of asking, half the mean of all its ways."""
        cosines = self._rows @ _unit(asked - self._mean)
        nearest = np.maximum.reduceat(cosines, self._starts)
        mean = np.add.reduceat(cosines, self._starts) / self._counts
        return np.asarray((nearest + mean) / 2, dtype=np.float32)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), dtype=np.float32)


def _embed_all(embedder: Embedder, texts: list[str]) -> Vectors:
    return np.concatenate([embedder.embed(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])
