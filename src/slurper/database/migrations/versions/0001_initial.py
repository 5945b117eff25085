"""Jobs with their ranges, explicit keys and logs, and the API tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    _create_jobs()
    _create_job_keys()
    _create_ranges()
    _create_logs()
    _create_tokens()


def downgrade() -> None:
    """Drop the tables, and everything in them."""
    for table in ("tokens", "logs", "ranges", "job_keys", "jobs"):
        op.drop_table(table)


def _counter(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)


def _owner(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["job_number"],
        ["jobs.number"],
        name=op.f(f"fk_{table}_job_number_jobs"),
        ondelete="CASCADE",
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", _BIG_NUMBER, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        _counter("objects"),
        _counter("transferred"),
        _counter("skipped"),
        _counter("failed"),
        _counter("transferred_bytes"),
        _counter("retries"),
        _counter("attempts"),
        _counter("throttled"),
        _counter("log_entries"),
        sa.Column("overwrite", sa.Boolean(), nullable=False),
        sa.Column("has_keys", sa.Boolean(), nullable=False),
        sa.Column("prefix", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.JSON(), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("sealed", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sa.CheckConstraint(
            "objects = transferred + skipped + failed",
            name=op.f("ck_jobs_every_object_settled_once"),
        ),
        sa.CheckConstraint(
            "transferred >= 0 AND skipped >= 0 AND failed >= 0 AND transferred_bytes >= 0"
            " AND retries >= 0 AND attempts >= 0 AND throttled >= 0 AND log_entries >= 0",
            name=op.f("ck_jobs_counts_not_negative"),
        ),
        sa.CheckConstraint(
            "(status IN ('running', 'paused') AND finished_at IS NULL)"
            " OR (status IN ('aborted', 'completed') AND finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished_when_final"),
        ),
        sa.CheckConstraint(
            "sealed IS NOT NULL OR finished_at IS NOT NULL", name=op.f("ck_jobs_active_has_secrets")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_account_id_number", "jobs", ["account_id", "number"])
    active = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_jobs_active", "jobs", ["account_id"], sqlite_where=active, postgresql_where=active
    )


def _create_job_keys() -> None:
    op.create_table(
        "job_keys",
        sa.Column("job_number", _BIG_NUMBER, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_number", "key", name=op.f("pk_job_keys")),
        _owner("job_keys"),
        sqlite_with_rowid=False,
    )


def _create_ranges() -> None:
    op.create_table(
        "ranges",
        sa.Column("id", _BIG_NUMBER, nullable=False),
        sa.Column("job_number", _BIG_NUMBER, nullable=False),
        sa.Column("start_after", sa.LargeBinary()),
        sa.Column("end_at", sa.LargeBinary()),
        sa.Column("cursor", sa.LargeBinary()),
        sa.Column("committed_at", _TIME, nullable=False),
        sa.Column("done", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ranges")),
        _owner("ranges"),
        sa.CheckConstraint(
            "start_after IS NULL OR end_at IS NULL OR start_after < end_at",
            name=op.f("ck_ranges_holds_something"),
        ),
        sa.CheckConstraint(
            "cursor IS NULL OR ((start_after IS NULL OR start_after <= cursor)"
            " AND (end_at IS NULL OR cursor <= end_at))",
            name=op.f("ck_ranges_cursor_inside"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ranges_job_number_done", "ranges", ["job_number", "done"])


def _create_logs() -> None:
    op.create_table(
        "logs",
        sa.Column("job_number", _BIG_NUMBER, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("log_type", sa.String(48), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("object_key", sa.LargeBinary()),
        sa.Column("message", sa.Text()),
        sa.PrimaryKeyConstraint("job_number", "position", name=op.f("pk_logs")),
        _owner("logs"),
        sa.CheckConstraint(
            "(object_key IS NULL) = (substr(log_type, 1, 9) = 'migration')",
            name=op.f("ck_logs_key_with_imports_only"),
        ),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("account_id", sa.String(255)),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tokens")),
        sa.UniqueConstraint("sha256", name=op.f("uq_tokens_sha256")),
    )
