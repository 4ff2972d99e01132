"""What the server says, as models: payloads of events, acks, REST answers.

For the documents, and for a test that holds what is really sent against them; nothing is checked by them
while serving.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coach_server.domain.call import CallState
from coach_server.domain.debrief import Aftermath, Met
from coach_server.domain.detection import Objection, Signal
from coach_server.domain.events import EndStatus, Mode
from coach_server.domain.ledger import Fate, Reaction
from coach_server.domain.tip import (
    HEADING_CHARS,
    SCRIPT_CHARS,
    Label,
    Source,
    Stage,
    Trigger,
    Verbosity,
)

LEFT_OUT: Any = None  # the default of a field that may be absent: it is then not sent, and never null

Millis = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Language = Literal["en", "nl", "he"]
Voice = Literal["agent", "caller"]


class Outbound(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class OfCall(Outbound):
    conversationId: str
    timestamp: Millis
    """Milliseconds since the epoch, as every time on this wire."""


class Told(OfCall):
    """An event of a call. `seq` grows with each, so that a client can resume where it stopped."""

    seq: int = Field(ge=1)
    """Place of this event among the call's events; goes into RESUME_CONVERSATION as `lastSeq`."""


# --- events of a call


class ConversationStarted(Told):
    """The call has started; its client is this socket."""

    agentId: str
    startTime: str
    """The same moment as `timestamp`, ISO 8601 in UTC."""
    resumeToken: str
    """Keep it: it lets another socket go on with this call."""
    mode: Mode
    language: Language
    warmupMs: Count
    """Time until the first tip."""
    intervalMs: Count


class TipOption(Outbound):
    """Something to say."""

    label: Label
    """`Minimal`: one sentence. `Explanative`: with the reason. `Contextual`: takes up what was said."""
    script: str = Field(max_length=SCRIPT_CHARS)
    id: str = LEFT_OUT
    """The playbook line it came from."""


class AiTip(Told):
    """A tip, for one socket: the one that speaks for the call."""

    recommendationId: str
    """Goes into OPTION_SELECTED."""
    stage: Stage
    heading: str = Field(max_length=HEADING_CHARS)
    """At most two words."""
    context: str
    """Why this, now."""
    options: list[TipOption] = Field(min_length=3, max_length=3)
    source: Source
    """Who made it: a model or the built-in coach."""
    degraded: bool
    """True: the built-in coach stood in for a model that failed, was late or had spent its money."""
    trigger: Trigger
    latencyMs: Count
    techniqueId: str = LEFT_OUT
    """The sales technique it rests on, a step of the method (/api/roleplay/techniques)."""
    phase: int = LEFT_OUT
    """Where the talk stands by the method."""
    attitude: str = LEFT_OUT
    """How the customer's last words stand to what was said (`H1` to `H9`)."""
    why: str = LEFT_OUT
    """The words of the call that caused it."""


class TipUpdated(AiTip):
    """The tip on screen, finished by the model: same `recommendationId`. For clients with `tipStreaming`."""


class TipChunk(Told):
    """A piece of the tip that is being written. Not replayed: TIP_UPDATED has the whole."""

    recommendationId: str
    option: int = Field(ge=1, le=3)
    delta: str
    """Text to append to the option's script."""


class OptionSelectedAck(Told):
    """A selection was kept."""

    recommendationId: str
    selectedOption: int = Field(ge=1, le=3)


class ModeWasSet(Told):
    """How the coach behaves from now on."""

    mode: Mode
    verbosity: Verbosity
    muted: bool


class Usage(Outbound):
    """What the model was used for during the call."""

    modelCalls: Count
    inputTokens: Count
    cachedTokens: Count
    outputTokens: Count
    costMicroUsd: Count
    """Millionths of a US dollar."""


class ConversationEnded(Told):
    """The call is over. No tip follows; ANALYSIS_READY does."""

    endTime: Millis
    status: EndStatus
    """`abandoned`: nobody came back to it."""
    durationMs: int
    tips: Count
    usage: Usage


class ConversationResumed(OfCall):
    """This socket speaks for the call now. Missed events follow, oldest first. It has no `seq` of its own."""

    recovered: bool
    """False: not everything that was missed can be told again."""
    state: CallState
    mode: Mode
    language: Language
    stage: Stage
    muted: bool
    verbosity: Verbosity
    lastSeq: Count
    """The `seq` of the call's newest event."""
    lastSequence: Count
    """Final pieces of transcript that the server has."""
    missed: Count
    """How many events follow."""


class Quote(Outbound):
    """A place in the call. `quote` is null where the call keeps no text."""

    quote: str | None
    speaker: Voice
    sequence: int
    atMs: Count
    """Since the start of the call."""


class StageEntry(Outbound):
    stage: Stage
    sequence: int
    atMs: Count


class StagesSeen(Outbound):
    reached: Stage
    """The furthest one."""
    last: Stage
    path: list[StageEntry]


class NextStep(Outbound):
    """What was agreed on. Without a proposal only `agreed` and `proposed` are there."""

    agreed: bool
    proposed: bool
    when: str | None = LEFT_OUT
    """The day and hour as said; null where the call keeps no text."""
    quote: str | None = LEFT_OUT
    speaker: Voice = LEFT_OUT
    sequence: int = LEFT_OUT
    atMs: Count = LEFT_OUT
    confirmation: Quote | None = LEFT_OUT


class Conduct(Outbound):
    """How the agent conducted the call."""

    talkShare: Share | None
    """The agent's part of all words."""
    agentWords: Count
    customerWords: Count
    longestMonologueWords: Count
    longestMonologueMs: Count
    wordsPerMinute: Count | None
    """Null where the times do not tell."""


class Glance(Outbound):
    """The analysis at a glance."""

    summary: str
    stage: StagesSeen
    insufficient: bool
    """True: too little was said to judge anything."""
    provisional: bool
    """True: a model should have reworded it and could not."""
    source: Source
    nextStep: NextStep | None
    """Null where the call's language has no rules to tell, or too little was said."""
    conduct: Conduct | None
    """Null where too little was said."""


class AnalysisReady(Told):
    """The analysis of an ended call is stored; all of it is at /api/conversations/{id}/analysis."""

    analysis: Glance


# --- events that belong to no call, or not only


class Pong(Outbound):
    """The answer to PING."""

    timestamp: Millis


class ServerDraining(Outbound):
    """This instance is going down. Connect again after the pause; calls go on where they were."""

    reconnectInMs: int = Field(ge=0, le=5000)


class TranscriptionStream(Outbound):
    sessionId: str
    timestamp: Millis


class TranscriptionStarted(TranscriptionStream):
    """Audio may be sent."""


class TranscriptionEnded(TranscriptionStream):
    """The stream is closed; nothing more comes for it."""


class TranscriptionResult(TranscriptionStream):
    """Words that were heard. A result that is not final is replaced by the next one."""

    text: str
    isFinal: bool
    speaker: Literal["agent", "caller", "unknown"]
    confidence: Share
    """0 where the vendor tells none."""


ErrorCode = Literal[
    "START_ERROR",
    "OPTION_SELECTION_ERROR",
    "CONTEXTUAL_TIP_ERROR",
    "ALTERNATIVE_TIP_ERROR",
    "CONVERSATION_END_ERROR",
    "SET_MODE_ERROR",
    "RESUME_ERROR",
    "SESSION_ERROR",
    "START_TRANSCRIPTION_ERROR",
    "AUDIO_CHUNK_ERROR",
    "END_TRANSCRIPTION_ERROR",
    "TRANSCRIPTION_ERROR",
    "INVALID_AUDIO_DATA",
    "INVALID_AUDIO_TYPE",
    "SERVICE_UNAVAILABLE",
    "RATE_LIMITED",
]


class ErrorTold(Outbound):
    """A request that asked for no ack was refused, or something failed by itself. Published clients show any
    ERROR as a lost connection, so a refused TRANSCRIPT is silent."""

    message: str
    """A sentence for people."""
    code: ErrorCode
    """Which step failed; SERVICE_UNAVAILABLE, INVALID_AUDIO_DATA, INVALID_AUDIO_TYPE and TRANSCRIPTION_ERROR
    say themselves what is the matter."""
    timestamp: Millis
    reason: str = LEFT_OUT
    """Why: the same codes as `code` of a refused ack."""
    field: str = LEFT_OUT
    """The field that is wrong."""
    retryAfterMs: Count = LEFT_OUT
    conversationId: str = LEFT_OUT
    sessionId: str = LEFT_OUT
    seq: int = Field(LEFT_OUT, ge=1)


EVENTS: dict[str, type[Outbound]] = {
    "CONVERSATION_STARTED": ConversationStarted,
    "AI_TIP": AiTip,
    "TIP_CHUNK": TipChunk,
    "TIP_UPDATED": TipUpdated,
    "OPTION_SELECTED_ACK": OptionSelectedAck,
    "MODE_SET": ModeWasSet,
    "CONVERSATION_RESUMED": ConversationResumed,
    "CONVERSATION_ENDED": ConversationEnded,
    "ANALYSIS_READY": AnalysisReady,
    "TRANSCRIPTION_STARTED": TranscriptionStarted,
    "TRANSCRIPTION_RESULT": TranscriptionResult,
    "TRANSCRIPTION_ENDED": TranscriptionEnded,
    "SERVER_DRAINING": ServerDraining,
    "ERROR": ErrorTold,
    "PONG": Pong,
}


# --- acks


class Refused(Outbound):
    """The ack of an event that was refused."""

    ok: Literal[False]
    code: str
    """INVALID, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, TOO_LARGE, RATE_LIMITED, SERVICE_UNAVAILABLE,
    STORAGE_FAILED or INTERNAL; for audio also the codes of ERROR."""
    message: str
    field: str = LEFT_OUT
    retryable: Literal[True] = LEFT_OUT
    """The same event may be sent again."""
    retryAfterMs: Count = LEFT_OUT


class Accepted(Outbound):
    """Done."""

    ok: Literal[True]


class StartAccepted(ConversationStarted, Accepted):
    """The payload of CONVERSATION_STARTED."""

    duplicate: Literal[True] = LEFT_OUT
    """This `idempotencyKey` had started the call before."""


class TranscriptAccepted(Accepted):
    """What is acknowledged with a `sequence` and `stored` is on disk."""

    stored: bool
    """False for a piece that is not final, and in a call that keeps no text."""
    sequence: int = Field(LEFT_OUT, ge=1)
    """Its place in the transcript."""
    duplicate: Literal[True] = LEFT_OUT
    """This `segmentId` was known already."""


class TipAccepted(Accepted):
    """The tip comes as AI_TIP."""

    turn: Count
    coalesced: bool
    """True: the tip for this turn was being made or shown already, so no second one is made."""


class EndAccepted(Accepted):
    alreadyEnded: bool


class ResumeAccepted(Accepted):
    recovered: bool
    missed: Count
    lastSeq: Count


class PingAccepted(Accepted):
    timestamp: Millis


class StreamAccepted(Accepted):
    sessionId: str
    timestamp: Millis


# --- answers of REST


class Health(Outbound):
    """Whether the process lives."""

    status: Literal["healthy", "draining"]
    timestamp: Millis
    activeConversations: Count
    """Live calls of this instance."""


class Ready(Outbound):
    """Whether new clients should come to this instance."""

    status: Literal["ready", "draining", "unavailable"]


class TokenAnswer(Outbound):
    """A user token."""

    token: str
    expiresAt: Millis


class ListedConversation(Outbound):
    conversationId: str
    agentId: str | None
    userId: str | None
    """Null for a call that was started with an API key alone."""
    teamId: str | None
    mode: Mode
    language: Language
    playbook: str | None
    status: Literal["active", "ended", "abandoned"]
    startedAt: Millis
    endedAt: Millis | None
    metadata: dict[str, Any]
    """As sent with START_CONVERSATION; empty for a call that keeps no text."""
    analysisStatus: Literal["none", "pending", "done", "failed"]


class ConversationPage(Outbound):
    """Newest first."""

    conversations: list[ListedConversation]
    nextCursor: str | None
    """Goes into `cursor` for the page after this one; null on the last page."""


class ConversationDetail(ListedConversation):
    storeTranscript: bool
    consent: dict[str, Any] | None
    segments: Count
    lastSeq: Count
    usage: Usage


class StoredSegment(Outbound):
    sequence: int
    segmentId: str | None
    speaker: Voice
    text: str
    timestamp: Millis
    confidence: float | None


class TranscriptAnswer(Outbound):
    """What was said, in the order it was heard."""

    conversationId: str
    segments: list[StoredSegment]


class StoredOption(Outbound):
    id: str | None
    label: Label
    script: str


class StoredTip(Outbound):
    recommendationId: str
    stage: Stage
    heading: str
    context: str
    options: list[StoredOption]
    source: Source
    degraded: bool
    trigger: Trigger
    techniqueId: str | None
    why: str | None
    latencyMs: Count
    timestamp: Millis
    selectedOption: int | None
    selectedAt: Millis | None


class TipsAnswer(Outbound):
    """The tips of a call, in the order they were shown."""

    conversationId: str
    tips: list[StoredTip]


class ObjectionMet(Quote):
    """An objection of the customer, and what the agent did with it."""

    kind: Objection
    met: Met
    aftermath: Aftermath
    response: Quote | None
    betterLine: str | None
    """A line to try next time; null where it was met well."""


class SignalSeen(Quote):
    kind: Signal
    takenUp: bool | None
    """Null where there is nothing to take up."""


class QuestionsAsked(Outbound):
    open: Count
    closed: Count
    openShare: Share | None


class TipOutcome(Outbound):
    """What became of one tip."""

    recommendationId: str
    atMs: Count
    trigger: Trigger
    stage: Stage
    techniqueId: str | None
    source: Source
    latencyMs: Count
    fate: Fate
    clicked: bool
    option: int | None
    """The one that was clicked, else the one nearest to what was said."""
    label: Label | None
    lineId: str | None
    similarity: Share
    """Between the option's script and what was said."""
    heading: str | None
    suggested: str | None
    said: Quote | None
    reaction: Reaction
    answer: Quote | None
    stageBefore: Stage
    stageAfter: Stage
    moved: int
    """Stages forward; negative for back."""


class TipsLedger(Outbound):
    shown: Count
    taken: Count
    ignored: Count
    unanswered: Count
    ledger: list[TipOutcome]


class Strength(Outbound):
    id: str
    text: str
    evidence: list[Quote]


class Improvement(Strength):
    advice: str
    betterLine: str | None


class AnalysisAnswer(Glance):
    """The whole analysis of an ended call."""

    conversationId: str
    language: str
    wordingLanguage: str
    """Language of the sentences in it; English where the call's has no wording."""
    version: int
    status: EndStatus
    startedAt: Millis
    endedAt: Millis
    durationMs: Count
    utterances: Count
    facts: dict[str, str]
    """What the customer told."""
    objections: list[ObjectionMet]
    signals: list[SignalSeen]
    questions: QuestionsAsked | None
    tips: TipsLedger
    strengths: list[Strength]
    improvements: list[Improvement]


Counts = Annotated[dict[str, Count], Field(description="Rows of each table; what had none is left out.")]


class ErasureReceipt(Outbound):
    """What was erased. It holds nothing about whose it was."""

    receiptId: str
    at: Millis
    counts: Counts


class Sweep(Outbound):
    kind: Literal["transcripts"]
    at: Millis
    before: Millis
    """What ended before this moment lost its words."""
    counts: Counts


class SweepsAnswer(Outbound):
    """The evidence that old words were deleted, newest first."""

    retentionDays: Count
    """0: nothing is deleted by age."""
    sweeps: list[Sweep]


class GenerateAnswer(Outbound):
    success: Literal[True]
    data: str
    """For `sales-coach` a JSON text `{"responses": [three lines], "context": text}`; for `skeptical-customer`
    what the customer would answer."""
    timestamp: Millis


class ReportAnswer(Outbound):
    success: Literal[True]
    messageId: str


class SpeechTokenAnswer(Outbound):
    token: str
    expiresIn: Count
    """Seconds."""
    createdAt: str


class TranscribeStarted(Outbound):
    success: Literal[True]
    sessionId: str
    message: str


class TranscribeTaken(Outbound):
    success: Literal[True]
    message: str
    results: list[TranscriptionResult]
    """What was heard since the last answer."""


class TranscribeEnded(Outbound):
    success: Literal[True]
    sessionId: str
    results: list[TranscriptionResult]


class ErrorAnswer(Outbound):
    """A refused request."""

    success: Literal[False]
    error: str
    """The same sentence as `message`."""
    code: str
    message: str
    field: str = LEFT_OUT
    retryAfter: int = Field(LEFT_OUT, ge=1)
    """Seconds; also in the header Retry-After."""


class PhrasedErrorAnswer(Outbound):
    """A refused request to a route whose clients read `error` as the status in words."""

    error: str
    message: str
    code: str
    field: str = LEFT_OUT
