"""The offline brain's eyes: what one utterance means for the sale.

Rules alone (`detect_rules`, well under a millisecond) for the hot path; rules and sentence embeddings
(`detect`, in a thread) where there is time for it. The embeddings' head decides, the rules give the words to
quote, and both keep silent when they are not sure. Without an embedder the rules work alone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coach_server import paths
from coach_server.domain.cuefile import parse_cues
from coach_server.domain.cues import Cues, Finding, words_of
from coach_server.domain.detection import Detection, Signal, TechniqueHit
from coach_server.domain.language import base, guess_language
from coach_server.domain.reading import detection_of, findings_of, is_bare
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError, ProviderError
from coach_server.providers.embedder import Embedder
from coach_server.services.head import CUSTOMER_ONLY, LABELS, OBJECTIONS, SIGNALS, STAGES, Head, signs_of

CACHED_TEXTS = 2048
EMBEDDED_CHARS = 1000
BATCH = 32
DEFAULT_LANGUAGE = "en"
QUESTIONS = (str(Signal.QUESTION_OPEN), str(Signal.QUESTION_CLOSED))

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One utterance to look at. `context`: what was said before it, oldest first. `language` may be empty."""

    text: str
    speaker: Speaker
    language: str = ""
    context: tuple[str, ...] = ()
    phase: str | None = None


class MethodReader(Protocol):
    """The second head: a sales method's techniques and attitude, from the same vector and findings."""

    def read(
        self, sentence: Sentence, findings: Sequence[Finding], vector: Vector | None
    ) -> tuple[tuple[TechniqueHit, ...], str | None]: ...


class Detector:
    """Thread-safe for one event loop. `head` and `embedder` go together; either missing means rules alone."""

    def __init__(
        self,
        cues: Mapping[str, Cues],
        head: Head | None = None,
        embedder: Embedder | None = None,
        *,
        method: MethodReader | None = None,
    ) -> None:
        if DEFAULT_LANGUAGE not in cues:
            raise ConfigError(f"catalog/cues: {DEFAULT_LANGUAGE}.toml is missing")
        self._cues = dict(cues)
        self._head = head
        self._embedder = embedder if head is not None else None
        self._method = method
        self._vectors: OrderedDict[str, Vector] = OrderedDict()

    @classmethod
    def load(cls, embedder: Embedder | None = None, *, method: MethodReader | None = None) -> Detector:
        """From the catalog. Raises ConfigError naming file and line."""
        return cls(load_cues(), load_head(), embedder, method=method)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self._cues)

    def detect_rules(
        self, text: str, *, speaker: Speaker, language: str, context: tuple[str, ...] = ()
    ) -> Detection:
        """By rules alone: quick, never blocks."""
        sentence = Sentence(text, speaker, language, context)
        return self._finish(sentence, self._findings(sentence), None)

    async def detect(
        self, text: str, *, speaker: Speaker, language: str, context: tuple[str, ...] = ()
    ) -> Detection:
        """Rules and embeddings. Falls back to the rules when the embedder fails."""
        sentence = Sentence(text, speaker, language, context)
        findings = self._findings(sentence)
        try:
            vector = await self._vector(sentence)
        except ProviderError:
            vector = None
        return self._finish(sentence, findings, vector)

    def detect_many(self, sentences: Sequence[Sentence]) -> list[Detection]:
        """Blocking; for the command line and for training. Raises ProviderError when the embedder fails."""
        result: list[Detection] = []
        for start in range(0, len(sentences), BATCH):
            batch = sentences[start : start + BATCH]
            vectors = self._embed_all([_key(s.text) for s in batch])
            result += [self._finish(s, self._findings(s), vectors.get(_key(s.text))) for s in batch]
        return result

    def also_read(self, method: MethodReader) -> None:
        """Sets the second head, which may itself need this detector's cues and embeddings."""
        self._method = method

    @property
    def embeds(self) -> bool:
        return self._embedder is not None

    def cues_for(self, text: str, language: str) -> Cues:
        """The cues of that language; of the one the text seems to be in when it is not known."""
        return self._cues_for(Sentence(text, Speaker.CUSTOMER, language))

    async def vector(self, text: str) -> Vector | None:
        """The text's embedding, remembered; None without an embedder. Raises ProviderError."""
        return await self._remembered(_key(text))

    def vectors(self, texts: Sequence[str]) -> list[Vector | None]:
        """Blocking, for many texts; None for each without an embedder. Raises ProviderError."""
        keys = [_key(text) for text in texts]
        found = self._embed_all(keys)
        return [found.get(key) for key in keys]

    def forget(self) -> None:
        """Drop what is remembered of texts."""
        self._vectors.clear()

    async def _vector(self, sentence: Sentence) -> Vector | None:
        return None if self._is_bare(sentence) else await self._remembered(_key(sentence.text))

    async def _remembered(self, key: str) -> Vector | None:
        if self._embedder is None or not key:
            return None
        if key in self._vectors:
            self._vectors.move_to_end(key)
            return self._vectors[key]
        vector: Vector = (await asyncio.to_thread(self._embedder.embed, [key]))[0]
        self._vectors[key] = vector
        if len(self._vectors) > CACHED_TEXTS:
            self._vectors.popitem(last=False)
        return vector

    def _embed_all(self, texts: Sequence[str]) -> dict[str, Vector]:
        different = [text for text in dict.fromkeys(texts) if text]
        if self._embedder is None or not different:
            return {}
        return dict(zip(different, self._embedder.embed(different), strict=True))

    def _cues_for(self, sentence: Sentence) -> Cues:
        known = self._cues.get(base(sentence.language))
        return known or self._cues.get(guess_language(sentence.text)) or self._cues[DEFAULT_LANGUAGE]

    def _findings(self, sentence: Sentence) -> list[Finding]:
        return findings_of(self._cues_for(sentence), sentence.text, sentence.speaker, sentence.context)

    def _finish(self, sentence: Sentence, findings: list[Finding], vector: Vector | None) -> Detection:
        if vector is not None and self._head is not None and not self._is_bare(sentence):
            decided = _decide(self._head, sentence, findings, vector)
        else:
            decided = findings
        detection = detection_of(decided)
        if self._method is None:
            return detection
        techniques, attitude = self._method.read(sentence, decided, vector)
        return replace(detection, techniques=techniques, attitude=attitude)

    def _is_bare(self, sentence: Sentence) -> bool:
        return is_bare(self._cues_for(sentence), words_of(sentence.text)) is not None


def load_cues() -> dict[str, Cues]:
    """The cue words of the catalog by language. Raises ConfigError naming file and line."""
    files = sorted((paths.catalog() / "cues").glob("*.toml"))
    cues = [parse_cues(file.read_text("utf-8"), file.name) for file in files]
    return {one.language: one for one in cues}


def load_head() -> Head | None:
    """The trained head of the catalog, if there is one. Raises ConfigError."""
    file = paths.catalog() / "detector" / "head.npz"
    return Head.load(file) if file.exists() else None


def _key(text: str) -> str:
    return text.strip()[:EMBEDDED_CHARS]


def _decide(head: Head, sentence: Sentence, findings: list[Finding], vector: Vector) -> list[Finding]:
    """The head's verdict, each finding with the rules' quote where they have one, else the whole sentence."""
    row = head.sureness(vector[None, :], [findings], signs_of([sentence.speaker]))[0]
    chances = dict(zip(LABELS, map(float, row), strict=True))
    quotes = {f.name: f.quote for f in findings}
    whole = sentence.text.strip()
    asked = any(name in quotes for name in QUESTIONS)
    decided: list[Finding] = []
    stage = max(STAGES, key=lambda name: chances[name])
    if chances[stage] >= head.thresholds[stage]:
        decided.append(Finding(stage, quotes.get(stage, whole), chances[stage]))
    for name in (*OBJECTIONS, *SIGNALS):
        if sentence.speaker is Speaker.AGENT and name in CUSTOMER_ONLY:
            continue
        if name in QUESTIONS and asked and name not in quotes:
            continue  # the form told which kind it is; the embedding must not add the other one
        if chances[name] >= head.thresholds[name]:
            decided.append(Finding(name, quotes.get(name, whole), chances[name]))
    return decided
