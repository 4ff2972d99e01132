"""Payloads that come in, checked. The one place that knows the wire's names (live-coach.md §3-§5).

A wrong payload becomes one `Invalid` that names the field. Unknown fields are ignored, so newer clients work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from coach_server.domain.events import Mode
from coach_server.domain.tip import Stage, Verbosity
from coach_server.errors import Invalid

MAX_TEXT = 8000
MAX_METADATA_BYTES = 16_000
MAX_TIME_MS = 32_503_680_000_000  # the year 3000: anything later is not a time
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u2028\u2029\ud800-\udfff]")


def clean(text: str) -> str:
    """Without control characters and lone surrogates, which break encoders further on (trust.md §3.9)."""
    return _CONTROL.sub("", text) if _CONTROL.search(text) else text


def _cleaned(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_cleaned)]
Id = Annotated[str, Field(min_length=1, max_length=128)]
Millis = Annotated[float, Field(ge=0, le=MAX_TIME_MS, allow_inf_nan=False)]
Language = Literal["en", "nl", "he"]


class Inbound(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Consent(Inbound):
    given: bool
    by: Text | None = Field(None, max_length=128)
    at: Millis | None = None
    version: Text | None = Field(None, max_length=64)


class StartConversation(Inbound):
    """START_CONVERSATION. Everything after `metadata` is additive."""

    agentId: Annotated[Text, Field(min_length=1, max_length=128)]
    metadata: dict[str, Any] | None = None
    mode: Mode | None = None
    language: Language | None = None
    playbook: Id | None = None
    warmupMs: int | None = Field(None, ge=0, le=3_600_000)
    intervalMs: int | None = Field(None, ge=100, le=3_600_000)
    storeTranscript: bool = True
    consent: Consent | None = None
    verbosity: Verbosity = Verbosity.NORMAL
    tipStreaming: bool = False
    idempotencyKey: Id | None = None

    @field_validator("consent", mode="before")
    @classmethod
    def _plain_consent(cls, value: object) -> object:
        return {"given": value} if isinstance(value, bool) else value

    @field_validator("metadata")
    @classmethod
    def _bounded(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and len(repr(value)) > MAX_METADATA_BYTES:
            raise ValueError(f"must not be larger than {MAX_METADATA_BYTES} bytes")
        return value


class Transcript(Inbound):
    """TRANSCRIPT. `timestamp`: when it was said, milliseconds since the epoch; now, if it is left out."""

    conversationId: Id
    speaker: Literal["caller", "agent"]
    text: Annotated[Text, Field(min_length=1, max_length=MAX_TEXT)]
    isFinal: bool = True
    timestamp: Millis | None = None
    segmentId: Id | None = None
    confidence: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)

    @field_validator("text")
    @classmethod
    def _said(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value


class OptionSelected(Inbound):
    recommendationId: Id
    selectedOption: int = Field(ge=1, le=3)
    conversationId: Id | None = None


class Segment(Inbound):
    speaker: Literal["caller", "agent"] = "caller"
    text: Annotated[Text, Field(max_length=MAX_TEXT)] = ""
    timestamp: Millis | None = None
    confidence: float | None = None


class RequestNextTip(Inbound):
    conversationId: Id
    selectedRecommendationId: Id | None = None
    selectedOption: int | None = Field(None, ge=1, le=3)
    selectedScript: Annotated[Text, Field(max_length=MAX_TEXT)] | None = None
    agentResponse: Segment | None = None
    customerReaction: Segment | None = None
    transcriptHistory: list[Segment] | None = Field(None, max_length=100)
    timestamp: Millis | None = None


class RequestAlternativeTip(Inbound):
    conversationId: Id
    currentStage: Stage | None = None
    currentScriptId: Id | None = None


class EndConversation(Inbound):
    conversationId: Id


class SetMode(Inbound):
    conversationId: Id
    mode: Mode | None = None
    verbosity: Verbosity | None = None
    muted: bool | None = None


class ResumeConversation(Inbound):
    conversationId: Id
    resumeToken: Annotated[str, Field(min_length=1, max_length=256)]
    lastSeq: int = Field(0, ge=0, le=2**53)


class Ping(Inbound):
    pass


class StartTranscription(Inbound):
    sessionId: Id
    sampleRate: int = Field(16_000, ge=8_000, le=48_000)
    encoding: Literal["pcm"] = "pcm"
    language: Language | None = None


class EndTranscription(Inbound):
    sessionId: Id


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
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return Invalid(f"{field} is not valid: {message[:200]}.", field=field)
