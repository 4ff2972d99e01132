"""What clients send to practise: seed 000's bodies and events, and what was added since. Unknown fields are
ignored; ids are any text (contract §1: they are not UUIDs in practice)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from coach_server.api.wire import MAX_TEXT, Consent, Id, Inbound, Language, Millis, Text, cleaned_json

MAX_EMAIL = 254
MAX_DURATION_MS = 3_600_000
_YEAR_3000_S = 32_503_680_000.0


def _moment(value: object) -> object:
    """Seconds since the epoch of an ISO time (the seed's) or of milliseconds."""
    if isinstance(value, bool):
        raise ValueError("must be an ISO 8601 time or milliseconds")
    if isinstance(value, int | float):
        return value / 1000
    if not isinstance(value, str) or len(value) > 40:
        raise ValueError("must be an ISO 8601 time or milliseconds")
    try:
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError("must be an ISO 8601 time or milliseconds") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


Moment = Annotated[
    float,
    BeforeValidator(_moment, json_schema_input_type=str | Millis),
    Field(ge=0, le=_YEAR_3000_S, allow_inf_nan=False),
]
Words = Annotated[Text, Field(min_length=1, max_length=MAX_TEXT)]


def _spoken(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


class StartRoleplay(Inbound):
    """Start a practice session. Everything after `startStepId` is an addition that the seed's client leaves
    out."""

    userId: Id | None = None
    """Who practises. Left out: the user of the token."""
    scenarioId: Id | None = None
    """Left out: the default scenario."""
    startPhaseId: int | None = Field(None, ge=0, le=99)
    """Left out, with `startStepId`: where the user is."""
    startStepId: Annotated[Text, Field(min_length=1, max_length=40)] | None = None
    language: Language | None = None
    """Left out: the server's default."""
    methodology: Annotated[Text, Field(min_length=1, max_length=64)] | None = None
    """Left out: the scenario's."""
    storeTranscript: bool | None = None
    """False: nothing that is said is kept. Left out: what the user chose."""
    consent: Consent | None = None
    """An object, or true or false for its `given`."""
    avatar: bool = True
    """False: in text, also where an avatar is configured."""
    idempotencyKey: Id | None = None
    """Sent again, it answers with the session it started the first time."""

    @field_validator("consent", mode="before")
    @classmethod
    def _plain_consent(cls, value: object) -> object:
        return {"given": value} if isinstance(value, bool) else value


class SayMessage(Inbound):
    """A message of the talk as the avatar's page heard it."""

    speaker: Literal["user", "hugo"]
    message: Words
    timestamp: Moment | None = None
    """When it was said: ISO 8601 or milliseconds. Left out: now."""
    messageId: Id | None = None
    """The client's own id: stored once, however often it is sent."""
    durationMs: int | None = Field(None, ge=0, le=MAX_DURATION_MS)
    confidence: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)

    _is_said = field_validator("message")(_spoken)


class AskCustomer(Inbound):
    """What the seller says to the customer, who answers."""

    text: Words
    messageId: Id | None = None
    """The client's own id: the same one brings the same answer."""

    _is_said = field_validator("text")(_spoken)


class UserChoices(Inbound):
    """What a user chooses. What is left out stays as it is."""

    storeTranscripts: bool | None = None
    """False: sessions keep nothing that is said, unless one says otherwise."""
    feedbackEmail: Annotated[Text, Field(max_length=MAX_EMAIL)] | None = None
    """Where feedback is sent; an empty text ends that."""
    consent: Consent | None = None


class ScenarioDocument(Inbound):
    """A scenario of one's own, in the form of the catalog's files: `methodology`, `persona`, and one story by
    language (`nl`, `en`, `he`)."""

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, value: object) -> object:
        return cleaned_json(value)

    methodology: Annotated[Text, Field(min_length=1, max_length=64)]
    persona: dict[str, Any] | None = None
    nl: dict[str, Any] | None = None
    en: dict[str, Any] | None = None
    he: dict[str, Any] | None = None


# --- queries


class InLanguage(Inbound):
    """In which language names are told."""

    language: Language | None = None


class OfMethod(InLanguage):
    """Of which methodology."""

    methodology: Annotated[Text, Field(min_length=1, max_length=64)] | None = None
    """Left out: hugo."""


class KnowledgeQuery(InLanguage):
    """A question to the coach."""

    text: Annotated[Text, Field(min_length=1, max_length=1000)]
    limit: int = Field(3, ge=1, le=10)


class DrillQuery(Inbound):
    """Whose drills."""

    userId: Id | None = None
    """Left out: the user of the token."""
    status: Literal["open", "closed"] | None = None


# --- events


class JoinSession(Inbound):
    """Listen to a practice session: steps, phases, hints, answers, feedback."""

    sessionId: Id
    userId: Id | None = None
    """Its user. Left out: not compared."""


class SessionHeartbeat(Inbound):
    """A sign of life. Without one for two minutes (setting) a session is abandoned."""

    sessionId: Id


class CompleteStep(Inbound):
    """The user ticks a step off."""

    sessionId: Id
    stepId: Annotated[Text, Field(min_length=1, max_length=40)]


class RoleplayMessage(AskCustomer):
    """Say something to the customer. The answer comes as `roleplay:reply`, in pieces before it as
    `roleplay:reply_chunk`."""

    sessionId: Id
