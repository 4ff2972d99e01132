"""Payloads that come in, checked. The one place that knows the wire's names (live-coach.md §3-§5).

A wrong payload becomes one `Invalid` that names the field. Unknown fields are ignored, so newer clients work.
The docstrings here are what docs/events.md and the two contract documents say about each event and field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from coach_server.domain.events import Mode
from coach_server.domain.tip import Stage, Verbosity
from coach_server.errors import Invalid

MAX_TEXT = 8000
MAX_METADATA_BYTES = 16_000
MAX_TIME_MS = 32_503_680_000_000  # the year 3000: anything later is not a time
_NO_CONTROL = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u2028\u2029]*$"  # for the documents
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u2028\u2029\ud800-\udfff]")


def clean(text: str) -> str:
    """Without control characters and lone surrogates, which break encoders further on (trust.md §3.9)."""
    return _CONTROL.sub("", text) if _CONTROL.search(text) else text


def _cleaned(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


def cleaned_json(value: object) -> object:
    """JSON with every text cleaned, names too. Binary attachments are no JSON."""
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(str(name)): cleaned_json(item) for name, item in value.items()}
        case list():
            return [cleaned_json(item) for item in value]
        case None | bool() | int() | float():
            return value
    raise ValueError("must be JSON")


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(orjson.dumps(value))
    except TypeError:
        raise ValueError("must be JSON") from None
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"must not be larger than {MAX_METADATA_BYTES} bytes")
    return value


def _plain(value: str) -> str:
    """An id is compared and stored as it is, so it is refused and not cleaned."""
    if _CONTROL.search(value):
        raise ValueError("must not hold control characters")
    return value


# Strict: a binary attachment in the place of a text would otherwise be decoded, uncleaned.
Text = Annotated[str, Field(strict=True), BeforeValidator(_cleaned)]
# Anything a client wants to find again, cleaned as texts are.
Metadata = Annotated[dict[str, Any], BeforeValidator(cleaned_json), AfterValidator(_bounded)]
Plain = Annotated[str, Field(strict=True, json_schema_extra={"pattern": _NO_CONTROL}), AfterValidator(_plain)]
Id = Annotated[Plain, Field(min_length=1, max_length=128)]
StreamId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
Millis = Annotated[float, Field(ge=0, le=MAX_TIME_MS, allow_inf_nan=False)]
Language = Literal["en", "nl", "he"]


class Inbound(BaseModel):
    model_config = ConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, data: object) -> object:
        if isinstance(data, Mapping) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data


class Consent(Inbound):
    """Whether the people on the call agreed to its transcript being kept."""

    given: bool
    by: Text | None = Field(None, max_length=128)
    """Who gave it."""
    at: Millis | None = None
    """When it was given."""
    version: Text | None = Field(None, max_length=64)
    """Which wording of the question was answered."""


class StartConversation(Inbound):
    """Start a call. Everything after `metadata` is an addition that older clients leave out."""

    agentId: Annotated[Text, Field(min_length=1, max_length=128)]
    """Whose call it is, in the client's own words."""
    metadata: Metadata | None = None
    """Anything, up to 16 kB. `agentName`, `customerName`, `location` and `company` fill the placeholders of
    suggested lines."""
    mode: Mode | None = None
    """`auto`: tips by the clock. `event-driven`: tips follow what was selected and said. Left out: auto."""
    language: Language | None = None
    """Language of the call. Left out: the server's default."""
    playbook: Id | None = None
    """Follow this playbook word for word. Left out: tips are written freely."""
    warmupMs: int | None = Field(None, ge=0, le=3_600_000)
    """Time before the first tip. Left out: the server's setting."""
    intervalMs: int | None = Field(None, ge=100, le=3_600_000)
    """Time between tips in auto mode. Left out: the server's setting."""
    storeTranscript: bool = True
    """False: coach from memory and keep nothing that is said."""
    consent: Consent | None = None
    """An object, or true or false for its `given`."""
    verbosity: Verbosity = Verbosity.NORMAL
    """`low` speaks at objections, buying signals and on request only; `high` twice as often."""
    tipStreaming: bool = False
    """True: the built-in coach's tip at once, then TIP_CHUNK and TIP_UPDATED while the model writes."""
    idempotencyKey: Id | None = None
    """Sent again, it answers with the call it started the first time."""

    @field_validator("consent", mode="before")
    @classmethod
    def _plain_consent(cls, value: object) -> object:
        return {"given": value} if isinstance(value, bool) else value


class Transcript(Inbound):
    """A piece of what is being said. The ack comes when a final piece is on disk."""

    conversationId: Id
    speaker: Literal["caller", "agent"]
    """`caller` is the customer."""
    text: Annotated[Text, Field(min_length=1, max_length=MAX_TEXT)]
    isFinal: bool = True
    """False: somebody is speaking; the words are not kept."""
    timestamp: Millis | None = None
    """When it was said, milliseconds since the epoch. Left out: now."""
    segmentId: Id | None = None
    """The client's own id of the piece: stored once, however often it is sent."""
    confidence: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    """How sure the speech recogniser is."""

    @field_validator("text")
    @classmethod
    def _said(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value


class OptionSelected(Inbound):
    """The agent chose one of a tip's options. What is said next is taken as the answer to it."""

    recommendationId: Id
    selectedOption: int = Field(ge=1, le=3)
    conversationId: Id | None = None
    """May be left out: the tip knows its call."""


class Segment(Inbound):
    """A piece of the conversation that the client captured itself."""

    speaker: Literal["caller", "agent"] = "caller"
    text: Annotated[Text, Field(max_length=MAX_TEXT)] = ""
    timestamp: Millis | None = None
    confidence: float | None = None


class RequestNextTip(Inbound):
    """Ask for the next tip, with what the client knows. What the server heard itself goes before it."""

    conversationId: Id
    selectedRecommendationId: Id | None = None
    """The tip that was followed, or not."""
    selectedOption: int | None = Field(None, ge=1, le=3)
    selectedScript: Annotated[Text, Field(max_length=MAX_TEXT)] | None = None
    """What was suggested."""
    agentResponse: Segment | None = None
    """What the agent really said."""
    customerReaction: Segment | None = None
    """How the customer took it."""
    transcriptHistory: list[Segment] | None = Field(None, max_length=100)
    """The last pieces, oldest first. Used where the server heard nothing itself; the last 20 count."""
    timestamp: Millis | None = None


class RequestAlternativeTip(Inbound):
    """Ask for another line of the same stage."""

    conversationId: Id
    currentStage: Stage | None = None
    """Left out: where the call stands."""
    currentScriptId: Id | None = None
    """The line that is not wanted."""


class EndConversation(Inbound):
    """End the call. Its analysis follows."""

    conversationId: Id


class SetMode(Inbound):
    """Change how the coach behaves, at any moment. What is left out stays as it is."""

    conversationId: Id
    mode: Mode | None = None
    verbosity: Verbosity | None = None
    muted: bool | None = None
    """True: no tip unless it is asked for."""


class ResumeConversation(Inbound):
    """Go on with a call on another socket, also after a restart; what was missed is told again, once."""

    conversationId: Id
    resumeToken: Annotated[str, Field(min_length=1, max_length=256)]
    """From CONVERSATION_STARTED."""
    lastSeq: int = Field(0, ge=0, le=2**53)
    """The `seq` of the last event that arrived."""


class Ping(Inbound):
    """Ask whether the server is there."""


class StartTranscription(Inbound):
    """Open a stream of audio that the server has transcribed. One channel of signed 16-bit PCM."""

    sessionId: StreamId
    """The client's own name of the stream."""
    sampleRate: int = Field(16_000, ge=8_000, le=48_000)
    encoding: Literal["pcm"] = "pcm"
    language: Language | None = None


class AudioChunk(Inbound):
    """A chunk of audio, at most 64 kB. Read by services/transcription_input.py, which checks what it takes;
    this is its description."""

    sessionId: StreamId
    chunk: str
    """Base64 text, or binary data as an attachment of the packet."""
    speaker: Literal["agent", "caller", "unknown"] | None = None
    """Whose voice it is, where the client knows."""
    timestamp: Millis | None = None


class EndTranscription(Inbound):
    """Close the stream. The last words are delivered before the answer."""

    sessionId: StreamId


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], data: object) -> Model:
    """The checked payload, bare or inside `{type, payload}`. Raises Invalid naming the first wrong field."""
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise Invalid("The payload must be an object.", field="payload")
    if isinstance(data.get("payload"), Mapping) and isinstance(data.get("type"), str):
        data = data["payload"]
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Invalid:
    """The first fault, said without repeating what was sent."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in fault["loc"]) or "payload"
    if fault["type"] == "missing":
        return Invalid(f"{field} is required.", field=field)
    return Invalid(f"{field} is not valid: {_expected(fault['type'], str(fault['msg']))}.", field=field)


# Kinds of fault whose usual sentence speaks of classes, patterns or how a value was read.
_EXPECTED = {
    "bool": "must be true or false",
    "dict": "must be an object",
    "float": "must be a number",
    "int": "must be a whole number",
    "list": "must be a list",
    "model": "must be an object",
    "string_pattern": "must have the form that the reference describes",
    "string": "must be a text",
    "tuple": "must be a list",
}
_LENGTH = re.compile(r"at (least|most) (\d+)")


def _expected(kind: str, message: str) -> str:
    """What should have been there, in our words."""
    if kind.endswith(("too_short", "too_long")) and (length := _LENGTH.search(message)) is not None:
        unit = "item" if message.startswith(("List", "Tuple", "Dictionary")) else "character"
        return f"must have at {length[1]} {length[2]} {unit}{'' if length[2] == '1' else 's'}"
    for beginning, sentence in _EXPECTED.items():
        if kind.startswith(beginning):
            return sentence
    return message.removeprefix("Value error, ").replace("Input should be", "must be")[:200]
