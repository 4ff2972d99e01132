"""How a simulated customer hears and speaks in one language: cues for the seller's moves, and lines to say.

Read from `catalog/customers/<language>.toml`. Lines stand in buckets such as `ack` or `positief`; a bucket
may have a version for a tone (`ack.warm`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from coach_server.domain.cues import Pattern, Phrases, Words, compile_pattern, index_patterns, words_of

ASKS = "asks"
# A question begins within this many words of its sentence.
STARTS = 3
MOVES = (
    ASKS,
    "farewell",
    "summary",
    "offer",
    "close",
    "opinion",
    "impact",
    "probe",
    "heard",
    "smalltalk",
    "agenda",
    "intro",
    "greeting",
    "compliment",
    "competitor",
    "priced",
    "rude",
)
TOPICS = (
    "source",
    "motivation",
    "experience",
    "expectations",
    "alternatives",
    "budget",
    "timing",
    "criteria",
    "decider",
    "company",
    "team",
    "process",
    "volume",
    "supplier",
)
# What every language must have; a bucket for a tone is a bonus.
BUCKETS = (
    "ack",
    "positief",
    "negatief",
    "vaag",
    "vaguely",
    "ontwijkend",
    "vraag",
    "twijfel",
    "bezwaar",
    "uitstel",
    "angst",
    "opening",
    "misfit",
    "declines",
    "again",
    "again_and_again",
    "unknown",
    "summary_yes",
    "summary_half",
    "summary_no",
    "offer_good",
    "offer_cool",
    "early",
    "close_yes",
    "close_cool",
    "softened",
    "insists",
    "opinion",
    "pain",
    "impact",
    "smalltalk",
    "agenda",
    "intro",
    "compliment",
    "competitor",
    "priced",
    "heard",
    "rude",
    "lost",
    "impatient",
    "leaves",
    "farewell_good",
    "farewell_cool",
    "after",
    "filler",
    "drill_soft",
    "drill_half",
    "drill_hard",
    "drill_done",
    "drill_over",
)


# How his state is put into words for a model.
MOODS = (
    *(f"{value}_{level}" for value in ("rapport", "tension", "commit") for level in ("low", "mid", "high")),
    "epic_explore",
    "epic_probe",
    "epic_impact",
    "epic_commit",
)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a seller's turn sounds like. `topics`: what it asks about, the clearest first."""

    moves: frozenset[str]
    topics: tuple[str, ...]
    words: int

    @property
    def asks(self) -> bool:
        return ASKS in self.moves


@dataclass(frozen=True, slots=True)
class Hearing:
    """Cue patterns with names, ready to be found."""

    phrases: Phrases
    names: tuple[str, ...]

    def find(self, words: Words, first: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """Name, first word and length of each cue within these words."""
        for i in range(first, stop):
            for pattern, end in self.phrases.at(words, i, stop):
                yield self.names[pattern.cue], i, end - i


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """One language. `lines`: plain text by bucket; `moods`: his state in words, see MOODS."""

    language: str
    moves: Hearing
    topics: Hearing
    lines: Mapping[str, tuple[str, ...]]
    moods: Mapping[str, str]

    def hear(self, text: str, own: Mapping[str, tuple[str, ...]]) -> Heard:
        """`own`: cues of topics that only the scenario has."""
        words = words_of(text)
        hearings = (self.topics, hearing_of(tuple(own.items())))
        moves: set[str] = set()
        topics: list[tuple[int, int, str]] = []
        for first, stop in words.sentences():
            found = list(self.moves.find(words, first, stop))
            here = {name for name, _, _ in found if name != ASKS}
            # Without a question mark only a sentence that begins like a question is one.
            if words.question[first] or any(n == ASKS and i <= first + STARTS for n, i, _ in found):
                here.add(ASKS)
            if ASKS in here:
                here.discard("farewell")
            moves |= here
            if ASKS in here:
                about = (f for hearing in hearings for f in hearing.find(words, first, stop))
                topics += [(-length, at, name) for name, at, length in about]
        ordered = dict.fromkeys(name for _, _, name in sorted(topics))
        return Heard(frozenset(moves), tuple(ordered), len(words.forms))

    def bucket(self, name: str, tone: str) -> tuple[tuple[str, str], ...]:
        """Key and text of each line of a bucket, those of the tone first."""
        return tuple(
            (f"{full}#{number}", line)
            for full in (f"{name}.{tone}", name)
            for number, line in enumerate(self.lines.get(full, ()))
        )


def hearing(cues: Iterable[tuple[str, Iterable[str]]]) -> Hearing:
    """Raises ValueError naming the pattern that is wrong."""
    names: list[str] = []
    patterns: list[Pattern] = []
    for name, entries in cues:
        for entry in entries:
            try:
                patterns.append(Pattern(compile_pattern(entry), len(names)))
            except ValueError as error:
                raise ValueError(f"pattern {entry!r}: {error}") from error
        names.append(name)
    return Hearing(index_patterns(patterns), tuple(names))


@lru_cache(maxsize=256)
def hearing_of(cues: tuple[tuple[str, tuple[str, ...]], ...]) -> Hearing:
    """As `hearing`, for cues that come again with every turn."""
    return hearing(cues)
