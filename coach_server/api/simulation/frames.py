"""The frames of /ws/sessions/{id} as models, for the documents and for the test that holds real ones against
them (seed 001). Each is one JSON text message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from coach_server.api.simulation.out import Attitude
from coach_server.api.wire import Inbound
from coach_server.api.wire_out import LEFT_OUT, Count, Outbound
from coach_server.domain.simulation.talk import Direction, Outcome, Role
from coach_server.services.simulation.messages import MAX_TEXT

Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class AudioIn(Inbound):
    """The trainee's voice: 16-bit little-endian mono PCM at 24 kHz, at most 64 kB of it."""

    type: Literal["audio"]
    data: Base64


class TextIn(Inbound):
    """The trainee's words, typed. Works with every customer; the built-in one only reads."""

    type: Literal["text"]
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class ClientEvent(Inbound):
    """Something that happened on the client. `data` of DOB_CHECK holds `correct`: true or false."""

    type: Literal["VR_INTERACTION", "TABLET_CHOICE", "DOB_CHECK"]
    data: dict[str, Any] = Field(default_factory=dict)
    time: float | None = None
    """Seconds since the session began. Left out: now."""


class EventIn(Inbound):
    """Tell of an event."""

    type: Literal["event"]
    data: ClientEvent


class EndIn(Inbound):
    """End the session. It has no outcome then, unless one was decided already."""

    type: Literal["end_session"]


class Ready(Outbound):
    """The customer is there. Sent first, whenever a client connects."""

    type: Literal["ready"]
    sessionId: str
    provider: str
    """Who speaks for the customer: `openai`, or `offline`, the built-in one, which reads and writes."""
    ticket: str = LEFT_OUT
    """Opens this session's socket once more, for a client whose line dropped."""


class AudioOut(Outbound):
    """The customer's voice, in the form of the trainee's."""

    type: Literal["audio"]
    data: Base64


class TranscriptOut(Outbound):
    """What was said, once, in the order of the conversation. Seconds since the session began."""

    type: Literal["transcript"]
    speaker: Role
    text: str
    startTime: float
    endTime: float


class AttitudeOut(Outbound):
    """How the customer feels."""

    type: Literal["attitude"]
    value: Attitude
    direction: Direction


class Interrupted(Outbound):
    """The trainee spoke into the customer's words: stop playing and forget what has not been played."""

    type: Literal["interrupted"]
    heardMs: Count
    """How much of it was heard."""


class SessionEnded(Outbound):
    """The session is over. `score` follows, when there is one."""

    type: Literal["session_ended"]
    outcome: Outcome | None
    """Null when nobody decided: the client stopped, or its line dropped."""
    endTrigger: str | None
    """Who ended it: `supervisor:<outcome>`, `end_conversation:<outcome>`, `client`, `disconnect`, `limit`."""


class ScoreOut(Outbound):
    """The score of the session, as in GET /api/sessions/{id}. The socket closes after it."""

    type: Literal["score"]
    data: dict[str, Any]


class ErrorOut(Outbound):
    """A message was refused and changed nothing, or something is not as it should be; the session goes on."""

    type: Literal["error"]
    code: str
    message: str
    field: str = LEFT_OUT
    retryable: bool = LEFT_OUT
    provider: str = LEFT_OUT
    """Who speaks for the customer from now on."""
    ticket: str = LEFT_OUT
    """The socket closes and can be opened with this again: the ticket that was used is used up."""


FROM_CLIENT: dict[str, type[BaseModel]] = {
    "audio": AudioIn,
    "text": TextIn,
    "event": EventIn,
    "end_session": EndIn,
}
FROM_SERVER: dict[str, type[BaseModel]] = {
    "ready": Ready,
    "audio": AudioOut,
    "transcript": TranscriptOut,
    "attitude": AttitudeOut,
    "interrupted": Interrupted,
    "session_ended": SessionEnded,
    "score": ScoreOut,
    "error": ErrorOut,
}
