"""Alembic runs this file for every command; `migrations.configure` hands it the connection."""

from __future__ import annotations

from alembic import context

from slurper.database import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    compare_server_default=True,
    # SQLite can roll DDL back; Alembic assumes it cannot, for drivers that commit behind its back.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
