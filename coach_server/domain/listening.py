"""What a customer's words are about: a topic to name, a figure to hold on to, a few words to say back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coach_server.domain.facts import plain
from coach_server.domain.phrases import Listening

QUOTE_WORDS = 12
CUT_WORDS = 10
WHY_CHARS = 200
HEARD_CHARS = 1600
_SENTENCES = re.compile(r"[^.!?…\n]+(?:[.!?…]+(?!\s|$)[^.!?…\n]*)*[.!?…]*")
_PUNCTUATION = " .,;:!?…-–—\"“”'’‘"
_CLAUSES = re.compile(r"[,;:–—]\s+")


@dataclass(frozen=True, slots=True)
class Noticed:
    """`quote`: a few of the customer's own words. `topic`: what it is about, as the agent would name it.
    `number`: a figure with its unit, as it was said; `stake`: one in time or money. `why`: the exact
    sentence they come from."""

    quote: str | None = None
    topic: str | None = None
    number: str | None = None
    stake: str | None = None
    why: str | None = None


def notice(
    text: str,
    listening: Listening,
    *,
    anchors: Sequence[str] = (),
    informal: bool = False,
    dull: str | None = None,
) -> Noticed:
    """What stands out in `text`. `anchors` are the words that matter most, in that order (the evidence of a
    finding); `dull` is a topic that only counts when there is no other."""
    raw = [s.strip() for s in _SENTENCES.findall(text[-HEARD_CHARS:])]
    raw = [s for s in raw if re.search(r"\w", s)]
    if not raw:
        return Noticed()
    sentence = _chosen(raw, listening, anchors)
    clean = plain(text[-HEARD_CHARS:])
    return Noticed(
        quote=_quote(plain(sentence), listening, anchors),
        topic=_topic(plain(sentence), clean, listening, informal, dull),
        number=_first(listening.numbers, plain(sentence), clean),
        stake=_first(listening.stakes, plain(sentence), clean),
        why=exact(sentence, anchors),
    )


def is_bare(text: str, listening: Listening) -> bool:
    """True for `yes`, `okay, right` and the like: an answer that names nothing."""
    words = re.findall(r"[\w']+", text.casefold().replace("’", "'"))
    return len(words) <= 6 and all(word in listening.acks for word in words)


def is_informal(agent: Sequence[str], customer: Sequence[str], listening: Listening) -> bool:
    """Whether the two address each other informally; what the agent said last decides, then the customer."""
    for text in (*reversed(agent), *reversed(customer)):
        words = set(re.findall(r"[\w']+", text.casefold()))
        if words & listening.formal_words:
            return False
        if words & listening.informal_words:
            return True
    return False


def exact(sentence: str, anchors: Sequence[str] = ()) -> str:
    """The sentence as it was said, or the part of it round the anchor when it is very long."""
    if len(sentence) <= WHY_CHARS:
        return sentence
    start = max((sentence.find(a) for a in anchors if a), default=0)
    start = max(0, min(start - WHY_CHARS // 4, len(sentence) - WHY_CHARS))
    if start > 0 and " " in sentence[start : start + 40]:
        start = sentence.index(" ", start) + 1
    cut = sentence[start : start + WHY_CHARS]
    return (cut.rsplit(" ", 1)[0] if " " in cut else cut).strip()


def _chosen(raw: list[str], listening: Listening, anchors: Sequence[str]) -> str:
    for anchor in anchors:
        for sentence in reversed(raw):
            if anchor and anchor.strip(_PUNCTUATION).casefold() in sentence.casefold():
                return sentence
    telling = [s for s in raw if _number(s, listening)] or [s for s in raw if _topics(s, listening)]
    if telling:
        return telling[-1]
    return max(raw, key=lambda s: min(len(s.split()), QUOTE_WORDS))


def _quote(sentence: str, listening: Listening, anchors: Sequence[str]) -> str | None:
    words = _without_fillers(sentence.strip(_PUNCTUATION), listening)
    if len(words.split()) > QUOTE_WORDS:
        words = _clause(words, listening, anchors)
    words = words.strip(_PUNCTUATION).replace("“", "").replace("”", "").replace('"', "")
    parts = words.split()
    if len(parts) < 2 or is_bare(words, listening):
        return None
    if len(parts) > QUOTE_WORDS:
        words = " ".join(parts[:CUT_WORDS]).rstrip(_PUNCTUATION) + "…"
    return words if len(words) <= 90 else None


def _without_fillers(words: str, listening: Listening) -> str:
    trimmed = True
    while trimmed:
        trimmed = False
        for filler in listening.fillers:
            if words[: len(filler)].casefold() == filler and words[len(filler) : len(filler) + 1] in (
                " ",
                ",",
            ):
                words = words[len(filler) :].lstrip(_PUNCTUATION)
                trimmed = True
    return words


def _clause(words: str, listening: Listening, anchors: Sequence[str]) -> str:
    clauses = [c for c in _CLAUSES.split(words) if len(c.split()) >= 3] or [words]
    clause = _pick(clauses, listening, anchors)
    if len(clause.split()) > QUOTE_WORDS and listening.joints:
        split = re.split(rf"\s(?=(?:{'|'.join(map(re.escape, sorted(listening.joints)))})\s)", clause)
        split = [c for c in split if len(c.split()) >= 3] or [clause]
        clause = _pick(split, listening, anchors)
    return _without_fillers(clause, listening)


def _pick(clauses: list[str], listening: Listening, anchors: Sequence[str]) -> str:
    for anchor in anchors:
        for clause in clauses:
            if anchor and anchor.casefold() in clause.casefold():
                return clause
    telling = [c for c in clauses if _number(c, listening)] or [c for c in clauses if _topics(c, listening)]
    return (telling or clauses)[-1]


def _number(text: str, listening: Listening) -> str | None:
    return _first(listening.numbers, text)


def _first(figures: re.Pattern[str] | None, *texts: str) -> str | None:
    found = (figures.search(text) for text in texts) if figures is not None else iter(())
    return next((match[0].strip(_PUNCTUATION) for match in found if match), None)


def _topics(text: str, listening: Listening, informal: bool = False) -> list[str]:
    found = [(m.start(), said.text(informal)) for said, cue in listening.topics if (m := cue.search(text))]
    return [said for _, said in sorted(found)]


def _topic(sentence: str, text: str, listening: Listening, informal: bool, dull: str | None) -> str | None:
    near, all_of_them = _topics(sentence, listening, informal), _topics(text, listening, informal)
    fresh = [t for t in (*near, *all_of_them) if t != dull]
    return next(iter(fresh or near or all_of_them), None)
