"""Turns of a practised or real sales talk, as a method sees them: who said what, and what it was worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coach_server.domain.method.methodology import Methodology
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


def phase_after(method: Methodology, phase: int, turn: Turn, before: Sequence[Turn]) -> int:
    """Where a talk that was in `phase` is after `turn`: the technique of a later phase takes it on, also one
    that comes too early, and a yes to a summary takes it to what may be recommended then. One phase a turn
    for what the seller uses, so that a wrong reading costs little; never back."""
    if not turn.is_seller:
        opened = method.commitment_before if agrees_to_summary(method, turn, before) else None
        return max(phase, opened or phase)
    return phase_reached(method, phase, turn.uses)


def phase_said_in(method: Methodology, before: int, after: int, uses: Sequence[TechniqueUse]) -> int:
    """Where a turn counts that took a talk from one phase to another: where it led, unless something in it
    has its place only where it came from."""
    used = [known for use in uses if (known := method.find(use.id)) is not None]
    stays = any(before in known.phases and after not in known.phases for known in used)
    return before if stays else after


def phase_reached(method: Methodology, phase: int, uses: Sequence[TechniqueUse]) -> int:
    """The phase after `phase` when one of these techniques belongs beyond it, or is the step that an opening
    ends with; else `phase`."""
    following = method.next_phase(phase)
    if following is None:
        return phase
    used = [step for use in uses if (step := method.step(use.id)) is not None]
    leads_on = any(step.phase > phase or step.id == _last_step(method, phase) for step in used)
    return following.id if leads_on else phase


def _last_step(method: Methodology, phase: int) -> str | None:
    """The last of the steps that complete a phase; None where a summary or more must follow."""
    following, guarded = method.next_phase(phase), method.commitment_before
    wanted = method.phase(phase).completes_with
    is_opening = following is not None and guarded is not None and following.id < guarded
    return wanted[-1] if wanted and is_opening else None


def agrees_to_summary(method: Methodology, turn: Turn, before: Sequence[Turn]) -> bool:
    """A yes to a summary: the commitment that opens the recommendation (contract §5)."""
    if not turn.is_yes or not before or not before[-1].is_seller:
        return False
    wanted = [method.find(id) for id in method.commitment]
    used = best([use for use in before[-1].uses if (found := method.find(use.id)) and found in wanted])
    return used is not None and used.quality is not Quality.GEMIST
