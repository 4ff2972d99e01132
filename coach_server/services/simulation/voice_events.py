"""What the owner of a talk hears of its voice, and what a client must be able to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from coach_server.domain.simulation.talk import Role
from coach_server.errors import ProviderError
from coach_server.providers.llm import Usage
from coach_server.providers.realtime import EndRequested, Expiring, Lost, Resumed


class ClientWire(Protocol):
    """The client's socket. Iteration gives text frames and ends when it is gone; `send` raises
    ConnectionError then."""

    def __aiter__(self) -> AsyncIterator[str]: ...

    async def send(self, frame: str) -> None: ...


class CarryEnd(StrEnum):
    """Why carrying ended: the client went or does not read, the model's line is gone for good."""

    CLIENT_GONE = "client_gone"
    CLIENT_SLOW = "client_slow"
    MODEL_GONE = "model_gone"


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """A JSON object of the client that is not audio, as it came; its `type` may be anything."""

    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """Final words. `start`, `end`: seconds since the session began; of the customer, when they are played."""

    role: Role
    text: str
    item_id: str
    start: float
    end: float

    @property
    def frame(self) -> dict[str, Any]:
        """As the client is told it."""
        return {
            "type": "transcript",
            "speaker": self.role.value,
            "text": self.text,
            "startTime": self.start,
            "endTime": self.end,
        }


@dataclass(frozen=True, slots=True)
class Cut:
    """Words told before were heard up to here only; `text` takes their place, empty when none were heard."""

    item_id: str
    text: str
    end: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """Tokens of a turn or of a transcription."""

    usage: tuple[Usage, ...]


@dataclass(frozen=True, slots=True)
class PlayedOut:
    """The customer's last words have been played to their end, and no answer is under way."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The model could not answer, twice in a row."""

    error: ProviderError


VoiceEvent: TypeAlias = (
    ClientMessage | Said | Cut | Spoken | PlayedOut | Trouble | EndRequested | Lost | Resumed | Expiring
)
