"""What the source tells of a large object, and what each of its parts shows of that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of uploads begun by earlier versions nothing is compared."""
    op.add_column("uploads", sa.Column("source_algorithm", sa.Text()))
    op.add_column("uploads", sa.Column("source_sum", sa.Text()))
    op.add_column("uploads", sa.Column("source_piece_bytes", sa.BigInteger()))
    none = sa.text("''")
    op.add_column(
        "uploads", sa.Column("source_seen", sa.Text(), nullable=False, server_default=none)
    )
    op.add_column(
        "upload_parts", sa.Column("source_sums", sa.Text(), nullable=False, server_default=none)
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_column("upload_parts", "source_sums")
    for name in ("source_seen", "source_piece_bytes", "source_sum", "source_algorithm"):
        op.drop_column("uploads", name)
