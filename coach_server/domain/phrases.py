"""What the offline coach can say, as data: a table of phrases per move of the agent, a file per language."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from coach_server.domain.facts import VALUE_CHARS, plain, shorten
from coach_server.domain.tip import Stage

SLOT = re.compile(r"\{(\w+)\}")
JUST_SAID = ("stake", "number", "topic", "quote")
TOLD = (
    "pain",
    "supplier",
    "team_size",
    "timeline",
    "preferred_time",
    "budget",
    "current_price",
    "decision_maker",
    "company",
    "location",
)
SLOTS = frozenset({*JUST_SAID, *TOLD, "name", "objection", "reaction"})
_SENTENCE_END = re.compile(r"[.!?…]+[\"”’']?(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Phrase:
    """`formal` and `informal` differ only where a language has two ways to address somebody. `when`: fits
    only what the customer just said; `unless`: does not fit it. `asks`: the facts it asks for."""

    formal: str
    informal: str
    slots: frozenset[str] = frozenset()
    when: re.Pattern[str] | None = None
    unless: re.Pattern[str] | None = None
    asks: frozenset[str] = frozenset()

    def text(self, informal: bool) -> str:
        return self.informal if informal else self.formal


@dataclass(frozen=True, slots=True)
class Move:
    """One thing an agent can do next. `reasons` may follow any `minimal` phrase; `contexts` are for the
    agent's eyes."""

    name: str
    stage: Stage
    headings: tuple[str, ...]
    contexts: tuple[Phrase, ...]
    minimal: tuple[Phrase, ...]
    explanative: tuple[Phrase, ...]
    contextual: tuple[Phrase, ...]
    reasons: tuple[Phrase, ...]


@dataclass(frozen=True, slots=True)
class Listening:
    """How to hear what a customer's words are about. `topics`: how a topic is said back, and its cues.
    `asked`: what an agent says who asks for a fact; the answer counts even where no rule can read it."""

    fillers: tuple[str, ...] = ()
    acks: frozenset[str] = frozenset()
    joints: frozenset[str] = frozenset()
    gatekeeper: tuple[str, ...] = ()
    send_me: tuple[str, ...] = ()
    farewell: tuple[str, ...] = ()
    stakes: re.Pattern[str] | None = None
    numbers: re.Pattern[str] | None = None
    topics: tuple[tuple[Phrase, re.Pattern[str]], ...] = ()
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    formal_words: frozenset[str] = frozenset()
    informal_words: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Phrases:
    language: str
    moves: Mapping[str, Move]
    leads: tuple[str, ...]
    reflections: Mapping[str, tuple[Phrase, ...]]
    exchange: Mapping[str, Phrase]
    objection_names: Mapping[str, Phrase]
    listening: Listening = field(default_factory=Listening)


def render(text: str, values: Mapping[str, str]) -> str:
    """`text` with its slots filled; the first letter is made a capital, because a slot may stand first."""
    said = SLOT.sub(lambda m: values[m[1]], text)
    said = re.sub(r"\s+([,.;:?!])", r"\1", said)
    return said[:1].upper() + said[1:]


def slot_value(text: str) -> str:
    return shorten(plain(text), VALUE_CHARS)


def sentences(text: str) -> int:
    """How many sentences a text has; one that does not end counts as well."""
    ends = list(_SENTENCE_END.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(rest.strip())


def normal(text: str) -> str:
    """For comparing: lower case words only."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def shuffled(key: str, salt: str) -> int:
    """A stable number that orders variants differently for each salt; no randomness is needed for variety."""
    return zlib.crc32(f"{salt}|{key}".encode("utf-8", "replace"))
