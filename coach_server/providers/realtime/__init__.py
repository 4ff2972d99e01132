"""A model that hears and speaks: audio in, audio and words out. Vendor files in this folder; their JSON dies
in them.

Who speaks next is decided on our side: a model is asked not to answer or to stop by itself, because it
knows neither what the client has played nor what a nod is ("ja", "hm"). So `respond` and `cancel` are ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from coach_server.domain.simulation.talk import Role
from coach_server.errors import ProviderError
from coach_server.providers.llm import Usage
from coach_server.providers.realtime.audio import BYTES_PER_MS, RATE, Audio

__all__ = ["BYTES_PER_MS", "RATE", "Audio"]


@dataclass(frozen=True, slots=True)
class RealtimeSpec:
    """A talk to be opened. `reasons`: what the tool `end_conversation` may be called with; empty: no tool.
    `vad`: `server` (silence ends a turn) or `semantic` (meaning does). `prior`: what was said before, oldest
    first, when a session is renewed or resumed. `language`: a BCP 47 tag. `session_id` names the talk to
    the vendor and in logs; it is never a person's."""

    instructions: str
    voice: str
    language: str
    session_id: str
    reasons: tuple[str, ...] = ()
    vad: str = "server"
    prior: tuple[tuple[Role, str], ...] = ()
    end_description: str = "End the conversation after you have said goodbye aloud."


@dataclass(slots=True)
class AudioOut:
    """The customer's voice. Not frozen like the others: it is made for every frame, and frozen is slower."""

    audio: Audio
    item_id: str

    @property
    def pcm(self) -> bytes:
        return self.audio.pcm


@dataclass(frozen=True, slots=True)
class UserStarted:
    """Speech was heard. `at_ms`: place in the audio that was sent."""

    item_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class UserStopped:
    """The turn is over and part of the conversation: `respond` answers it."""

    item_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class UserWords:
    """What the trainee said, as soon as it is known and out of order; empty when there were no words. For
    deciding about interruptions; what is kept is `Heard`."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """Final words of either side, each item once, in the order of the conversation."""

    role: Role
    text: str
    item_id: str
    previous_item_id: str | None = None


@dataclass(frozen=True, slots=True)
class Speaking:
    """Words of the customer while they are being made."""

    delta: str
    item_id: str


@dataclass(frozen=True, slots=True)
class EndRequested:
    """The model called `end_conversation`; its farewell is in the same turn and may still be playing."""

    reason: str


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The model has made its turn; playing it takes longer. `usage`: text and audio apart, because they have
    different prices (`<model>` and `<model>/audio`). `failed`: it could not answer."""

    response_id: str
    usage: tuple[Usage, ...] = ()
    failed: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What transcribing the trainee cost, where it is counted in tokens."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Lost:
    """The line is down. `retryable`: it is being opened again and `Resumed` or a final `Lost` follows; else
    the events end here."""

    error: ProviderError
    retryable: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """The line is up again, with what was said so far. What was spoken in between was not heard."""


@dataclass(frozen=True, slots=True)
class Expiring:
    """The vendor's limit for one connection is near; another one takes over in the next pause."""


RealtimeEvent: TypeAlias = (
    AudioOut
    | UserStarted
    | UserStopped
    | UserWords
    | Heard
    | Speaking
    | EndRequested
    | TurnDone
    | Transcribed
    | Lost
    | Resumed
    | Expiring
)


class Connection(Protocol):
    """One talk with a model. Sending never raises for a line that is down: iteration tells, and text and
    steering are brought in again once it is up."""

    @property
    def provider(self) -> str: ...

    async def send_audio(self, audio: Audio) -> None:
        """Audio of the trainee."""
        ...

    async def send_text(self, text: str) -> None:
        """Words of the trainee that were typed. Asks for no answer."""
        ...

    async def steer(self, text: str) -> None:
        """A word of the director to the customer, as a system item; it counts from the next answer on."""
        ...

    async def respond(self) -> None:
        """Ask for an answer now, or as soon as the one under way is over."""
        ...

    async def truncate(self, item_id: str, heard_ms: int) -> None:
        """The customer's words were heard up to here only."""
        ...

    async def cancel(self) -> None:
        """Stop the answer under way; without one, nothing."""
        ...

    def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        """Events in order, one reader at a time; another may go on where one stopped. Ends after a `Lost`
        that is not retryable, or after `close`."""
        ...

    async def close(self) -> None: ...


class RealtimeModel(Protocol):
    @property
    def name(self) -> str: ...

    async def connect(self, spec: RealtimeSpec) -> Connection:
        """A connection that is ready to talk. Raises ProviderError when the vendor refuses or is late."""
        ...
