"""What the stores of a job were found to do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of jobs made by earlier versions nothing is known."""
    op.add_column("jobs", sa.Column("capabilities", sa.JSON()))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("jobs", "capabilities")
