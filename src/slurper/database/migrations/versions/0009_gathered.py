"""How far the keys of a source without an order are gathered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; no job of an earlier version gathers keys."""
    op.add_column("jobs", sa.Column("gathered", sa.JSON()))


def downgrade() -> None:
    """Take it away again; a job whose source has no order is then listed from its beginning."""
    op.drop_column("jobs", "gathered")
