"""The tables. Their constraints state the invariants, so no code can break them.

Keys are stored as bytes (design rule 1). So both SQLite and PostgreSQL compare them in the order in
which object stores list them. A change of this module needs a migration; a test compares the two.
`docs/data-model.md` explains the tables.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
    false,
    text,
)

from slurper.job.model import shortened
from slurper.planning.keyspace import encode_key

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BigNumber = BigInteger().with_variant(Integer, "sqlite")
"""64 bits in both databases. SQLite numbers rows by itself only in a column of type INTEGER."""


class Key(TypeDecorator[str]):
    """An object key or prefix: `str` in Python, its exact bytes in the database."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> bytes | None:
        """Encode to the key's own bytes."""
        return None if value is None else encode_key(value)

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> str | None:
        """Decode the key's own bytes."""
        return None if value is None else bytes(value).decode("utf-8", "surrogateescape")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite drops the offset, so we add it again when we read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Refuse a naive time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times in the database are aware")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Make the time aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PrintableText(TypeDecorator[str]):
    """Text from anywhere, such as a provider's error, at most `MESSAGE_CHARACTERS` of it.

    What a database cannot store is escaped.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Cut, and escape NUL and lone surrogates."""
        if value is None:
            return None
        printable = shortened(value).encode("utf-8", "backslashreplace").decode()
        return shortened(printable.replace("\0", "\\x00"))


def _counter(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _owner(*, primary_key: bool = False) -> Column[int]:
    return Column(
        "job_number",
        ForeignKey("jobs.number", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
    )


def _index_where(name: str, *columns: str, condition: str) -> Index:
    """An index of the rows that meet a condition; `_add_conditions` adds it for PostgreSQL."""
    return Index(name, *columns, sqlite_where=text(condition))


@event.listens_for(metadata, "before_create")
def _add_conditions(_target: object, connection: Connection, **_: object) -> None:
    """Add the conditions of indexes on PostgreSQL. Only then is that dialect loaded."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.tables.values():
        for index in table.indexes:
            condition = index.dialect_options["sqlite"]["where"]
            index.dialect_options["postgresql"]["where"] = condition


jobs = Table(
    "jobs",
    metadata,
    # Columns that progress and listing read come first. Long columns come last, so that SQLite need
    # not read a row's overflow pages.
    Column("number", BigNumber, primary_key=True),
    Column("id", String(64), nullable=False),
    Column("account_id", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    _counter("objects"),
    _counter("transferred"),
    _counter("skipped"),
    _counter("failed"),
    _counter("transferred_bytes"),
    _counter("retries"),
    _counter("attempts"),
    _counter("throttled"),
    _counter("log_entries"),
    Column("overwrite", Boolean, nullable=False),
    Column("has_keys", Boolean, nullable=False),
    Column("prefix", Key, nullable=False),
    Column("source", JSON, nullable=False),
    Column("target", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("sealed", LargeBinary),
    Column("retry_of", String(64)),
    # These columns came later. Each has its check in the column, so that SQLite can drop both.
    Column(
        "retry_position",
        BigInteger,
        CheckConstraint(
            "retry_position IS NULL OR (retry_of IS NOT NULL AND has_keys)", "retry_has_keys"
        ),
    ),
    Column(
        "deleted_at",
        UtcDateTime,
        CheckConstraint("deleted_at IS NULL OR finished_at IS NOT NULL", "deleted_when_final"),
    ),
    Column(
        "sweeps_failed",
        BigInteger,
        CheckConstraint(
            "sweeps_failed IS NULL OR (status = 'aborted' AND sealed IS NOT NULL)",
            "swept_with_secrets",
        ),
    ),
    Column(
        "total_objects",
        BigInteger,
        CheckConstraint("total_objects >= 0", "total_objects_not_negative"),
    ),
    Column(
        "total_bytes", BigInteger, CheckConstraint("total_bytes >= 0", "total_bytes_not_negative")
    ),
    Column("recent", JSON(none_as_null=True)),
    Column("capabilities", JSON(none_as_null=True)),
    Column("gathered", JSON(none_as_null=True)),
    Column(
        "cleared_at",
        UtcDateTime,
        CheckConstraint("cleared_at IS NULL OR finished_at IS NOT NULL", "cleared_when_final"),
    ),
    Column("created_by", String(255)),
    UniqueConstraint("id"),
    CheckConstraint("objects = transferred + skipped + failed", "every_object_settled_once"),
    CheckConstraint(
        "transferred >= 0 AND skipped >= 0 AND failed >= 0 AND transferred_bytes >= 0"
        " AND retries >= 0 AND attempts >= 0 AND throttled >= 0 AND log_entries >= 0",
        "counts_not_negative",
    ),
    CheckConstraint(
        "(status IN ('running', 'paused') AND finished_at IS NULL)"
        " OR (status IN ('aborted', 'completed') AND finished_at IS NOT NULL)",
        "finished_when_final",
    ),
    CheckConstraint("sealed IS NOT NULL OR finished_at IS NOT NULL", "active_has_secrets"),
    # SQLite reads no row of the table for what this index has, `deleted_at` included.
    _index_where(
        "ix_jobs_listed", "account_id", "number", "deleted_at", condition="deleted_at IS NULL"
    ),
    _index_where("ix_jobs_active", "account_id", condition="finished_at IS NULL"),
    _index_where("ix_jobs_unready", "retry_of", condition="retry_position IS NOT NULL"),
    _index_where("ix_jobs_deleted", "number", condition="deleted_at IS NOT NULL"),
    _index_where("ix_jobs_unswept", "number", condition="sweeps_failed IS NOT NULL"),
    # For what is done when the time has come, or when the job has ended.
    _index_where("ix_jobs_ended", "finished_at", condition="deleted_at IS NULL"),
    _index_where("ix_jobs_sealed", "finished_at", condition="sealed IS NOT NULL"),
    _index_where("ix_jobs_uncleared", "finished_at", condition="cleared_at IS NULL"),
    sqlite_autoincrement=True,
)

job_keys = Table(
    "job_keys",
    metadata,
    _owner(primary_key=True),
    Column("key", Key, primary_key=True),
    sqlite_with_rowid=False,
)

ranges = Table(
    "ranges",
    metadata,
    Column("id", BigNumber, primary_key=True),
    _owner(),
    Column("start_after", Key),
    Column("end_at", Key),
    Column("cursor", Key),
    Column("committed_at", UtcDateTime, nullable=False),
    # When the range was made, or its cursor last moved. It is for people who read the table.
    Column("done", Boolean, nullable=False, server_default=false()),
    CheckConstraint(
        "start_after IS NULL OR end_at IS NULL OR start_after < end_at", "holds_something"
    ),
    CheckConstraint(
        "cursor IS NULL OR ((start_after IS NULL OR start_after <= cursor)"
        " AND (end_at IS NULL OR cursor <= end_at))",
        "cursor_inside",
    ),
    Index("ix_ranges_job_number_done", "job_number", "done"),
    sqlite_autoincrement=True,
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", BigNumber, primary_key=True),
    _owner(),
    Column("key", Key, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", Text, nullable=False),
    Column("last_modified", UtcDateTime),
    Column("found_at", UtcDateTime, nullable=False),
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    Column("upload_id", Text),
    Column("part_size", BigInteger),
    Column("whole_checked", Boolean, nullable=False, server_default=false()),
    Column("begun_at", UtcDateTime),
    Column("source_algorithm", Text),
    Column("source_sum", Text),
    Column("source_piece_bytes", BigInteger),
    Column("source_seen", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("job_number", "key"),
    CheckConstraint("size >= 0 AND attempt >= 1 AND part_size > 0", "counts_positive"),
    CheckConstraint(
        "(upload_id IS NULL) = (part_size IS NULL) AND (upload_id IS NULL) = (begun_at IS NULL)"
        " AND (upload_id IS NOT NULL OR NOT whole_checked)",
        "begun_as_a_whole",
    ),
    sqlite_autoincrement=True,
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload", ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("source_sums", Text, nullable=False, server_default=text("''")),
    CheckConstraint("number >= 1 AND size >= 0", "counts_positive"),
    sqlite_with_rowid=False,
)

logs = Table(
    "logs",
    metadata,
    _owner(primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("log_type", String(48), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("object_key", Key),
    Column("message", PrintableText),
    CheckConstraint(
        "(object_key IS NULL) = (substr(log_type, 1, 9) = 'migration')", "key_with_imports_only"
    ),
)

tokens = Table(
    "tokens",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("accounts", JSON(none_as_null=True)),
    Column(
        "scope",
        String(8),
        CheckConstraint(
            "scope IN ('read', 'write') OR (scope = 'admin' AND accounts IS NULL)", "scope_known"
        ),
        nullable=False,
        server_default=text("'write'"),
    ),
    Column("expires_at", UtcDateTime),
    Column("used_at", UtcDateTime),
    UniqueConstraint("sha256"),
)

answers = Table(
    "answers",
    metadata,
    Column("account_id", String(255), primary_key=True),
    Column("name", LargeBinary(32), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("retries", BigInteger, nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("answered_at", UtcDateTime, nullable=False),
    Column("kept_until", UtcDateTime, nullable=False),
    CheckConstraint("retries >= 0", "counts_not_negative"),
    Index("ix_answers_kept_until", "kept_until"),
    sqlite_with_rowid=False,
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(255)),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", UtcDateTime),
    CheckConstraint("(holder IS NULL) = (expires_at IS NULL)", "held_for_a_time"),
)
