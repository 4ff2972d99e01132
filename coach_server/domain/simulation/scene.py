"""A talk as the rules look at it: what was said, cut into words once, beside what persona and trade know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coach_server.domain.cues import Words, words_of
from coach_server.domain.simulation.persona import Domain, Lines, Product, SimPersona
from coach_server.domain.simulation.spotting import Hit, sentence_at, spot
from coach_server.domain.simulation.talk import Role, SessionEvent, Utterance
from coach_server.domain.wording import clip

QUOTE_CHARS = 200
LOOKED_AT = 1500
"""Characters of an utterance: a minute and a half of speech."""


@dataclass(frozen=True, slots=True)
class TalkSoFar:
    """What a supervisor is shown. `attitudes`: after each evaluation so far, oldest first; `since`: the last
    sequence that was evaluated before."""

    utterances: tuple[Utterance, ...]
    events: tuple[SessionEvent, ...]
    attitude: float
    initial: float
    attitudes: tuple[float, ...] = ()
    exchanges: int = 0
    since: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """An utterance with its words."""

    utterance: Utterance
    words: Words

    @property
    def sequence(self) -> int:
        return self.utterance.sequence

    def quote(self, hit: Hit) -> str:
        return clip(sentence_at(self.words, hit.start), QUOTE_CHARS)


@dataclass(frozen=True, slots=True)
class Found:
    """Where a cue was said."""

    said: Said
    hit: Hit

    @property
    def place(self) -> tuple[int, int]:
        """To compare two of them: which was said first."""
        return self.said.sequence, self.hit.start

    @property
    def quote(self) -> str:
        return self.said.quote(self.hit)


@dataclass(frozen=True, slots=True)
class Scene:
    """`trainee`, `avatar`: their utterances in order."""

    persona: SimPersona
    domain: Domain
    language: str
    trainee: tuple[Said, ...]
    avatar: tuple[Said, ...]
    events: tuple[SessionEvent, ...]
    _seen: dict[tuple[int, int], tuple[Hit, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        utterances: Sequence[Utterance],
        events: Sequence[SessionEvent],
        persona: SimPersona,
        domain: Domain,
        language: str,
    ) -> Scene:
        ordered = sorted(utterances, key=lambda utterance: utterance.sequence)
        said = [Said(utterance, words_of(utterance.text[:LOOKED_AT])) for utterance in ordered]
        trainee = tuple(one for one in said if one.utterance.role is Role.TRAINEE)
        avatar = tuple(one for one in said if one.utterance.role is Role.AVATAR)
        return cls(persona, domain, language, trainee, avatar, tuple(events))

    def hits(self, said: Said, cues: Mapping[str, Lines]) -> tuple[Hit, ...]:
        """Looked for once: several rules ask for the same. `cues`: those of the persona or the trade."""
        key = said.sequence, id(cues)
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = spot(cues, self.language, said.words)
        return found

    def find(self, cues: Mapping[str, Lines], among: Sequence[Said]) -> list[Found]:
        """All places of these cues, in order."""
        return [Found(said, hit) for said in among for hit in self.hits(said, cues)]

    def first(self, cues: Mapping[str, Lines], among: Sequence[Said]) -> Found | None:
        return next(iter(self.find(cues, among)), None)

    def products_named(self) -> list[tuple[Product, Found]]:
        """Every time the trainee names a product, in order."""
        named = [(p, found) for p in self.domain.products for found in self.find(p.cues, self.trainee)]
        return sorted(named, key=lambda pair: pair[1].place)

    def pitches(self) -> list[Found]:
        """Every time the trainee names a product or pitches without a name, in order."""
        found = [found for _, found in self.products_named()] + self.find(self.domain.pitch, self.trainee)
        return sorted(found, key=lambda one: one.place)

    def suits(self, product: Product) -> bool:
        """Whether it is right for this customer."""
        return product.id in self.persona.right_products or self.persona.type in product.fits
