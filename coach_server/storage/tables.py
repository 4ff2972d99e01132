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


def insert_into(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say ON CONFLICT, in the words of this engine."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
