"""What the offline customer makes of the trainee's words: what is asked, touched and offered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coach_server.domain.cues import Words, words_of
from coach_server.domain.simulation.persona import Domain, Lines, Objection, SimPersona
from coach_server.domain.simulation.spotting import Hit, spot

STARTS = 3
"""Without a question mark a question is one by how it begins: within so many words."""


@dataclass(frozen=True, slots=True)
class Heard:
    """`topics`: plain questions that the customer can answer, checks first, then the clearest. `asks`: there
    is a question in it. The flags are the trade's cues; `offers`: a product or a pitch; `touched`: ids of
    weak points."""

    words: Words
    topics: tuple[str, ...]
    asks: bool
    greets: bool
    leaves: bool
    chats: bool
    needs: bool
    pushes: bool
    closes: bool
    names_product: bool
    offers: bool
    touched: tuple[str, ...]


def hear(persona: SimPersona, domain: Domain, language: str, text: str) -> Heard:
    words = words_of(text)

    def has(cues: Mapping[str, Lines]) -> bool:
        return bool(spot(cues, language, words))

    named = any(has(product.cues) for product in domain.products)
    needs = any(_asked(words, hit) for hit in spot(domain.needs, language, words))
    return Heard(
        words,
        topics=tuple(_topics(persona, domain, language, words)),
        asks=needs or any(words.question),
        greets=has(domain.greetings),
        leaves=has(domain.goodbyes),
        chats=has(domain.small_talk),
        needs=needs,
        pushes=has(domain.pushy),
        closes=has(domain.closes),
        names_product=named,
        offers=named or has(domain.pitch),
        touched=tuple(point.id for point in persona.weak_points if has(point.cues)),
    )


def meets(objection: Objection, language: str, words: Words) -> bool:
    """Whether these words answer the objection."""
    return bool(spot(objection.answers, language, words))


def _topics(persona: SimPersona, domain: Domain, language: str, words: Words) -> Iterator[str]:
    facts = persona.phrases.facts
    for check in domain.checks:
        # A check is made in any phrasing (contract simulation.md §7), so it is answered in any.
        if check.id in facts and spot(check.cues, language, words):
            yield check.id
    plain = {**domain.topics, **persona.fact_cues}
    found: list[tuple[int, int, str]] = []
    for topic, cues in plain.items():
        asked = [hit for hit in spot(cues, language, words) if _asked(words, hit)]
        if topic in facts and asked:
            longest = max(asked, key=lambda hit: hit.end - hit.start)
            found.append((longest.start - longest.end, longest.start, topic))
    yield from (topic for _, _, topic in sorted(found))


def _asked(words: Words, hit: Hit) -> bool:
    at = next(i for i, start in enumerate(words.starts) if start >= hit.start)
    if words.question[at]:
        return True
    first = next(first for first, behind in words.sentences() if first <= at < behind)
    return at - first < STARTS
