"""Every table of the server, in one page. SQLite and PostgreSQL alike; `migrations/` builds the same.

Times are float seconds since the epoch in Python and integer milliseconds in the tables (`Moment`).
Whatever belongs to one conversation is deleted with it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql, sqlite


class Moment(TypeDecorator[float]):
    """Seconds since the epoch, kept as whole milliseconds: exact to compare, alike on both engines."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> int | None:
        return None if value is None else round(value * 1000)

    def process_result_value(self, value: int | None, dialect: Dialect) -> float | None:
        return None if value is None else value / 1000


# A sequence of its own on PostgreSQL, the rowid on SQLite (which wants the word INTEGER for that).
RowId = BigInteger().with_variant(Integer, "sqlite")
Document = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _of_conversation(**options: Any) -> Column[str]:
    return Column(
        "conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False, **options
    )


# `user_id` is "" when an API key speaks for nobody in particular: NULLs would not be equal in the unique
# constraint, and an idempotency key must hold for such a caller too.
conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("user_id", Text, nullable=False, default=""),
    Column("team_id", Text),
    Column("agent_id", Text),
    Column("mode", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("playbook", Text),
    Column("status", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("last_seen_at", Moment, nullable=False),
    Column("resume_digest", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("metadata", Document, nullable=False),
    Column("consent", Document),
    Column("store_transcript", Boolean, nullable=False),
    Column("state", Document, nullable=False),
    Column("state_sequence", Integer, nullable=False),
    Column("last_seq", Integer, nullable=False),
    Column("last_sequence", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", Moment),
    Column("usage", Document, nullable=False),
    Column("analysis_status", Text, nullable=False),
    Column("words_deleted_at", Moment),
    CheckConstraint("status IN ('active', 'ended', 'abandoned')", name="status"),
    CheckConstraint("analysis_status IN ('none', 'pending', 'done', 'failed')", name="analysis_status"),
    UniqueConstraint("principal", "user_id", "idempotency_key"),
    Index(None, "started_at", "id"),
    Index(None, "principal", "started_at"),
    Index(None, "user_id", "started_at"),
    Index(None, "team_id", "started_at"),
    Index(None, "status", "last_seen_at"),
    Index(None, "analysis_status"),
)

utterances = Table(
    "utterances",
    metadata,
    _of_conversation(primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("segment_id", Text, nullable=False),
    Column("speaker", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("said_at", Moment, nullable=False),
    Column("heard_at", Moment, nullable=False),
    Column("confidence", Float),
    UniqueConstraint("conversation_id", "segment_id"),
    Index(None, "heard_at"),
)

call_events = Table(
    "call_events",
    metadata,
    _of_conversation(primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("payload", Document, nullable=False),
    Column("at", Moment, nullable=False),
)

tips = Table(
    "tips",
    metadata,
    Column("recommendation_id", Text, primary_key=True),
    _of_conversation(),
    Column("seq", Integer, nullable=False),
    Column("stage", Text, nullable=False),
    Column("heading", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("options", Document, nullable=False),
    Column("source", Text, nullable=False),
    Column("degraded", Boolean, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("technique_id", Text),
    Column("why", Text),
    Column("latency_ms", Integer, nullable=False),
    Column("heard_sequence", Integer, nullable=False),
    Column("shown_at", Moment, nullable=False),
    Column("selected_option", Integer),
    Column("selected_at", Moment),
    Column("model", Text),
    Index(None, "conversation_id", "seq"),
)

# What became of each tip, to learn which lines work.
tip_outcomes = Table(
    "tip_outcomes",
    metadata,
    Column("recommendation_id", Text, primary_key=True),
    _of_conversation(),
    Column("line_id", Text),
    Column("technique_id", Text),
    Column("taken", Boolean, nullable=False),
    Column("similarity", Float),
    Column("reaction", Text),
    Column("stage_before", Text),
    Column("stage_after", Text),
    Index(None, "conversation_id"),
    Index(None, "line_id"),
)

analyses = Table(
    "analyses",
    metadata,
    _of_conversation(primary_key=True),
    Column("document", Document, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("payload", Document, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("run_at", Moment, nullable=False),
    Column("owner", Text),
    Column("lease_until", Moment),
    Column("error_code", Text),
    Column("created_at", Moment, nullable=False),
    Column("finished_at", Moment),
    CheckConstraint("status IN ('queued', 'running', 'done', 'dead')", name="status"),
    Index(None, "status", "run_at"),
)

clockwork = Table(
    "clockwork",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text),
    Column("lease_until", Moment),
    Column("last_run_at", Moment),
)

daily_costs = Table(
    "daily_costs",
    metadata,
    Column("day", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("micro_usd", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
)

# Evidence that what is too old was deleted (trust.md G27).
sweeps = Table(
    "sweeps",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("before", Moment, nullable=False),
    Column("counts", Document, nullable=False),
)

# Receipts of erasures: that something was erased and how much, and nothing of what or whose (G28).
erasures = Table(
    "erasures",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("digest", Text, nullable=False),
    Column("counts", Document, nullable=False),
    CheckConstraint("kind IN ('user', 'conversation')", name="kind"),
)


# --- practising (seed 000). What a user practised is kept under the API key and the user's id, which is any
# text the client calls a user by.

users = Table(
    "users",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("team_id", Text),
    Column("store_transcripts", Boolean, nullable=False),
    Column("feedback_email", Text),
    Column("consent", Document),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Index(None, "team_id"),
)

scenarios = Table(
    "scenarios",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("methodology", Text, nullable=False),
    Column("document", Document, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
)


def _of_session(**options: Any) -> Column[str]:
    return Column(
        "session_id", Text, ForeignKey("roleplay_sessions.id", ondelete="CASCADE"), nullable=False, **options
    )


roleplay_sessions = Table(
    "roleplay_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("team_id", Text),
    Column("kind", Text, nullable=False),
    Column("scenario_id", Text, nullable=False),
    Column("drill_id", Text),
    Column("methodology", Text, nullable=False),
    Column("methodology_version", Integer, nullable=False),
    Column("language", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("current_phase_id", Integer, nullable=False),
    Column("current_step_id", Text, nullable=False),
    Column("avatar_provider", Text, nullable=False),
    Column("heygen_session_id", Text),
    Column("heygen_access_token", Text),
    Column("avatar_expires_at", Moment),
    Column("avatar_stopped_at", Moment),
    Column("started_at", Moment, nullable=False),
    Column("completed_at", Moment),
    Column("last_seen_at", Moment, nullable=False),
    Column("duration_seconds", Integer),
    Column("overall_score", Integer),
    Column("state", Document, nullable=False),
    Column("last_sequence", Integer, nullable=False),
    Column("store_transcript", Boolean, nullable=False),
    Column("consent", Document),
    Column("usage", Document, nullable=False),
    Column("analysis_status", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("words_deleted_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    CheckConstraint("kind IN ('practice', 'drill')", name="kind"),
    CheckConstraint("status IN ('idle', 'recording', 'completed', 'abandoned')", name="status"),
    CheckConstraint("analysis_status IN ('none', 'pending', 'done', 'failed')", name="analysis_status"),
    CheckConstraint("overall_score BETWEEN 0 AND 100", name="overall_score"),
    UniqueConstraint("principal", "user_id", "idempotency_key"),
    Index(None, "principal", "user_id", "created_at"),
    Index(None, "team_id", "created_at"),
    Index(None, "status", "last_seen_at"),
    Index(None, "completed_at"),
)

roleplay_step_progress = Table(
    "roleplay_step_progress",
    metadata,
    _of_session(primary_key=True),
    Column("step_id", Text, primary_key=True),
    Column("phase_id", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("manual", Boolean, nullable=False),
    Column("started_at", Moment),
    Column("completed_at", Moment),
    Column("duration_seconds", Integer),
    Column("technique_score", Integer),
    Column("technique_used", Boolean, nullable=False),
    Column("feedback", Text),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("status IN ('completed', 'current', 'upcoming', 'locked')", name="status"),
    CheckConstraint("technique_score BETWEEN 0 AND 100", name="technique_score"),
)

roleplay_transcripts = Table(
    "roleplay_transcripts",
    metadata,
    _of_session(primary_key=True),
    Column("sequence_number", Integer, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("message_id", Text, nullable=False),
    Column("speaker", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("timestamp", Moment, nullable=False),
    Column("reading", Document, nullable=False),
    Column("duration_ms", Integer),
    Column("confidence", Float),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("speaker IN ('user', 'hugo')", name="speaker"),
    UniqueConstraint("session_id", "message_id"),
)

roleplay_feedback = Table(
    "roleplay_feedback",
    metadata,
    _of_session(primary_key=True),
    Column("overall_score", Integer),
    Column("sub_scores", Document, nullable=False),
    Column("techniques_used", Document, nullable=False),
    Column("technique_scores", Document, nullable=False),
    Column("next_step_suggestion", Text),
    Column("delta", Integer),
    Column("document", Document, nullable=False),
    Column("method", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("judgement", Document),
    Column("provisional", Boolean, nullable=False),
    Column("openai_model", Text),
    Column("openai_tokens_used", Integer, nullable=False),
    Column("analysis_duration_ms", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("overall_score BETWEEN 0 AND 100", name="overall_score"),
    Index(None, "content_hash"),
)

# The same score card of a live call.
call_feedback = Table(
    "call_feedback",
    metadata,
    _of_conversation(primary_key=True),
    Column("overall_score", Integer),
    Column("sub_scores", Document, nullable=False),
    Column("technique_scores", Document, nullable=False),
    Column("document", Document, nullable=False),
    Column("method", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("overall_score BETWEEN 0 AND 100", name="overall_score"),
)

user_progress = Table(
    "user_progress",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("methodology", Text, primary_key=True),
    Column("current_phase_id", Integer, nullable=False),
    Column("current_step_id", Text, nullable=False),
    Column("unlocked_phases", Document, nullable=False),
    Column("unlocked_steps", Document, nullable=False),
    Column("total_sessions", Integer, nullable=False),
    Column("average_score", Float),
    Column("best_score", Integer),
    Column("total_duration_seconds", Integer, nullable=False),
    Column("step_stats", Document, nullable=False),
    Column("last_session_at", Moment),
    Column("updated_at", Moment, nullable=False),
)

# A lost moment to play again. `source_id` names the session or the call it comes from.
drills = Table(
    "drills",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("source_kind", Text, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("methodology", Text, nullable=False),
    Column("moment", Text, nullable=False),
    Column("technique_id", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("document", Document, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("best_quality", Text),
    Column("created_at", Moment, nullable=False),
    Column("closed_at", Moment),
    CheckConstraint("source_kind IN ('roleplay', 'call')", name="source_kind"),
    CheckConstraint("status IN ('open', 'closed')", name="status"),
    UniqueConstraint("source_kind", "source_id", "number"),
    Index(None, "principal", "user_id", "created_at"),
)


# --- simulations (seed 001). A trainee is a user of the API key. Times within a session are float seconds
# since its beginning, as in its files.


def _of_simulation(**options: Any) -> Column[str]:
    return Column(
        "session_id", Text, ForeignKey("simulations.id", ondelete="CASCADE"), nullable=False, **options
    )


# Which number the next session of a prefix gets.
counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

simulations = Table(
    "simulations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("trainee_id", Text, nullable=False),
    Column("team_id", Text),
    Column("scenario_id", Text, nullable=False),
    Column("persona_id", Text, nullable=False),
    Column("persona_name", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("outcome", Text),
    Column("end_trigger", Text),
    Column("client", Text),
    Column("metadata", Document, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("last_seen_at", Moment, nullable=False),
    Column("duration_ms", BigInteger),
    Column("exchanges", Integer, nullable=False),
    Column("final_attitude", Integer),
    Column("overall_score", Integer),
    Column("state", Document, nullable=False),
    Column("ticket_digest", Text),
    Column("owner", Text),
    Column("lease_until", Moment),
    Column("store_transcript", Boolean, nullable=False),
    Column("usage", Document, nullable=False),
    Column("analysis_status", Text, nullable=False),
    Column("data_files_written", Boolean, nullable=False),
    Column("words_deleted_at", Moment),
    Column("updated_at", Moment, nullable=False),
    CheckConstraint("status IN ('created', 'active', 'ended')", name="status"),
    CheckConstraint("outcome IN ('converted', 'rejected', 'walked_away', 'compliance_fail')", name="outcome"),
    CheckConstraint("analysis_status IN ('none', 'pending', 'done', 'failed')", name="analysis_status"),
    CheckConstraint("overall_score BETWEEN 0 AND 100", name="overall_score"),
    CheckConstraint("final_attitude BETWEEN 0 AND 10", name="final_attitude"),
    Index(None, "principal", "created_at"),
    Index(None, "principal", "trainee_id", "created_at"),
    Index(None, "team_id", "created_at"),
    Index(None, "status", "last_seen_at"),
)

simulation_utterances = Table(
    "simulation_utterances",
    metadata,
    _of_simulation(primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("start_s", Float, nullable=False),
    Column("end_s", Float, nullable=False),
    Column("item_id", Text, nullable=False),
    CheckConstraint("role IN ('AVATAR', 'TRAINEE')", name="role"),
)

simulation_events = Table(
    "simulation_events",
    metadata,
    _of_simulation(primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("event_id", Text),
    Column("time_s", Float, nullable=False),
    Column("type", Text, nullable=False),
    Column("data", Document, nullable=False),
    UniqueConstraint("session_id", "event_id"),
)

simulation_moods = Table(
    "simulation_moods",
    metadata,
    _of_simulation(primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("time_s", Float, nullable=False),
    Column("value", Float, nullable=False),
    Column("direction", Text, nullable=False),
)

simulation_scores = Table(
    "simulation_scores",
    metadata,
    _of_simulation(primary_key=True),
    Column("overall_score", Integer),
    Column("categories", Document, nullable=False),
    Column("document", Document, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("judgement", Document),
    Column("provisional", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("overall_score BETWEEN 0 AND 100", name="overall_score"),
    Index(None, "content_hash"),
)

simulation_exports = Table(
    "simulation_exports",
    metadata,
    Column("id", Text, primary_key=True),
    _of_simulation(),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error_code", Text),
    Column("created_at", Moment, nullable=False),
    Column("sent_at", Moment),
    CheckConstraint("status IN ('pending', 'sent', 'failed')", name="status"),
    Index(None, "session_id", "created_at"),
)

# Personas and scenarios made by API, under their API key; those of the catalog are files.
simulation_personas = Table(
    "simulation_personas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("document", Document, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
)

simulation_scenarios = Table(
    "simulation_scenarios",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("document", Document, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
)


def insert_into(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say ON CONFLICT, in the words of this engine."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
