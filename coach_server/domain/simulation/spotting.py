"""Cue patterns of a trade or a persona, found in what was said with their exact place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from coach_server.domain.cues import Pattern, Phrases, Words, compile_pattern, index_patterns
from coach_server.domain.simulation.persona import Lines, pick

_HYPHENS = frozenset("-‐‑־")


@dataclass(frozen=True, slots=True)
class Hit:
    """Characters [start, end) of a text."""

    start: int
    end: int


@lru_cache(maxsize=1024)
def _compiled(lines: Lines) -> tuple[Phrases, frozenset[str]]:
    """Of patterns that were checked when their file was read; there are few files. And what each match begins
    with (see `Words.traces`): a text without any of it, as most are, need not be searched."""
    phrases = index_patterns(Pattern(compile_pattern(line)) for line in lines)
    return phrases, frozenset([*phrases.by_word, *(f"{start}*" for start in phrases.by_start)])


def spot(cues: Mapping[str, Lines], language: str, words: Words) -> tuple[Hit, ...]:
    """Every place where a pattern of the language matches, the longest at each place, none inside another."""
    phrases, beginnings = _compiled(pick(cues, language))
    if beginnings.isdisjoint(words.traces):
        return ()
    found: list[Hit] = []
    i, stop = 0, len(words.forms)
    while i < stop:
        behind = max((end for _, end in phrases.at(words, i, stop)), default=i)
        if behind > i:
            found.append(Hit(words.starts[i], words.ends[behind - 1]))
        i = max(behind, i + 1)
    return tuple(found)


def whole(text: str, hit: Hit) -> bool:
    """Whether the hit is no part of a hyphenated word: `smoke-free` does not say `free`."""
    before, behind = text[max(0, hit.start - 1) : hit.start], text[hit.end : hit.end + 1]
    return before not in _HYPHENS and behind not in _HYPHENS


def sentence_at(words: Words, position: int) -> str:
    """The sentence with the word that begins at that character."""
    for first, behind in words.sentences():
        if words.starts[first] <= position < words.ends[behind - 1]:
            return words.quote(first, behind - 1)
    return ""
