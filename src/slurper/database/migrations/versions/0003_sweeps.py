"""Aborted jobs whose uploads are still to be removed from the target."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UNSWEPT = sa.text("sweeps_failed IS NOT NULL")


def upgrade() -> None:
    """Add the column; jobs aborted by earlier versions are left as they are."""
    op.add_column(
        "jobs",
        sa.Column(
            "sweeps_failed",
            sa.BigInteger(),
            sa.CheckConstraint(
                "sweeps_failed IS NULL OR (status = 'aborted' AND sealed IS NOT NULL)",
                name=op.f("ck_jobs_swept_with_secrets"),
            ),
        ),
    )
    op.create_index(
        "ix_jobs_unswept", "jobs", ["number"], sqlite_where=_UNSWEPT, postgresql_where=_UNSWEPT
    )


def downgrade() -> None:
    """Take it away again."""
    op.drop_index("ix_jobs_unswept", "jobs")
    op.drop_column("jobs", "sweeps_failed")
