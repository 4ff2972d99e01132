"""Simulations: sessions, utterances, events, moods, scores, exports, personas, scenarios

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "simulations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("trainee_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=True),
        sa.Column("scenario_id", sa.Text(), nullable=False),
        sa.Column("persona_id", sa.Text(), nullable=False),
        sa.Column("persona_name", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("end_trigger", sa.Text(), nullable=True),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("exchanges", sa.Integer(), nullable=False),
        sa.Column("final_attitude", sa.Integer(), nullable=True),
        sa.Column("overall_score", sa.Integer(), nullable=True),
        sa.Column("state", DOCUMENT, nullable=False),
        sa.Column("ticket_digest", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("store_transcript", sa.Boolean(), nullable=False),
        sa.Column("usage", DOCUMENT, nullable=False),
        sa.Column("analysis_status", sa.Text(), nullable=False),
        sa.Column("data_files_written", sa.Boolean(), nullable=False),
        sa.Column("words_deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("final_attitude BETWEEN 0 AND 10", name=op.f("ck_simulations_final_attitude")),
        sa.CheckConstraint(
            "outcome IN ('converted', 'rejected', 'walked_away', 'compliance_fail')",
            name=op.f("ck_simulations_outcome"),
        ),
        sa.CheckConstraint("status IN ('created', 'active', 'ended')", name=op.f("ck_simulations_status")),
        sa.CheckConstraint(
            "analysis_status IN ('none', 'pending', 'done', 'failed')",
            name=op.f("ck_simulations_analysis_status"),
        ),
        sa.CheckConstraint("overall_score BETWEEN 0 AND 100", name=op.f("ck_simulations_overall_score")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_simulations")),
    )
    op.create_index(op.f("ix_simulations_principal_created_at"), "simulations", ["principal", "created_at"])
    op.create_index(
        op.f("ix_simulations_principal_trainee_id_created_at"),
        "simulations",
        ["principal", "trainee_id", "created_at"],
    )
    op.create_index(op.f("ix_simulations_status_last_seen_at"), "simulations", ["status", "last_seen_at"])
    op.create_index(op.f("ix_simulations_team_id_created_at"), "simulations", ["team_id", "created_at"])
    op.create_table(
        "simulation_utterances",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("start_s", sa.Float(), nullable=False),
        sa.Column("end_s", sa.Float(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.CheckConstraint("role IN ('AVATAR', 'TRAINEE')", name=op.f("ck_simulation_utterances_role")),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["simulations.id"],
            name=op.f("fk_simulation_utterances_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "sequence", name=op.f("pk_simulation_utterances")),
    )
    op.create_table(
        "simulation_events",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["simulations.id"],
            name=op.f("fk_simulation_events_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "sequence", name=op.f("pk_simulation_events")),
        sa.UniqueConstraint("session_id", "event_id", name=op.f("uq_simulation_events_session_id_event_id")),
    )
    op.create_table(
        "simulation_moods",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["simulations.id"],
            name=op.f("fk_simulation_moods_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "sequence", name=op.f("pk_simulation_moods")),
    )
    op.create_table(
        "simulation_scores",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("overall_score", sa.Integer(), nullable=True),
        sa.Column("categories", DOCUMENT, nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("judgement", DOCUMENT, nullable=True),
        sa.Column("provisional", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "overall_score BETWEEN 0 AND 100", name=op.f("ck_simulation_scores_overall_score")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["simulations.id"],
            name=op.f("fk_simulation_scores_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_simulation_scores")),
    )
    op.create_index(op.f("ix_simulation_scores_content_hash"), "simulation_scores", ["content_hash"])
    op.create_table(
        "simulation_exports",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'sent', 'failed')", name=op.f("ck_simulation_exports_status")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["simulations.id"],
            name=op.f("fk_simulation_exports_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_simulation_exports")),
    )
    op.create_index(
        op.f("ix_simulation_exports_session_id_created_at"),
        "simulation_exports",
        ["session_id", "created_at"],
    )
    op.create_table(
        "simulation_personas",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "principal", name=op.f("pk_simulation_personas")),
    )
    op.create_table(
        "simulation_scenarios",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "principal", name=op.f("pk_simulation_scenarios")),
    )


def downgrade() -> None:
    op.drop_table("simulation_scenarios")
    op.drop_table("simulation_personas")
    op.drop_table("simulation_exports")
    op.drop_table("simulation_scores")
    op.drop_table("simulation_moods")
    op.drop_table("simulation_events")
    op.drop_table("simulation_utterances")
    op.drop_table("simulations")
    op.drop_table("counters")
