"""What an utterance means by a sales method: cue words of the method's file, a trained head where the method
has one, else likeness to the file's own examples.

`read_rules` is cues alone, for the hot path; `read` embeds in a thread, remembers, and falls back to the cues
when the embedder fails. Everything that is found goes through `domain/method/judging.py`.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product, repeat, zip_longest

import numpy as np

from coach_server import paths
from coach_server.domain.cues import Cues, Finding, words_of
from coach_server.domain.detection import TechniqueHit
from coach_server.domain.method import judging
from coach_server.domain.method.cues import MethodCues, compile_method
from coach_server.domain.method.judging import JudgingWords, Reading, Spoken
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Turn, last_attitude, phase_after
from coach_server.domain.practice.roleplay import LOOK_BACK
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.errors import ConfigError, ProviderError
from coach_server.services.detector import BATCH, Detector, Sentence, Vector
from coach_server.services.method.head import ExampleHead, MethodHead, Seen, load_heads

# About what the labelled sentences are long at most.
PIECE_WORDS = 40


@dataclass(frozen=True, slots=True)
class Asked:
    """One utterance to read, for `read_many`. `phase` None: nobody knows."""

    text: str
    speaker: Speaker
    language: str
    phase: int | None
    before: Sequence[Turn] = field(default_factory=tuple)


# By method (`_exact`) and language.
CompiledCues = dict[tuple[str, str], MethodCues]


def compile_all(methods: Iterable[Methodology], speech: Iterable[Cues]) -> CompiledCues:
    """Every method in every language: some 50 ms each, which a server spends before it listens."""
    return {
        (_exact(method), cues.language): compile_method(method, cues)
        for method, cues in product(methods, speech)
    }


class MethodEyes:
    """Reads by any method. `heads`: by method id; a method without one is read by its examples. `compiled`:
    cues that are ready; others are compiled at their first use."""

    def __init__(
        self,
        detector: Detector,
        heads: Mapping[str, MethodHead] | None = None,
        sentences: JudgingWords | None = None,
        *,
        compiled: CompiledCues | None = None,
    ) -> None:
        self._detector = detector
        self._heads = dict(load_heads() if heads is None else heads)
        self._sentences = sentences or judging_words()
        self._compiled = dict(compiled or {})
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
        return self._read(method, Asked(text, speaker, language, phase, before), [], [text])

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
        one = Asked(text, speaker, language, phase, before)
        try:
            if self._detector.embeds and not self._has_head(method):
                await asyncio.to_thread(self._learn_examples, method)
            vectors = [await self._detector.vector(piece) for piece in pieces_of(text)]
        except ProviderError:
            vectors = []
        return self._read(method, one, vectors)

    def read_many(self, method: Methodology, asked: Sequence[Asked]) -> list[Reading]:
        """Blocking; for evaluation and for the analysis of a whole call. By cues when the embedder fails."""
        readings: list[Reading] = []
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            readings += map(self._read, repeat(method), batch, self._vectors(method, batch))
        return readings

    def read_talk(
        self, method: Methodology, said: Sequence[Utterance], language: str, phase: int
    ) -> list[Turn]:
        """Blocking: a whole talk that began in `phase`; where it goes from there follows from what is said,
        by the rule of practice (`turns.phase_after`)."""
        asked = [Asked(one.text, one.speaker, language, phase) for one in said]
        vectors: list[list[Vector | None]] = []
        for start in range(0, len(asked), BATCH):
            vectors += self._vectors(method, asked[start : start + BATCH])
        turns: list[Turn] = []
        for one, found in zip(said, vectors, strict=True):
            before = tuple(turns[-LOOK_BACK:])
            reading = self._read(method, Asked(one.text, one.speaker, language, phase, before), found)
            turns.append(judging.turn(reading, one, phase))
            phase = phase_after(method, phase, turns[-1], before)
        return turns

    def read_sentence(self, method: Methodology, sentence: Sentence, vector: Vector | None) -> Reading:
        """A detector's sentence, embedded by it. Without a phase, the one that what is found belongs to."""
        phase = int(sentence.phase) if sentence.phase and sentence.phase.isdigit() else None
        one = Asked(sentence.text, sentence.speaker, sentence.language, phase)
        return self._read(method, one, [vector], [sentence.text])

    def cues(self, method: Methodology, text: str, language: str) -> MethodCues:
        """The method's cues in that language, compiled once."""
        speech = self._detector.cues_for(text, language)
        key = (_exact(method), speech.language)
        if key not in self._compiled:
            self._compiled[key] = compile_method(method, speech)
        return self._compiled[key]

    def _vectors(self, method: Methodology, batch: Sequence[Asked]) -> list[list[Vector | None]]:
        try:
            if self._detector.embeds and not self._has_head(method):
                self._learn_examples(method)
            found = iter(self._detector.vectors([p for one in batch for p in pieces_of(one.text)]))
        except ProviderError:
            return [[] for _ in batch]
        return [[next(found) for _ in pieces_of(one.text)] for one in batch]

    def _has_head(self, method: Methodology) -> bool:
        return method.id in self._heads or _exact(method) in self._examples

    def _learn_examples(self, method: Methodology) -> None:
        """Embeds the file's examples, once. Raises ProviderError."""
        told = [(t.id, text) for t in method.techniques for texts in t.examples.values() for text in texts]
        vectors = [v for v in self._detector.vectors([text for _, text in told]) if v is not None]
        if told and len(vectors) == len(told):
            self._examples[_exact(method)] = ExampleHead([name for name, _ in told], np.array(vectors))

    def _read(
        self,
        method: Methodology,
        one: Asked,
        vectors: Sequence[Vector | None],
        pieces: Sequence[str] | None = None,
    ) -> Reading:
        cues = self.cues(method, one.text, one.language)
        words = words_of(one.text)
        if not words.forms:
            return Reading()
        findings: list[Finding] = []
        for piece, vector in zip_longest(pieces or pieces_of(one.text), vectors):
            findings += self._found(method, cues, one, piece, vector)
        phase = _phase_of(method, findings) if one.phase is None else one.phase
        spoken = Spoken(words, one.speaker, one.language or cues.speech.language, phase, one.before)
        return judging.read(method, cues, spoken, findings, self._sentences)

    def _found(
        self, method: Methodology, cues: MethodCues, one: Asked, piece: str, vector: Vector | None
    ) -> list[Finding]:
        cued = cues.find(words_of(piece), one.speaker)
        head = self._heads.get(method.id) or self._examples.get(_exact(method))
        if vector is None or head is None:
            return cued
        return head.decide(
            method, Seen(piece, one.speaker, one.phase, last_attitude(one.before)), cued, vector
        )


def pieces_of(text: str) -> list[str]:
    """A long turn in pieces of whole sentences: what is said in the middle would be lost in the mean."""
    words = words_of(text)
    if len(words.forms) <= PIECE_WORDS:
        return [text]
    cuts = [0]
    for first, behind in words.sentences():
        if behind - cuts[-1] > PIECE_WORDS and first > cuts[-1]:
            cuts.append(first)
    edges = [*(words.starts[cut] for cut in cuts[1:]), len(text)]
    return [text[begin:end].strip() for begin, end in zip([0, *edges], edges, strict=False)]


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
