"""Tips: what the coach suggests, and what it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from coach_server.domain.transcript import Utterance

HEADING_WORDS = 2
HEADING_CHARS = 20
SCRIPT_CHARS = 600
CONTEXT_CHARS = 300
RECENT_TIPS = 10


class Stage(StrEnum):
    """Stages of a live call, in their order (live-coach.md §5)."""

    GREETING = "GREETING"
    DISCOVERY = "DISCOVERY"
    VALUE_PROP = "VALUE_PROP"
    OBJECTION_HANDLING = "OBJECTION_HANDLING"
    NEXT_STEPS = "NEXT_STEPS"
    CLOSING = "CLOSING"
    CONVERSION = "CONVERSION"


class Label(StrEnum):
    """The three options every tip carries: one sentence; with the reason; taking up what was said."""

    MINIMAL = "Minimal"
    EXPLANATIVE = "Explanative"
    CONTEXTUAL = "Contextual"


class Source(StrEnum):
    OPENAI = "openai"
    OFFLINE = "offline"


class Trigger(StrEnum):
    """Why a tip was made."""

    WARMUP = "warmup"
    INTERVAL = "interval"
    CAPTURE = "capture"
    NEXT_TIP = "next_tip"
    ALTERNATIVE = "alternative"


class Verbosity(StrEnum):
    """How talkative the coach is: `low` speaks only at objections, buying signals and on request."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class TipOption:
    """`line_id` names the playbook line a script came from, None when it was written freely."""

    label: Label
    script: str
    line_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tip:
    """Always three options, in the order of `Label`. `why` is the quote that caused the tip. `technique_id`,
    `phase` and `attitude` are those of the sales method: of the suggested line, of where the talk stands, and
    of the customer's last words."""

    stage: Stage
    heading: str
    context: str
    options: tuple[TipOption, TipOption, TipOption]
    source: Source
    degraded: bool = False
    technique_id: str | None = None
    why: str | None = None
    phase: int | None = None
    attitude: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn of event-driven coaching: what was suggested, what was really said, how it landed."""

    suggested: str
    agent_words: str
    customer_words: str


@dataclass(frozen=True, slots=True)
class TipRequest:
    """Everything a coach needs for one tip.

    `turn` counts requests of the conversation. `utterances` are the last ones, oldest first.
    `facts` is what the customer already told (`budget` -> "about 20k"); `placeholders` fills `[Agent Name]`
    and its like. `avoid` holds the scripts of the last ten tips, `avoid_lines` their playbook line ids.
    `refused` is true after a clear no. `floor` is the earliest stage still allowed (no way back after
    CONVERSION). `playbook` is the id of the playbook whose lines must be followed word for word, or None for
    free writing.
    """

    turn: int
    trigger: Trigger
    language: str
    stage: Stage
    utterances: tuple[Utterance, ...]
    facts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    placeholders: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    avoid: tuple[str, ...] = ()
    avoid_lines: tuple[str, ...] = ()
    exchange: Exchange | None = None
    refused: bool = False
    floor: Stage | None = None
    playbook: str | None = None
    alternative_to: str | None = None


@dataclass(frozen=True, slots=True)
class ShownTip:
    """A tip as it was shown, and what became of it. Times are seconds since the epoch.

    `heard_sequence` is the last utterance heard when it was shown; `selected_option` counts from 1.
    """

    recommendation_id: str
    tip: Tip
    trigger: Trigger
    shown_at: float
    heard_sequence: int
    latency_ms: int
    selected_option: int | None = None
    selected_at: float | None = None
