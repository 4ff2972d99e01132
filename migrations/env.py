"""Alembic's entry: run by `coach_server.storage.migrate`, which brings the connection and its transaction."""

from __future__ import annotations

from alembic import context

from coach_server.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
