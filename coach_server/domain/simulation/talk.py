"""What happens in a simulation, as it is kept and told: utterances, events, moods, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Who speaks (seed 001): the AI customer, the human."""

    AVATAR = "AVATAR"
    TRAINEE = "TRAINEE"


class Outcome(StrEnum):
    CONVERTED = "converted"
    REJECTED = "rejected"
    WALKED_AWAY = "walked_away"
    COMPLIANCE_FAIL = "compliance_fail"


class Direction(StrEnum):
    RISING = "rising"
    FALLING = "falling"
    STABLE = "stable"


class TalkPhase(StrEnum):
    """How far the customer has come, by what was said and not by the number of turns (contract §5: SKEPSE,
    ZÁJEM, ROZHODNUTÍ)."""

    SCEPTICAL = "sceptical"
    INTERESTED = "interested"
    DECIDING = "deciding"


class EventType(StrEnum):
    """Types of a session's event file; the first three come from clients."""

    VR_INTERACTION = "VR_INTERACTION"
    TABLET_CHOICE = "TABLET_CHOICE"
    DOB_CHECK = "DOB_CHECK"
    SYSTEM = "SYSTEM"
    SUPERVISOR = "SUPERVISOR"
    ERROR = "ERROR"


CLIENT_EVENTS = frozenset({EventType.VR_INTERACTION, EventType.TABLET_CHOICE, EventType.DOB_CHECK})


@dataclass(frozen=True, slots=True)
class Utterance:
    """`start`, `end`: seconds since the session began. `item_id`: of the realtime model, to order and to keep
    each once; empty where there is none."""

    sequence: int
    role: Role
    text: str
    start: float
    end: float
    item_id: str = ""


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """`time`: seconds since the session began."""

    time: float
    type: EventType
    data: Any


@dataclass(frozen=True, slots=True)
class Mood:
    """The attitude after an evaluation: a fraction 0..10, shown rounded. `time` as above."""

    time: float
    value: float
    direction: Direction


@dataclass(frozen=True, slots=True)
class Compliance:
    """What rules see of it. `checks`: by id of the check whether it was made; `failed`: checks that a client
    event disproved; `late`: made, but after a product was named; `words`: forbidden words with position
    (character) and quote; `pitched_after_stop`: the customer is no user, and the trainee sold on."""

    checks: Mapping[str, bool]
    words: tuple[ForbiddenUse, ...]
    product_before_checks: bool = False
    failed: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    pitched_after_stop: bool = False


@dataclass(frozen=True, slots=True)
class ForbiddenUse:
    """`word`: id of the forbidden word; `position`: of its first character in the utterance; `quote`: the
    sentence it stands in."""

    word: str
    sequence: int
    position: int
    quote: str


@dataclass(frozen=True, slots=True)
class StepState:
    """A step of the sales checklist: done, failed (its moment is over and it was not done), or open. `quote`
    and `sequence`: what shows it."""

    id: str
    state: str
    quote: str = ""
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """An evaluation of the supervisor, cleaned (contract §5). `attitude` 0..10 as a fraction. `source`: rules
    or openai."""

    attitude: float
    direction: Direction
    guidance: str
    topics: tuple[str, ...] = ()
    is_on_track: bool = True
    should_end: bool = False
    end_reason: Outcome | None = None
    steps: tuple[StepState, ...] = ()
    phase: TalkPhase = TalkPhase.SCEPTICAL
    source: str = "rules"
