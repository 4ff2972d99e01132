"""What may happen to a live call (events), and what it asks to be done (effects).

Events carry no time: the owner passes `now` beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from coach_server.domain.detection import Detection
from coach_server.domain.tip import ShownTip, Stage, Tip, TipRequest, Verbosity
from coach_server.domain.transcript import Utterance


class Mode(StrEnum):
    AUTO = "auto"
    EVENT_DRIVEN = "event-driven"


class EndStatus(StrEnum):
    ENDED = "ended"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Heard:
    """A final segment, with what the rules see in it and the facts it told (all that are known by now)."""

    utterance: Utterance
    detection: Detection
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SpeechNoticed:
    """An interim segment: somebody is speaking. Its words are not kept."""


@dataclass(frozen=True, slots=True)
class OptionSelected:
    recommendation_id: str
    option: int


@dataclass(frozen=True, slots=True)
class NextTipWanted:
    """The agent (or the event-driven client) asks for the next tip, with what it captured itself."""

    recommendation_id: str | None = None
    script: str = ""
    agent_words: str = ""
    customer_words: str = ""
    history: tuple[Utterance, ...] = ()


@dataclass(frozen=True, slots=True)
class AlternativeWanted:
    stage: Stage | None = None
    instead_of: str | None = None


@dataclass(frozen=True, slots=True)
class ModeSet:
    mode: Mode | None = None
    verbosity: Verbosity | None = None
    muted: bool | None = None


@dataclass(frozen=True, slots=True)
class ClientCame:
    """A client listens again."""


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class TipReady:
    """A tip for `turn`. `draft` says that a better one for the same turn is still being written."""

    turn: int
    recommendation_id: str
    tip: Tip
    draft: bool = False


@dataclass(frozen=True, slots=True)
class TipFailed:
    turn: int


@dataclass(frozen=True, slots=True)
class EndWanted:
    status: EndStatus = EndStatus.ENDED


@dataclass(frozen=True, slots=True)
class Tick:
    """The machine's deadline has passed."""


CallEvent = (
    Heard
    | SpeechNoticed
    | OptionSelected
    | NextTipWanted
    | AlternativeWanted
    | ModeSet
    | ClientCame
    | ClientLeft
    | TipReady
    | TipFailed
    | EndWanted
    | Tick
)


@dataclass(frozen=True, slots=True)
class AskTip:
    request: TipRequest


@dataclass(frozen=True, slots=True)
class DropTip:
    """The generation of `turn` is no longer wanted: cancel it."""

    turn: int


@dataclass(frozen=True, slots=True)
class ShowTip:
    shown: ShownTip


@dataclass(frozen=True, slots=True)
class UpgradeTip:
    """The tip on screen was written anew by the model; same recommendation id."""

    shown: ShownTip


@dataclass(frozen=True, slots=True)
class KeepSelection:
    recommendation_id: str
    option: int


@dataclass(frozen=True, slots=True)
class TellMode:
    mode: Mode
    verbosity: Verbosity
    muted: bool


@dataclass(frozen=True, slots=True)
class TellTipFailed:
    alternative: bool


@dataclass(frozen=True, slots=True)
class Finish:
    status: EndStatus


CallEffect = AskTip | DropTip | ShowTip | UpgradeTip | KeepSelection | TellMode | TellTipFailed | Finish
