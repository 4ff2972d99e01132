"""Turns of a practised or real sales talk, as a method sees them: who said what, and what it was worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coach_server.domain.transcript import Speaker

MOST_TECHNIQUES = 2


class Quality(StrEnum):
    """How well a technique was used (contract §8), the best first."""

    PERFECT = "perfect"
    GOED = "goed"
    BIJNA = "bijna"
    GEMIST = "gemist"


RANK = {quality: rank for rank, quality in enumerate(reversed(Quality))}


@dataclass(frozen=True, slots=True)
class TechniqueUse:
    """A technique the seller used in a turn. `quote`: the exact words; `confidence` 0..1; `followed`: which
    of its steps were taken; `rationale`: why this quality, a sentence in the session's language."""

    id: str
    quality: Quality
    quote: str
    rationale: str = ""
    confidence: float = 1.0
    followed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance and what the method makes of it. `at`: seconds since the epoch. `phase`: the phase of the
    method it was said in. `uses`: of a seller's turn, two at most, ids of the catalog. `attitude`: of a
    customer's turn, an id such as `H7`. `attitude_quote`: the words it rests on."""

    sequence: int
    speaker: Speaker
    text: str
    at: float
    phase: int
    uses: tuple[TechniqueUse, ...] = ()
    attitude: str | None = None
    attitude_quote: str = ""
    themes: tuple[str, ...] = ()
    is_question: bool = False
    is_yes: bool = False
    """Of a customer's turn: it agrees to what was just asked or summed up."""

    @property
    def is_seller(self) -> bool:
        return self.speaker is Speaker.AGENT


def best(uses: Sequence[TechniqueUse]) -> TechniqueUse | None:
    """The use of the highest quality; of equals the first."""
    return max(uses, key=lambda use: RANK[use.quality], default=None)


def seller_turns(turns: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in turns if turn.is_seller]


def last_attitude(turns: Sequence[Turn]) -> str | None:
    """The attitude of the customer's last turn."""
    return next((t.attitude for t in reversed(turns) if not t.is_seller), None)
