"""What jobs leave behind is found by index, and removed: listed, ended, sealed, uncleared jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_jobs_listed", ("account_id", "number", "deleted_at"), "deleted_at IS NULL"),
    ("ix_jobs_ended", ("finished_at",), "deleted_at IS NULL"),
    ("ix_jobs_sealed", ("finished_at",), "sealed IS NOT NULL"),
    ("ix_jobs_uncleared", ("finished_at",), "cleared_at IS NULL"),
)


def upgrade() -> None:
    """Add the column and the indexes. What earlier jobs have left is then cleared too."""
    op.add_column(
        "jobs",
        sa.Column(
            "cleared_at",
            sa.DateTime(timezone=True),
            sa.CheckConstraint(
                "cleared_at IS NULL OR finished_at IS NOT NULL",
                name=op.f("ck_jobs_cleared_when_final"),
            ),
        ),
    )
    for name, columns, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, "jobs", list(columns), sqlite_where=where, postgresql_where=where)
    op.drop_index("ix_jobs_account_id_number", "jobs")


def downgrade() -> None:
    """Take them away again. What was cleared is not needed."""
    op.create_index("ix_jobs_account_id_number", "jobs", ["account_id", "number"])
    for name, *_ in _INDEXES:
        op.drop_index(name, "jobs")
    op.drop_column("jobs", "cleared_at")
