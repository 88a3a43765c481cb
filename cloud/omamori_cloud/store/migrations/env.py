"""Alembic's entry point: runs the steps on the connection, and in the transaction, that `migrate` opened."""

from __future__ import annotations

from alembic import context

from omamori_cloud.store.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    transactional_ddl=True,
)
context.run_migrations()
