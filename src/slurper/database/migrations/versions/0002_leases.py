"""Leases; jobs that retry another's failures; jobs that are deleted bit by bit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_UNREADY = sa.text("retry_position IS NOT NULL")
_DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    """Add the table and the columns."""
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(255)),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", _TIME),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
        sa.CheckConstraint(
            "(holder IS NULL) = (expires_at IS NULL)", name=op.f("ck_leases_held_for_a_time")
        ),
    )
    # Each check comes with its column. To add one to an existing table SQLite would have to build
    # the table anew, and dropping the old one would delete every row that refers to it.
    op.add_column("jobs", sa.Column("retry_of", sa.String(64)))
    op.add_column(
        "jobs",
        sa.Column(
            "retry_position",
            sa.BigInteger(),
            sa.CheckConstraint(
                "retry_position IS NULL OR (retry_of IS NOT NULL AND has_keys)",
                name=op.f("ck_jobs_retry_has_keys"),
            ),
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "deleted_at",
            _TIME,
            sa.CheckConstraint(
                "deleted_at IS NULL OR finished_at IS NOT NULL",
                name=op.f("ck_jobs_deleted_when_final"),
            ),
        ),
    )
    op.create_index(
        "ix_jobs_unready", "jobs", ["retry_of"], sqlite_where=_UNREADY, postgresql_where=_UNREADY
    )
    op.create_index(
        "ix_jobs_deleted", "jobs", ["number"], sqlite_where=_DELETED, postgresql_where=_DELETED
    )


def downgrade() -> None:
    """Take them away again; jobs that were being deleted come back."""
    op.drop_index("ix_jobs_deleted", "jobs")
    op.drop_index("ix_jobs_unready", "jobs")
    for column in ("deleted_at", "retry_position", "retry_of"):
        op.drop_column("jobs", column)
    op.drop_table("leases")
