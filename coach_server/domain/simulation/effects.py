"""What may happen to a simulated talk (events), and what it asks to be done (effects).

Events carry no time: the owner passes `now` beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coach_server.domain.simulation.talk import (
    Direction,
    ForbiddenUse,
    Mood,
    Outcome,
    SessionEvent,
    TalkPhase,
    Utterance,
    Verdict,
)

# --- events


class Breach(StrEnum):
    """What ends a talk at once."""

    PRODUCT_BEFORE_CHECKS = "product_before_checks"
    PITCH_AFTER_STOP = "pitch_after_stop"


@dataclass(frozen=True, slots=True)
class Sight:
    """What the rules see in the utterance that was just heard (`compliance.sight`)."""

    forbidden: tuple[ForbiddenUse, ...] = ()
    breach: Breach | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The session begins."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The customer is there."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A final utterance, in the order of the conversation, each once."""

    utterance: Utterance
    sight: Sight = field(default_factory=Sight)


@dataclass(frozen=True, slots=True)
class ClientEvent:
    event: SessionEvent


@dataclass(frozen=True, slots=True)
class VerdictReady:
    """The answer to `AskVerdict` of that number."""

    number: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class VerdictFailed:
    number: int


@dataclass(frozen=True, slots=True)
class EndAsked:
    """The client wants the end (`end_session`)."""


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """The model called `end_conversation`. `reason`: as it said it. `playing_s`: how long what it has said so
    far will still be playing, None when nobody knows."""

    reason: str
    playing_s: float | None = None


@dataclass(frozen=True, slots=True)
class PlaybackDone:
    """All of the customer's audio has been played; not `response.done`, which is the end of making it."""


@dataclass(frozen=True, slots=True)
class Left:
    """The client's line is gone."""


@dataclass(frozen=True, slots=True)
class CameBack:
    """A client is there again."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; wanted at `deadline`."""


TalkEvent = (
    Started
    | Ready
    | Heard
    | ClientEvent
    | VerdictReady
    | VerdictFailed
    | EndAsked
    | ToolEnd
    | PlaybackDone
    | Left
    | CameBack
    | Tick
)

# --- effects


class SteerKind(StrEnum):
    """`STATE`: how the customer feels, taken up at its next answer. `FAREWELL`: say goodbye aloud, then call
    `end_conversation`."""

    STATE = "state"
    FAREWELL = "farewell"


class LogKind(StrEnum):
    """The trail of a session's supervision (`supervisorLogs`)."""

    ASKED = "asked"
    VERDICT = "verdict"
    FAILED = "failed"
    STALE = "stale"
    STEER = "steer"
    TOOL = "tool"
    FORCED = "forced"
    END = "end"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """`time`: seconds since the session began. `data`: plain values."""

    time: float
    kind: LogKind
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AskVerdict:
    """Evaluate the talk. `since`: the last sequence of the evaluation before; `upto`: the last one heard.
    What was said in between is what the attitude may move by."""

    number: int
    since: int
    upto: int


@dataclass(frozen=True, slots=True)
class Steer:
    """Tell the customer's model, as a system item. `attitude`: rounded. `outcome`: of a farewell."""

    kind: SteerKind
    attitude: int
    direction: Direction
    guidance: str = ""
    topics: tuple[str, ...] = ()
    is_on_track: bool = True
    phase: TalkPhase = TalkPhase.SCEPTICAL
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Respond:
    """Make the customer speak now (`response.create`)."""


@dataclass(frozen=True, slots=True)
class TellAttitude:
    """The client's mood meter: `attitude` rounded, 0..10."""

    attitude: int
    direction: Direction


@dataclass(frozen=True, slots=True)
class Keep:
    """Write it as it comes."""

    record: Mood | SessionEvent | LogEntry


@dataclass(frozen=True, slots=True)
class End:
    """The talk is over. `outcome` None: nobody decided (the client stopped, the line dropped). `is_scored`:
    there was enough of it to judge."""

    outcome: Outcome | None
    trigger: str
    is_scored: bool


TalkEffect = AskVerdict | Steer | Respond | TellAttitude | Keep | End
