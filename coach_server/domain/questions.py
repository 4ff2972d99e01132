"""Is it a question, and of which kind? By form: question words and inversion first, the mark only as support,
because speech recognition drops and invents it.

Open asks for a story (`how do you do that now`), closed for yes, no or a choice. A closed form that begs for
a story (`could you tell me how …`) counts as open.
"""

from __future__ import annotations

from coach_server.domain.cues import Cues, Finding, Words
from coach_server.domain.detection import Signal

_SURE, _LIKELY = 0.9, 0.7


def questions(cues: Cues, words: Words) -> list[Finding]:
    """At most one open and one closed question, each with the sentence it was asked in."""
    found: dict[str, Finding] = {}
    for first, stop in words.sentences():
        kind, strength = _kind(cues, words, first, stop)
        if kind is not None and kind not in found:
            found[kind] = Finding(kind, words.quote(first, stop - 1), strength)
    return list(found.values())


def _kind(cues: Cues, words: Words, first: int, stop: int) -> tuple[Signal | None, float]:
    marked = words.question[stop - 1]
    closed = False
    for clause in _clauses(words, first, stop):
        start = _skip_fillers(cues, words, clause, stop)
        if start == stop:
            continue
        if cues.listed("open_requests", words, start, stop) > start:
            return Signal.QUESTION_OPEN, _SURE
        opens = cues.listed("open_words", words, start, stop) > start
        if cues.listed("open_inversions", words, start, stop) > start or (marked and opens):
            return Signal.QUESTION_OPEN, _SURE if marked else _LIKELY
        closed = closed or cues.listed("closed_starts", words, start, stop) > start
    if closed:
        return Signal.QUESTION_CLOSED, _SURE if marked else _LIKELY
    if marked:
        return Signal.QUESTION_CLOSED, _LIKELY
    if _runs_into_question(cues, words, first, stop):
        return Signal.QUESTION_OPEN, _LIKELY
    if stop - first > 2 and any(cues.listed("tags", words, i, stop) == stop for i in range(stop - 2, stop)):
        return Signal.QUESTION_CLOSED, _LIKELY
    return None, 0.0


def _clauses(words: Words, first: int, stop: int) -> list[int]:
    return [first, *(i for i in range(first + 1, stop) if words.pause[i] == 1)]


def _skip_fillers(cues: Cues, words: Words, i: int, stop: int) -> int:
    while i < stop and (end := cues.listed("fillers", words, i, stop)) > i:
        i = end
    return i


def _runs_into_question(cues: Cues, words: Words, first: int, stop: int) -> bool:
    """Speech recognition without punctuation: "thanks for that how do you plan it now"."""
    if any(words.pause[i] for i in range(first + 1, stop)):
        return False
    return any(cues.listed("open_requests", words, i, stop) > i for i in range(first + 1, stop))
