"""What requests that made a job were answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "answers",
        sa.Column("account_id", sa.String(255), nullable=False),
        sa.Column("name", sa.LargeBinary(32), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("answered_at", _TIME, nullable=False),
        sa.Column("kept_until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_answers")),
        sa.CheckConstraint("retries >= 0", name=op.f("ck_answers_counts_not_negative")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_answers_kept_until", "answers", ["kept_until"])


def downgrade() -> None:
    """Take it away again; repeated requests are then no longer recognised."""
    op.drop_table("answers")
