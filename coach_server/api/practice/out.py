"""What the server says of practising, as models: REST answers, acks, and the bare events of contract §3.

As in `wire_out`: for the documents, and for the test that holds what is really sent against them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from coach_server.api.wire_out import LEFT_OUT, Accepted, Count, Language, Outbound
from coach_server.domain.method.methodology import TipType
from coach_server.domain.method.progress import PracticeKind
from coach_server.domain.method.turns import Quality
from coach_server.domain.practice.roleplay import Status, StepStatus
from coach_server.domain.practice.scorecard import Kind
from coach_server.domain.tip import Source
from coach_server.services.practice.avatars import AvatarStatus

Score = Annotated[int, Field(ge=0, le=100)]
Scores = dict[str, Score]
Party = Literal["user", "hugo", "agent", "caller"]
AnalysisStatus = Literal["none", "pending", "done", "failed"]


# --- the sales flow and the method


class FlowStep(Outbound):
    """A step as the web client draws it."""

    id: str
    nummer: str
    name: str
    status: StepStatus
    duration: str
    isVerplicht: Literal[True] = LEFT_OUT


class FlowPhase(Outbound):
    """A phase of the sales flow."""

    id: int
    name: str
    color: str
    themas: list[str]
    uitleg: str
    steps: list[FlowStep]


class TechniqueDetail(Outbound):
    """A technique: what it is, when and how to use it."""

    id: str
    nummer: str
    name: str
    doel: str
    wat: str
    wanneer: str
    hoe: list[str]
    voorbeelden: list[str]
    duration: str


class TechniqueStep(TechniqueDetail):
    """A step, with the techniques beneath it."""

    isVerplicht: bool
    details: list[TechniqueDetail]


class TechniquePhase(Outbound):
    id: int
    name: str
    color: str
    themas: list[str]
    doel: str
    uitleg: str
    steps: list[TechniqueStep]


class AttitudeDetail(Outbound):
    """How a customer may answer, and which techniques meet it."""

    id: str
    key: str
    name: str
    meaning: str
    phases: list[int]
    answers: list[str]
    tipType: TipType


class TechniquesAnswer(Outbound):
    """A methodology as clients show it."""

    methodology: str
    version: int
    name: str
    phases: list[TechniquePhase]
    attitudes: list[AttitudeDetail]


class PhaseName(Outbound):
    id: int
    name: str


class MethodologyListed(Outbound):
    id: str
    version: int
    name: str
    description: str
    steps: Count
    phases: list[PhaseName]


class MethodologiesAnswer(Outbound):
    """The methodologies of this server."""

    methodologies: list[MethodologyListed]


class ScenarioListed(Outbound):
    """Somebody to practise with. `own`: made by API, under this API key."""

    id: str
    title: str
    who: str
    role: str
    company: str
    sector: str
    product: str
    difficulty: str
    style: str
    methodology: str
    languages: list[Language]
    own: bool


class ScenariosAnswer(Outbound):
    scenarios: list[ScenarioListed]


class ScenarioDeleted(Outbound):
    id: str
    deleted: Literal[True]


# --- sessions


class AvatarState(Outbound):
    """`unavailable`: it was wanted and could not be had; the session goes on in text."""

    status: AvatarStatus
    expiresAt: str | None


class AvatarCapabilities(Outbound):
    """What the configured avatar can do."""

    provider: Literal["off", "heygen", "liveavatar"]
    modes: list[str]
    languages: list[str]
    configured: bool
    speaks: Literal["server", "client", "none"]
    deprecated: bool
    sandbox: bool


class MethodologyUsed(Outbound):
    id: str
    version: int
    name: str


class ScenarioBrief(Outbound):
    """Who the customer is, as the seller may know."""

    id: str
    title: str
    who: str
    role: str
    company: str
    briefing: str


class OpeningLine(Outbound):
    """The customer's first words."""

    messageId: str
    text: str
    speaker: Literal["hugo"]


class SessionStarted(Outbound):
    """A session that has begun. The seed's keys first; what HeyGen calls so is of any avatar vendor."""

    sessionId: str
    heygenSessionId: str | None
    heygenSdpOffer: None
    """Always null: no vendor offers SDP any more."""
    currentPhaseId: int
    currentStepId: str
    status: Status
    provider: str
    avatar: AvatarState
    heygenAccessToken: str | None
    livekitUrl: str | None
    livekitToken: str | None
    """The same token as `heygenAccessToken`: it opens this one room."""
    userId: str
    kind: Literal["practice", "drill"]
    language: Language
    storeTranscript: bool
    methodology: MethodologyUsed
    scenario: ScenarioBrief
    opening: OpeningLine | None
    """Null with an avatar, and where the session had begun before."""
    startedAt: str
    joinToken: str
    """Lets its holder take part in this session: `auth.joinToken` of Socket.IO, `Bearer` of REST. 24
    hours."""
    scenarioFlow: list[FlowPhase]
    duplicate: Literal[True] = LEFT_OUT
    """This `idempotencyKey` had started the session before."""


class SessionStatus(Outbound):
    sessionId: str
    status: Status
    currentPhaseId: int
    currentStepId: str
    duration: Count
    """Seconds."""
    transcriptLength: Count
    """Messages."""
    analysisStatus: AnalysisStatus


class SessionStopped(Outbound):
    sessionId: str
    status: Status
    duration: Count
    stepsCompleted: list[str]
    feedbackQueued: bool


class MessageStored(Outbound):
    """The message is on disk."""

    transcriptId: str
    sessionId: str
    created: bool
    """False: this `messageId` was stored before."""
    sequenceNumber: int = Field(ge=1)


class AttitudeName(Outbound):
    id: str
    name: str


class RoomCommand(Outbound):
    """What the browser publishes, as JSON, on the LiveKit data channel `topic`."""

    topic: str
    data: dict[str, str]


class CustomerReply(Outbound):
    """The customer's answer."""

    messageId: str
    text: str
    attitude: AttitudeName | None
    """How the customer stands to what was said."""
    source: Source
    degraded: bool
    """True: the built-in customer stood in for a model that failed or was late."""
    ended: bool
    """True: the customer ends the talk."""
    avatarCommand: RoomCommand = LEFT_OUT
    """To have the avatar say it."""
    avatarDelivery: Literal["server", "client"] = LEFT_OUT
    """`server`: the avatar has the text already."""


class ReplyAnswer(Outbound):
    """With `Accept: text/event-stream` the answer comes in pieces: `data: {"type": "token", "text"}`, and
    last `data: {"type": "done", "messageId", "reply"}`; a failure after the first piece is `{"type": "error",
    "code", "message"}`."""

    messageId: str
    """Of the seller's message."""
    reply: CustomerReply


class AnalysisOrdered(Outbound):
    sessionId: str
    feedbackQueued: Literal[True]


# --- feedback


class HighlightTold(Outbound):
    type: Kind
    text: str
    plain: str
    """The same without words of the talk; empty for a model's remark."""


class ComparedScore(Outbound):
    previous: Score
    current: Score
    delta: int


class MethodStamp(Outbound):
    id: str
    version: int


class EvidenceTold(Outbound):
    """The words a judgement rests on; `quote` is null where no words are kept."""

    criterion: str
    quote: str | None
    speaker: Party
    sequence: int
    atMs: Count


class MissedTold(Outbound):
    """A moment that was let go, and a better question."""

    id: str
    name: str
    why: str
    better: str
    technique: str
    customer: EvidenceTold | None
    seller: EvidenceTold | None


class MetricTold(Outbound):
    score: Score | None
    parts: dict[str, int | float | None]


class SubScores(Outbound):
    """The four criteria. One that had no occasion carries the overall score and is in `notApplicable`."""

    luisteren: Score | None
    samenvatten: Score | None
    objections: Score | None
    nextStep: Score | None


class FeedbackShared(Outbound):
    """The score card of a talk by a method: the seed's feedback with what it rests on."""

    status: str
    method: MethodStamp
    language: str
    source: Source
    provisional: bool
    """True: a model should have judged as well and could not yet."""
    insufficient: bool
    """True: too little was said to judge; every score is null."""
    overallScore: Score | None
    band: Count | None
    """The overall score is right within so many points."""
    subScores: SubScores
    notApplicable: list[str]
    phases: dict[str, Score | None]
    metrics: dict[str, MetricTold]
    """`structure`, `attitudes`, `balance`, `impact`."""
    delta: int | None
    comparedToPrevious: dict[str, ComparedScore]
    techniquesUsed: list[str]
    techniqueScores: Scores
    details: Scores
    """Of techniques beneath the steps."""
    nextStepSuggestion: str | None
    highlights: list[HighlightTold] = Field(max_length=4)
    advice: str
    advicePlain: str
    """The same without words of the talk."""
    evidence: list[EvidenceTold]
    missedMoments: list[MissedTold]
    sessionDuration: str
    """Minutes and seconds."""
    completedAt: str | None


class DrillSource(Outbound):
    kind: Literal["roleplay", "call"]
    id: str


class DrillTold(Outbound):
    """A lost moment to play again. A better answer closes it."""

    id: str
    status: Literal["open", "closed"]
    technique: str
    techniqueName: str
    moment: str
    momentName: str | None
    attitude: str | None
    customerLines: list[str]
    sellerLine: str
    better: str
    seconds: int
    attempts: Count
    bestQuality: Quality | None
    createdAt: str
    closedAt: str | None
    source: DrillSource


class KnowledgeEntry(Outbound):
    """Something the coach knows."""

    id: str
    technique: str | None
    """The technique it was found for, or is most about."""
    question: str
    answer: str
    better: str | None
    """What can be said to a customer."""
    language: str


class KnowledgeAnswer(Outbound):
    """What the coach knows about a question, the best first."""

    language: str
    """Of the answers: a language that nothing is written in is answered in English."""
    entries: list[KnowledgeEntry]


class RoleplayFeedback(FeedbackShared):
    """What a practice session came to."""

    sessionId: str
    drills: list[DrillTold]
    reading: list[KnowledgeEntry]
    """On the next step and what was missed."""


class CallFeedbackAnswer(FeedbackShared):
    """What a live call came to by the same method as practice."""

    conversationId: str
    drills: list[DrillTold]
    reading: list[KnowledgeEntry]


class DrillsAnswer(Outbound):
    """Newest first."""

    drills: list[DrillTold]


class DrillStarted(SessionStarted):
    """A session of 60 to 90 seconds against the customer's own words."""

    drill: DrillTold


# --- progress and users


class StepProgressTold(Outbound):
    """Scores are left out where there are none yet."""

    status: StepStatus
    attempts: Count = LEFT_OUT
    bestScore: Score = LEFT_OUT
    averageScore: Score = LEFT_OUT
    lastPractisedAt: str = LEFT_OUT
    stale: bool = LEFT_OUT
    """Completed, and not practised for long."""


class CurvePoint(Outbound):
    at: str
    score: Score
    kind: PracticeKind


class SkillPoint(Outbound):
    at: str
    score: Score


class ProgressAnswer(Outbound):
    """What a user has practised: the seed's progress, the sales flow, and skill over time."""

    userId: str
    totalSessions: Count
    averageScore: Score
    """0 while `scoredSessions` is 0."""
    currentPhase: int
    currentStep: str
    unlockedPhases: list[int]
    stepProgress: dict[str, StepProgressTold]
    lastSessionAt: str | None
    scenarioFlow: list[FlowPhase]
    methodology: str
    methodologyVersion: int
    unlockedSteps: list[str]
    completedPhases: list[int]
    scoredSessions: Count
    bestScore: Score | None
    totalCalls: Count
    averageCallScore: Score | None
    totalDurationSeconds: Count
    curve: list[CurvePoint]
    """Every scored session, drill and live call, oldest first."""
    skill: dict[str, list[SkillPoint]]
    """By phase: the moving average after each practice that touched it."""
    averageSubScores: Scores
    staleSteps: list[str]


class UserChoicesTold(Outbound):
    """What a user chose."""

    userId: str
    teamId: str | None
    storeTranscripts: bool
    feedbackEmail: str | None
    consent: dict[str, Any] | None


# --- events, bare


class StepUpdated(Outbound):
    """The step to work on is another one."""

    sessionId: str
    currentStepId: str
    previousStepId: str
    status: StepStatus
    """What the previous step became."""


class PhaseWasCompleted(Outbound):
    """A phase is completed; once a session and phase."""

    sessionId: str
    phaseId: int
    nextPhaseId: int | None
    unlockedSteps: list[str]


class FeedbackReady(Outbound):
    """The feedback can be fetched. Told again to a client that joins later."""

    sessionId: str
    overallScore: Score | None


class HintShown(Outbound):
    """A hint, only when it helps."""

    stepId: str
    hintText: str
    type: Literal["tip", "warning"]
    reading: KnowledgeEntry | None
    """What the coach knows about the step."""


class ReplyChunk(Outbound):
    """A piece of the customer's answer on its way. `roleplay:reply` has the whole and replaces them."""

    sessionId: str
    messageId: str
    delta: str


class ReplyTold(Outbound):
    """The customer's whole answer to the message `messageId`."""

    sessionId: str
    messageId: str
    reply: CustomerReply


class AvatarChanged(Outbound):
    """The avatar is gone, or another one took its place."""

    sessionId: str
    status: AvatarStatus
    heygenSessionId: str | None = LEFT_OUT
    livekitUrl: str | None = LEFT_OUT
    livekitToken: str | None = LEFT_OUT


BARE_EVENTS: dict[str, type[Outbound]] = {
    "step:updated": StepUpdated,
    "phase:completed": PhaseWasCompleted,
    "feedback:ready": FeedbackReady,
    "hint:show": HintShown,
    "roleplay:reply_chunk": ReplyChunk,
    "roleplay:reply": ReplyTold,
    "avatar:status": AvatarChanged,
}


# --- acks


class JoinAccepted(SessionStatus, Accepted):
    """Where the session stands."""

    scenarioFlow: list[FlowPhase]


class HeartbeatAccepted(Accepted):
    status: Status


class StepAccepted(Accepted):
    currentPhaseId: int
    currentStepId: str


class MessageAccepted(Accepted):
    """The words are on disk."""

    messageId: str
