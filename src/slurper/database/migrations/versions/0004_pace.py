"""How much a job has to copy in all, and how fast it moves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of jobs made by earlier versions neither is known."""
    for name in ("total_objects", "total_bytes"):
        not_negative = sa.CheckConstraint(f"{name} >= 0", name=op.f(f"ck_jobs_{name}_not_negative"))
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), not_negative))
    op.add_column("jobs", sa.Column("recent", sa.JSON()))


def downgrade() -> None:
    """Take them away again."""
    for name in ("recent", "total_bytes", "total_objects"):
        op.drop_column("jobs", name)
