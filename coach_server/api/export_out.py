"""What the export of a user holds (GDPR Art. 15 and 20): calls, choices, progress, drills, practice sessions.

What cannot be decrypted, because its key is not configured or it was changed, is named and marked."""

from __future__ import annotations

from typing import Any, Literal

from coach_server.api.practice.out import DrillTold
from coach_server.api.simulation.out import SessionDetail
from coach_server.api.wire_out import (
    AnalysisAnswer,
    ConversationDetail,
    Count,
    Millis,
    Outbound,
    StoredSegment,
    StoredTip,
)
from coach_server.domain.practice.roleplay import Status, StepStatus

Score = int | None
Feedback = dict[str, Any] | None


class ExportedConversation(ConversationDetail):
    transcript: list[StoredSegment]
    tips: list[StoredTip]
    analysis: AnalysisAnswer | None
    feedback: Feedback
    """As `GET /api/conversations/{id}/feedback` tells it, without the drills, which stand by themselves."""


class UnreadableConversation(Outbound):
    conversationId: str
    unreadable: Literal[True]


class ExportedChoices(Outbound):
    storeTranscripts: bool
    feedbackEmail: str | None
    teamId: str | None
    consent: dict[str, Any] | None
    createdAt: str


class UnreadableChoices(Outbound):
    userId: str
    unreadable: Literal[True]


class ExportedProgress(Outbound):
    methodology: str
    currentPhaseId: int
    currentStepId: str
    unlockedPhases: list[int]
    unlockedSteps: list[str]
    totalSessions: Count
    averageScore: float | None
    bestScore: Score
    totalDurationSeconds: Count
    stepStats: dict[str, Any]
    """Attempts, best and average score by step."""
    lastSessionAt: str | None


class UnreadableDrill(Outbound):
    drillId: str
    unreadable: Literal[True]


class ExportedTurn(Outbound):
    sequenceNumber: Count
    speaker: Literal["user", "hugo"]
    message: str
    """Empty in a session that keeps no words."""
    timestamp: str


class ExportedStep(Outbound):
    stepId: str
    status: StepStatus
    techniqueScore: Score
    completedAt: str | None


class ExportedSession(Outbound):
    sessionId: str
    kind: Literal["practice", "drill"]
    scenarioId: str
    methodology: str
    methodologyVersion: int
    language: str
    status: Status
    startedAt: str
    completedAt: str | None
    storeTranscript: bool
    consent: dict[str, Any] | None
    transcript: list[ExportedTurn]
    steps: list[ExportedStep]
    feedback: Feedback
    """As `GET /api/roleplay/sessions/{id}/feedback` tells it, without the drills."""


class UnreadableSession(Outbound):
    sessionId: str
    unreadable: Literal[True]


class UserExport(Outbound):
    """All that is stored of a user."""

    format: Literal[1]
    exportedAt: Millis
    userId: str
    conversations: list[ExportedConversation | UnreadableConversation]
    settings: ExportedChoices | UnreadableChoices | None
    """Null for a user who never practised."""
    progress: list[ExportedProgress]
    """One for each method."""
    drills: list[DrillTold | UnreadableDrill]
    sessions: list[ExportedSession | UnreadableSession]
    simulations: list[SessionDetail | UnreadableSession]
