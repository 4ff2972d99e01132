"""What the coach knows: questions with answers, and ranking them by shared words.

An entry says which techniques, attitudes and phases it is about. The ranking here needs no embeddings: words
are cut to their beginnings, so that forms of a word meet, and weighed by how rare they are (BM25).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

STEM_CHARS = 5
ASKED_WEIGHT = 3
"""How often a word of the question counts, against once for a word of the answer."""
SATURATION, LENGTH_SHARE = 1.2, 0.5
"""BM25's k1 and b."""

TECHNIQUE_BONUS, ATTITUDE_BONUS, PHASE_BONUS = 0.2, 0.15, 0.05

_WORD = re.compile(r"\w+")
_CLOSING_QUESTION = re.compile(r"(?:^|(?<=[.!?”] ))[^.!?]+\?$")


class Kind(StrEnum):
    METHOD = "method"
    ATTITUDE = "attitude"
    OBJECTION = "objection"
    SCENARIO = "scenario"
    MINDSET = "mindset"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing the coach knows. `also`: other ways people ask it. `answer` speaks to the trainee and ends
    with a question; `better` is what the seller can say to the customer. The first technique is the one it
    is most about."""

    id: str
    kind: Kind
    question: str
    answer: str
    techniques: tuple[str, ...]
    attitudes: tuple[str, ...]
    phases: tuple[int, ...]
    also: tuple[str, ...] = ()
    better: str | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """Every way it is asked."""
        return (self.question, *self.also)


@dataclass(frozen=True, slots=True)
class KnowledgeBook:
    """The knowledge in one language. `example` introduces what can be said to a customer; `prompt` and
    `opening` are for an avatar that speaks as the coach."""

    language: str
    version: int
    example: str
    prompt: str
    opening: str
    entries: tuple[Entry, ...]

    def about_technique(self, technique_id: str) -> Entry | None:
        """The entry most about this technique, the first in the file of equal ones; None without any."""
        named = [e for e in self.entries if technique_id in e.techniques]
        return min(named, key=lambda e: _focus(e, Kind.METHOD, e.techniques, technique_id), default=None)

    def about_attitude(self, attitude_id: str) -> Entry | None:
        """The entry most about this customer attitude; None when there is none."""
        named = [e for e in self.entries if attitude_id in e.attitudes]
        return min(named, key=lambda e: _focus(e, Kind.ATTITUDE, e.attitudes, attitude_id), default=None)

    def told(self, entry: Entry) -> str:
        """The answer with the ready sentence worked in, before the question it ends with (seed 000)."""
        if entry.better is None:
            return entry.answer
        closing = _CLOSING_QUESTION.search(entry.answer)
        at = closing.start() if closing else len(entry.answer)
        parts = (entry.answer[:at].rstrip(), f"{self.example} “{entry.better}”", entry.answer[at:])
        return " ".join(filter(None, parts))

    def as_questions(self) -> str:
        """All of it as `Q:` and `A:` lines with a blank line between (seed 000, Knowledge Base Setup)."""
        return "\n\n".join(f"Q: {entry.question}\nA: {self.told(entry)}" for entry in self.entries) + "\n"

    def as_prompt(self) -> str:
        """Who the coach is and how it speaks, then what it knows."""
        return f"{self.prompt}\n\n{self.as_questions()}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the one who asks is busy with."""

    techniques: frozenset[str] = frozenset()
    attitude: str | None = None
    phase: int | None = None

    def bonus(self, entry: Entry) -> float:
        """What the entry gains for being about it."""
        return (
            TECHNIQUE_BONUS * self._names_technique(entry)
            + ATTITUDE_BONUS * self._names_attitude(entry)
            + PHASE_BONUS * (self.phase in entry.phases)
        )

    def fits(self, entry: Entry) -> bool:
        """Advice for another phase does harm (a question is never parked in the decision phase), unless it is
        about the very technique or attitude asked for."""
        asked_for = self._names_technique(entry) or self._names_attitude(entry)
        return self.phase is None or self.phase in entry.phases or asked_for

    def _names_technique(self, entry: Entry) -> bool:
        return not self.techniques.isdisjoint(entry.techniques)

    def _names_attitude(self, entry: Entry) -> bool:
        return self.attitude is not None and self.attitude in entry.attitudes


class WordIndex:
    """Scores documents by the words they share with a text, 0..1: 1 would be every word, often and early."""

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self._counts = [Counter(document) for document in documents]
        lengths = [len(document) for document in documents]
        mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
        self._room = [SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * n / mean) for n in lengths]
        holding = Counter(term for counts in self._counts for term in counts)
        total = len(documents)
        self._rarity = {t: math.log(1 + (total - n + 0.5) / (n + 0.5)) for t, n in holding.items()}
        self._unknown = math.log(1 + (total + 0.5) / 0.5)

    def scores(self, terms: Iterable[str]) -> list[float]:
        """One score a document, in their order."""
        asked = sorted(set(terms))
        most = sum(self._rarity.get(term, self._unknown) for term in asked) * (SATURATION + 1)
        if not most:
            return [0.0] * len(self._counts)
        return [self._sum(asked, i) / most for i in range(len(self._counts))]

    def _sum(self, asked: Collection[str], i: int) -> float:
        counts, room = self._counts[i], self._room[i]
        return sum(
            self._rarity[term] * counts[term] * (SATURATION + 1) / (counts[term] + room)
            for term in asked
            if term in counts
        )


def terms(text: str) -> list[str]:
    """The words of a text without case and accents, each cut to its beginning."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in plain if not unicodedata.combining(c))
    return [word[:STEM_CHARS] for word in _WORD.findall(bare) if len(word) > 1]


def index_of(book: KnowledgeBook) -> WordIndex:
    return WordIndex([ASKED_WEIGHT * terms(" ".join(e.asked)) + terms(book.told(e)) for e in book.entries])


def _focus(entry: Entry, kind: Kind, ids: Sequence[str], wanted: str) -> tuple[bool, int, int]:
    """Orders entries that name an id: of the right kind, named early, beside few others."""
    return entry.kind is not kind, ids.index(wanted), len(ids)
