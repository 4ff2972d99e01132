"""What clients send about simulations over REST (seed 001)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from coach_server.api.wire import Id, Inbound, Metadata, Text, cleaned_json

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
MAX_BATCH = 1000


class CreateSession(Inbound):
    """Make a session. Its WebSocket is the answer's `wsUrl`."""

    scenarioId: Slug
    traineeId: Id | None = None
    """Who practises. Left out: the user of the token."""
    personaId: Slug | None = None
    """Left out: the scenario's."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] | None = None
    """Left out: the server's default, where the persona speaks it."""
    client: Annotated[Text, Field(max_length=64)] | None = None
    """Which program it is for: `unity-vr`, `web`."""
    metadata: Metadata | None = None
    """Anything, up to 16 kB."""
    storeTranscript: bool = True
    """False: nothing that is said is kept; the score has no quotes."""


class UploadEvents(Inbound):
    """Events out of a client's buffer, in their order; the same batch may be sent again."""

    events: list[dict[str, Any]] = Field(max_length=MAX_BATCH)
    """Each `{type, data, time, id?}`; `time` in seconds since the session began."""


class Document(Inbound):
    """A persona or scenario in the form of the catalog's files."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, value: object) -> object:
        return cleaned_json(value)


def _day(value: object) -> object:
    """Seconds since the epoch of a date or an ISO time."""
    if not isinstance(value, str) or len(value) > 40:
        raise ValueError("must be a date such as 2026-11-25, or an ISO 8601 time")
    try:
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError("must be a date such as 2026-11-25, or an ISO 8601 time") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


Day = Annotated[float, BeforeValidator(_day, json_schema_input_type=str)]


class SessionQuery(Inbound):
    """Which sessions."""

    trainee: Id | None = None
    persona: Slug | None = None
    scenario: Slug | None = None
    outcome: Literal["converted", "rejected", "walked_away", "compliance_fail"] | None = None
    status: Literal["created", "active", "ended"] | None = None
    # `from` is a word of the language; the wire says it all the same.
    since: Day | None = Field(None, alias="from")
    """Created at or after."""
    until: Day | None = Field(None, alias="to")
    """Created before."""
    page: int = Field(1, ge=1, le=100_000)
    pageSize: int = Field(50, ge=1, le=200)
    sort: Literal["id", "trainee", "persona", "outcome", "score", "date", "duration"] = "date"
    order: Literal["asc", "desc"] = "desc"


class InLanguage(Inbound):
    """In which language texts are told."""

    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] | None = None
