"""What the server says of simulations, as models: for the documents, and for the test that holds what is
really sent against them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from coach_server.api.wire_out import Count, Outbound
from coach_server.domain.simulation.talk import Direction, EventType, Outcome, Role

Score = Annotated[int, Field(ge=0, le=100)]
Attitude = Annotated[int, Field(ge=0, le=10)]
Status = Literal["created", "active", "ended"]
AnalysisStatus = Literal["none", "pending", "done", "failed"]


class PersonaTold(Outbound):
    """A customer, as a client may know them."""

    id: str
    name: str
    type: str
    age: Count
    description: str
    voice: str
    initialAttitude: Attitude
    traits: list[str]
    languages: list[str]
    domain: str


class PersonaListed(PersonaTold):
    own: bool
    """Made by API, under this API key."""


class PersonaName(Outbound):
    id: str
    name: str
    type: str


class ScenarioTold(Outbound):
    """Whom to meet, where, and what counts as success."""

    id: str
    personaId: str
    title: str
    description: str
    setting: str
    goal: str
    success: list[str]
    maxExchanges: Count
    languages: list[str]
    persona: PersonaName


class ScenarioListed(ScenarioTold):
    own: bool


class PersonasAnswer(Outbound):
    personas: list[PersonaListed]


class SimScenariosAnswer(Outbound):
    scenarios: list[ScenarioListed]


class Saved(Outbound):
    id: str
    saved: Literal[True]


class Deleted(Outbound):
    id: str
    deleted: Literal[True]


class SessionCreated(Outbound):
    """A new session. `wsUrl` holds a ticket that works once; `ready` on the socket brings the next one."""

    sessionId: str
    wsUrl: str
    status: Status
    traineeId: str
    language: str
    persona: PersonaTold
    scenario: ScenarioTold


class SessionListed(Outbound):
    sessionId: str
    traineeId: str
    teamId: str | None
    scenarioId: str
    personaId: str
    personaName: str
    language: str
    status: Status
    outcome: Outcome | None
    """Null while it runs, and where nobody decided: the client stopped or its line dropped."""
    score: Score | None
    finalAttitude: Attitude | None
    createdAt: str
    sessionStartUtc: str | None
    sessionEndUtc: str | None
    durationMs: Count | None


class SessionsPage(Outbound):
    sessions: list[SessionListed]
    total: Count
    page: int = Field(ge=1)
    pageSize: int = Field(ge=1)
    pages: int = Field(ge=1)


class StatsTold(Outbound):
    """Figures of the sessions a caller may see."""

    totalSessions: Count
    endedSessions: Count
    scoredSessions: Count
    averageScore: float | None
    conversions: Count
    conversionRate: float | None
    """Of the ended ones, 0..1."""
    totalDurationMs: Count
    outcomes: dict[str, Count]


class Choices(Outbound):
    trainees: list[str]
    personas: list[dict[str, str]]


class DashboardAnswer(SessionsPage):
    """A page of sessions, figures of all that match, and what can be filtered by."""

    stats: StatsTold
    choices: Choices


class TranscriptLine(Outbound):
    startTime: float
    endTime: float
    speaker: Role
    text: str


class EventTold(Outbound):
    time: float
    type: EventType
    data: Any


class MoodTold(Outbound):
    time: float
    value: float
    direction: Direction


class ExportTold(Outbound):
    exportId: str
    status: Literal["pending", "sent", "failed"]
    attempts: Count
    createdAt: str
    sentAt: str | None
    errorCode: str | None


class SessionDetail(Outbound):
    """Everything of one session (seed 001, collection `sessions`)."""

    sessionId: str
    traineeId: str
    teamId: str | None
    scenarioId: str
    personaId: str
    personaName: str
    language: str
    status: Status
    outcome: Outcome | None
    finalAttitude: Attitude | None
    createdAt: str
    sessionStartUtc: str | None
    sessionEndUtc: str | None
    durationMs: Count | None
    endTrigger: str | None
    """Who ended it: `supervisor:…`, `end_conversation:…`, `client`, `disconnect` or `limit`."""
    exchanges: Count
    client: str | None
    metadata: dict[str, Any]
    storeTranscript: bool
    analysisStatus: AnalysisStatus
    dataFilesWritten: bool
    transcript: list[TranscriptLine]
    events: list[EventTold]
    moodHistory: list[Attitude]
    attitude: list[MoodTold]
    supervisorLogs: list[dict[str, Any]]
    score: dict[str, Any] | None
    exports: list[ExportTold]


class EventsStored(Outbound):
    """The batch is on disk."""

    sessionId: str
    accepted: Count
    duplicates: Count


class ExportOrdered(Outbound):
    exportId: str
    sessionId: str
    status: Literal["pending"]


class ScoreOrdered(Outbound):
    sessionId: str
    scoreQueued: Literal[True]
