"""Large objects in progress, and their finished parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BIG_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the tables. Every large object that is not settled lies after a cursor, and is found."""
    op.create_table(
        "uploads",
        sa.Column("id", _BIG_NUMBER, nullable=False),
        sa.Column("job_number", _BIG_NUMBER, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("last_modified", _TIME),
        sa.Column("found_at", _TIME, nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("upload_id", sa.Text()),
        sa.Column("part_size", sa.BigInteger()),
        sa.Column("whole_checked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("begun_at", _TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("job_number", "key", name=op.f("uq_uploads_job_number_key")),
        sa.ForeignKeyConstraint(
            ["job_number"],
            ["jobs.number"],
            name=op.f("fk_uploads_job_number_jobs"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "size >= 0 AND attempt >= 1 AND part_size > 0", name=op.f("ck_uploads_counts_positive")
        ),
        sa.CheckConstraint(
            "(upload_id IS NULL) = (part_size IS NULL) AND (upload_id IS NULL) = (begun_at IS NULL)"
            " AND (upload_id IS NOT NULL OR NOT whole_checked)",
            name=op.f("ck_uploads_begun_as_a_whole"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "upload_parts",
        sa.Column("upload", _BIG_NUMBER, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("upload", "number", name=op.f("pk_upload_parts")),
        sa.ForeignKeyConstraint(
            ["upload"],
            ["uploads.id"],
            name=op.f("fk_upload_parts_upload_uploads"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "number >= 1 AND size >= 0", name=op.f("ck_upload_parts_counts_positive")
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop the tables. Large objects that were not settled are lost to their jobs."""
    op.drop_table("upload_parts")
    op.drop_table("uploads")
