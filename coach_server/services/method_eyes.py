"""What an utterance means by a sales method: cue words of the method's file, a trained head where the method
has one, else likeness to the file's own examples.

`read_rules` is cues alone, for the hot path; `read` embeds in a thread, remembers, and falls back to the cues
when the embedder fails. Everything that is found goes through `domain/judging.py`.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from coach_server import paths
from coach_server.domain import judging
from coach_server.domain.cues import Finding, words_of
from coach_server.domain.detection import TechniqueHit
from coach_server.domain.judging import JudgingWords, Reading, Spoken
from coach_server.domain.method_cues import MethodCues, compile_method
from coach_server.domain.methodology import Methodology
from coach_server.domain.roleplay import LOOK_BACK
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.domain.turns import Turn, last_attitude
from coach_server.errors import ConfigError, ProviderError
from coach_server.services.detector import BATCH, Detector, Sentence, Vector
from coach_server.services.method_head import ExampleHead, MethodHead, Seen, load_heads


@dataclass(frozen=True, slots=True)
class Asked:
    """One utterance to read, for `read_many`. `phase` None: nobody knows."""

    text: str
    speaker: Speaker
    language: str
    phase: int | None
    before: Sequence[Turn] = field(default_factory=tuple)


class MethodEyes:
    """Reads by any method. `heads`: by method id; a method without one is read by its examples."""

    def __init__(
        self,
        detector: Detector,
        heads: Mapping[str, MethodHead] | None = None,
        sentences: JudgingWords | None = None,
    ) -> None:
        self._detector = detector
        self._heads = dict(load_heads() if heads is None else heads)
        self._sentences = sentences or judging_words()
        self._compiled: dict[tuple[str, str], MethodCues] = {}
        self._examples: dict[str, ExampleHead] = {}

    def read_rules(
        self,
        method: Methodology,
        text: str,
        *,
        speaker: Speaker,
        language: str,
        phase: int,
        before: Sequence[Turn] = (),
    ) -> Reading:
        """By cue words alone: quick, never blocks."""
        return self._read(method, Asked(text, speaker, language, phase, before), None)

    async def read(
        self,
        method: Methodology,
        text: str,
        *,
        speaker: Speaker,
        language: str,
        phase: int,
        before: Sequence[Turn] = (),
    ) -> Reading:
        """By cues and embeddings; by cues when there is no embedder or it fails."""
        try:
            vector = await self._detector.vector(text)
            if vector is not None and not self._has_head(method):
                await asyncio.to_thread(self._learn_examples, method)
        except ProviderError:
            vector = None
        return self._read(method, Asked(text, speaker, language, phase, before), vector)

    def read_many(self, method: Methodology, asked: Sequence[Asked]) -> list[Reading]:
        """Blocking; for evaluation and for the analysis of a whole call."""
        readings: list[Reading] = []
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            vectors = self._vectors(method, [one.text for one in batch])
            readings += [self._read(method, one, v) for one, v in zip(batch, vectors, strict=True)]
        return readings

    def read_talk(
        self, method: Methodology, said: Sequence[Utterance], language: str, phase: int
    ) -> list[Turn]:
        """Blocking: a whole talk that began in `phase`. Where it goes from there follows from what the seller
        uses, as in practice: a technique that belongs to one phase tells where the talk is."""
        vectors: list[Vector | None] = []
        for start in range(0, len(said), BATCH):
            vectors += self._vectors(method, [one.text for one in said[start : start + BATCH]])
        turns: list[Turn] = []
        for one, vector in zip(said, vectors, strict=True):
            before = tuple(turns[-LOOK_BACK:])
            reading = self._read(method, Asked(one.text, one.speaker, language, phase, before), vector)
            for use in reading.uses:
                technique = method.find(use.id)
                if technique is not None and technique.phases == (technique.phase,):
                    phase = technique.phase
            turns.append(judging.turn(reading, one, phase))
        return turns

    def read_sentence(self, method: Methodology, sentence: Sentence, vector: Vector | None) -> Reading:
        """A detector's sentence, embedded by it. Without a phase, the one that what is found belongs to."""
        phase = int(sentence.phase) if sentence.phase and sentence.phase.isdigit() else None
        asked = Asked(sentence.text, sentence.speaker, sentence.language, phase)
        return self._read(method, asked, vector)

    def cues(self, method: Methodology, text: str, language: str) -> MethodCues:
        """The method's cues in that language, compiled once."""
        speech = self._detector.cues_for(text, language)
        key = (_exact(method), speech.language)
        if key not in self._compiled:
            self._compiled[key] = compile_method(method, speech)
        return self._compiled[key]

    def _vectors(self, method: Methodology, texts: Sequence[str]) -> list[Vector | None]:
        try:
            if not self._has_head(method):
                self._learn_examples(method)
            return self._detector.vectors(texts)
        except ProviderError:
            return [None] * len(texts)

    def _has_head(self, method: Methodology) -> bool:
        return method.id in self._heads or _exact(method) in self._examples

    def _learn_examples(self, method: Methodology) -> None:
        """Embeds the file's examples, once. Raises ProviderError."""
        told = [(t.id, text) for t in method.techniques for texts in t.examples.values() for text in texts]
        vectors = [v for v in self._detector.vectors([text for _, text in told]) if v is not None]
        if told and len(vectors) == len(told):
            self._examples[_exact(method)] = ExampleHead([name for name, _ in told], np.array(vectors))

    def _read(self, method: Methodology, one: Asked, vector: Vector | None) -> Reading:
        cues = self.cues(method, one.text, one.language)
        words = words_of(one.text)
        if not words.forms:
            return Reading()
        findings = cues.find(words, one.speaker)
        head = self._heads.get(method.id) or self._examples.get(_exact(method))
        if vector is not None and head is not None:
            seen = Seen(one.text, one.speaker, one.phase, last_attitude(one.before))
            findings = head.decide(method, seen, findings, vector)
        phase = _phase_of(method, findings) if one.phase is None else one.phase
        spoken = Spoken(words, one.speaker, one.language or cues.speech.language, phase, one.before)
        return judging.read(method, cues, spoken, findings, self._sentences)


def _exact(method: Methodology) -> str:
    return f"{method.stamp} {method.source_hash}"


def _phase_of(method: Methodology, findings: Sequence[Finding]) -> int:
    """Where it was said when nobody told: the phase of the surest technique; for a customer the last one, in
    which every attitude can be."""
    surest = max(findings, key=lambda found: found.strength, default=None)
    technique = method.find(surest.name) if surest else None
    return technique.phase if technique else method.flow[-1].id


class MethodReader:
    """The eyes as the detector's second head: `Detector(..., method=MethodReader(eyes, method))`."""

    def __init__(self, eyes: MethodEyes, method: Methodology) -> None:
        self._eyes = eyes
        self._method = method

    def read(
        self, sentence: Sentence, findings: Sequence[Finding], vector: Vector | None
    ) -> tuple[tuple[TechniqueHit, ...], str | None]:
        reading = self._eyes.read_sentence(self._method, sentence, vector)
        return tuple(TechniqueHit(use.id, use.confidence) for use in reading.uses), reading.attitude


@cache
def judging_words() -> JudgingWords:
    """From the catalog. Raises ConfigError naming the file."""
    file = paths.catalog() / "detector" / "judging.toml"
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError(f"{file.name}: {fault}") from fault
    missing = [reason for reason in judging.Reason if not {"nl", "en"} <= set(table.get(reason, {}))]
    if missing:
        raise ConfigError(f"{file.name}: {', '.join(missing)}: a sentence in nl and en is needed")
    return JudgingWords(table)
