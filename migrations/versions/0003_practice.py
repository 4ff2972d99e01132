"""Practising: users, scenarios, sessions, transcripts, feedback, progress, drills

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=True),
        sa.Column("store_transcripts", sa.Boolean(), nullable=False),
        sa.Column("feedback_email", sa.Text(), nullable=True),
        sa.Column("consent", DOCUMENT, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "user_id", name=op.f("pk_users")),
    )
    op.create_index(op.f("ix_users_team_id"), "users", ["team_id"])
    op.create_table(
        "scenarios",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("methodology", sa.Text(), nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "principal", name=op.f("pk_scenarios")),
    )
    op.create_table(
        "roleplay_sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("scenario_id", sa.Text(), nullable=False),
        sa.Column("drill_id", sa.Text(), nullable=True),
        sa.Column("methodology", sa.Text(), nullable=False),
        sa.Column("methodology_version", sa.Integer(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("current_phase_id", sa.Integer(), nullable=False),
        sa.Column("current_step_id", sa.Text(), nullable=False),
        sa.Column("avatar_provider", sa.Text(), nullable=False),
        sa.Column("heygen_session_id", sa.Text(), nullable=True),
        sa.Column("heygen_access_token", sa.Text(), nullable=True),
        sa.Column("avatar_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("avatar_stopped_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("duration_seconds", sa.Integer(), nullable=True),
        sa.Column("overall_score", sa.Integer(), nullable=True),
        sa.Column("state", DOCUMENT, nullable=False),
        sa.Column("last_sequence", sa.Integer(), nullable=False),
        sa.Column("store_transcript", sa.Boolean(), nullable=False),
        sa.Column("consent", DOCUMENT, nullable=True),
        sa.Column("usage", DOCUMENT, nullable=False),
        sa.Column("analysis_status", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("words_deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "analysis_status IN ('none', 'pending', 'done', 'failed')",
            name=op.f("ck_roleplay_sessions_analysis_status"),
        ),
        sa.CheckConstraint(
            "overall_score BETWEEN 0 AND 100", name=op.f("ck_roleplay_sessions_overall_score")
        ),
        sa.CheckConstraint(
            "status IN ('idle', 'recording', 'completed', 'abandoned')",
            name=op.f("ck_roleplay_sessions_status"),
        ),
        sa.CheckConstraint("kind IN ('practice', 'drill')", name=op.f("ck_roleplay_sessions_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roleplay_sessions")),
        sa.UniqueConstraint(
            "principal",
            "user_id",
            "idempotency_key",
            name=op.f("uq_roleplay_sessions_principal_user_id_idempotency_key"),
        ),
    )
    op.create_index(op.f("ix_roleplay_sessions_completed_at"), "roleplay_sessions", ["completed_at"])
    op.create_index(
        op.f("ix_roleplay_sessions_principal_user_id_created_at"),
        "roleplay_sessions",
        ["principal", "user_id", "created_at"],
    )
    op.create_index(
        op.f("ix_roleplay_sessions_status_last_seen_at"), "roleplay_sessions", ["status", "last_seen_at"]
    )
    op.create_index(
        op.f("ix_roleplay_sessions_team_id_created_at"), "roleplay_sessions", ["team_id", "created_at"]
    )
    op.create_table(
        "roleplay_step_progress",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("phase_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("manual", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("duration_seconds", sa.Integer(), nullable=True),
        sa.Column("technique_score", sa.Integer(), nullable=True),
        sa.Column("technique_used", sa.Boolean(), nullable=False),
        sa.Column("feedback", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status IN ('completed', 'current', 'upcoming', 'locked')",
            name=op.f("ck_roleplay_step_progress_status"),
        ),
        sa.CheckConstraint(
            "technique_score BETWEEN 0 AND 100", name=op.f("ck_roleplay_step_progress_technique_score")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["roleplay_sessions.id"],
            name=op.f("fk_roleplay_step_progress_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "step_id", name=op.f("pk_roleplay_step_progress")),
    )
    op.create_table(
        "roleplay_transcripts",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("sequence_number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("speaker", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("reading", DOCUMENT, nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("speaker IN ('user', 'hugo')", name=op.f("ck_roleplay_transcripts_speaker")),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["roleplay_sessions.id"],
            name=op.f("fk_roleplay_transcripts_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "sequence_number", name=op.f("pk_roleplay_transcripts")),
        sa.UniqueConstraint(
            "session_id", "message_id", name=op.f("uq_roleplay_transcripts_session_id_message_id")
        ),
        sa.UniqueConstraint("id", name=op.f("uq_roleplay_transcripts_id")),
    )
    op.create_table(
        "roleplay_feedback",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("overall_score", sa.Integer(), nullable=True),
        sa.Column("sub_scores", DOCUMENT, nullable=False),
        sa.Column("techniques_used", DOCUMENT, nullable=False),
        sa.Column("technique_scores", DOCUMENT, nullable=False),
        sa.Column("next_step_suggestion", sa.Text(), nullable=True),
        sa.Column("delta", sa.Integer(), nullable=True),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("judgement", DOCUMENT, nullable=True),
        sa.Column("provisional", sa.Boolean(), nullable=False),
        sa.Column("openai_model", sa.Text(), nullable=True),
        sa.Column("openai_tokens_used", sa.Integer(), nullable=False),
        sa.Column("analysis_duration_ms", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "overall_score BETWEEN 0 AND 100", name=op.f("ck_roleplay_feedback_overall_score")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["roleplay_sessions.id"],
            name=op.f("fk_roleplay_feedback_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_roleplay_feedback")),
    )
    op.create_index(op.f("ix_roleplay_feedback_content_hash"), "roleplay_feedback", ["content_hash"])
    op.create_table(
        "call_feedback",
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("overall_score", sa.Integer(), nullable=True),
        sa.Column("sub_scores", DOCUMENT, nullable=False),
        sa.Column("technique_scores", DOCUMENT, nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("overall_score BETWEEN 0 AND 100", name=op.f("ck_call_feedback_overall_score")),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_call_feedback_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("conversation_id", name=op.f("pk_call_feedback")),
    )
    op.create_table(
        "user_progress",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("methodology", sa.Text(), nullable=False),
        sa.Column("current_phase_id", sa.Integer(), nullable=False),
        sa.Column("current_step_id", sa.Text(), nullable=False),
        sa.Column("unlocked_phases", DOCUMENT, nullable=False),
        sa.Column("unlocked_steps", DOCUMENT, nullable=False),
        sa.Column("total_sessions", sa.Integer(), nullable=False),
        sa.Column("average_score", sa.Float(), nullable=True),
        sa.Column("best_score", sa.Integer(), nullable=True),
        sa.Column("total_duration_seconds", sa.Integer(), nullable=False),
        sa.Column("step_stats", DOCUMENT, nullable=False),
        sa.Column("last_session_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "user_id", "methodology", name=op.f("pk_user_progress")),
    )
    op.create_table(
        "drills",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("source_kind", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("methodology", sa.Text(), nullable=False),
        sa.Column("moment", sa.Text(), nullable=False),
        sa.Column("technique_id", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("best_quality", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("status IN ('open', 'closed')", name=op.f("ck_drills_status")),
        sa.CheckConstraint("source_kind IN ('roleplay', 'call')", name=op.f("ck_drills_source_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drills")),
        sa.UniqueConstraint(
            "source_kind", "source_id", "number", name=op.f("uq_drills_source_kind_source_id_number")
        ),
    )
    op.create_index(
        op.f("ix_drills_principal_user_id_created_at"), "drills", ["principal", "user_id", "created_at"]
    )


def downgrade() -> None:
    op.drop_table("drills")
    op.drop_table("user_progress")
    op.drop_table("call_feedback")
    op.drop_table("roleplay_feedback")
    op.drop_table("roleplay_transcripts")
    op.drop_table("roleplay_step_progress")
    op.drop_table("roleplay_sessions")
    op.drop_table("scenarios")
    op.drop_table("users")
