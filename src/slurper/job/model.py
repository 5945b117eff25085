"""The domain's values: what a job is, how far it is, and what it has to say.

Frozen and free of behaviour beyond their own invariants, so that every layer may use them. Wire
names (camelCase) live in `api.schemas` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import TypedDict


class JobStatus(StrEnum):
    """The four statuses of the Super Slurper API; typed clients know no other."""

    RUNNING = "running"
    PAUSED = "paused"
    ABORTED = "aborted"
    COMPLETED = "completed"


class Vendor(StrEnum):
    """Which family of store a side of a job is."""

    S3 = "s3"
    GCS = "gcs"
    R2 = "r2"


class Jurisdiction(StrEnum):
    """Where an R2 bucket's data is bound to; each has a host name of its own."""

    DEFAULT = "default"
    EU = "eu"
    US = "us"
    FEDRAMP = "fedramp"


class LogType(StrEnum):
    """The 15 log types of the Super Slurper API: `migration*` for jobs, `import*` for objects."""

    MIGRATION_START = "migrationStart"
    MIGRATION_COMPLETE = "migrationComplete"
    MIGRATION_ABORT = "migrationAbort"
    MIGRATION_ERROR = "migrationError"
    MIGRATION_PAUSE = "migrationPause"
    MIGRATION_RESUME = "migrationResume"
    MIGRATION_ERROR_FAILED_CONTINUATION = "migrationErrorFailedContinuation"
    IMPORT_ERROR_RETRY_EXHAUSTION = "importErrorRetryExhaustion"
    IMPORT_SKIPPED_STORAGE_CLASS = "importSkippedStorageClass"
    IMPORT_SKIPPED_OVERSIZED = "importSkippedOversized"
    IMPORT_SKIPPED_EMPTY_OBJECT = "importSkippedEmptyObject"
    IMPORT_SKIPPED_UNSUPPORTED_CONTENT_TYPE = "importSkippedUnsupportedContentType"
    IMPORT_SKIPPED_EXCLUDED_CONTENT_TYPE = "importSkippedExcludedContentType"
    IMPORT_SKIPPED_INVALID_MEDIA = "importSkippedInvalidMedia"
    IMPORT_SKIPPED_REQUIRES_RETRIEVAL = "importSkippedRequiresRetrieval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """One side of a job, as the user described it: which bucket, of whom, where."""

    vendor: Vendor
    bucket: str
    endpoint: str | None = None
    """`https://host[:port]` of an S3-compatible store; None means the vendor's own."""
    region: str | None = None
    jurisdiction: Jurisdiction | None = None
    """R2 only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The extension member `options` of a create request; the defaults are upstream's behaviour."""

    skip_empty: bool = False
    """Skip zero-byte objects as `importSkippedEmptyObject` instead of copying them."""
    include_content_types: tuple[str, ...] = ()
    """When given, only these content types (`type/subtype` or `type/*`) are copied."""
    exclude_content_types: tuple[str, ...] = ()
    """Content types that are never copied."""
    validate_media: bool = False
    """Skip image, audio and video objects whose first bytes contradict their content type."""
    strip_prefix: bool = False
    """Remove the source prefix from the keys written to the target."""
    max_object_bytes: int | None = None
    """Skip larger objects as `importSkippedOversized`; None leaves the target's own limit."""
    bandwidth_limit: int | None = None
    """Bytes per second that the job may copy; None: as many as there are to be had."""
    request_rate_limit: int | None = None
    """Requests per second that the job may send, to both stores together."""
    server_side_copy: bool = True
    """Let a store that holds both buckets copy objects itself, where it can."""
    count_objects: bool = False
    """List the source beside the copy, so that the whole is known before its end."""
    require: tuple[str, ...] = ()
    """Headers that the target must keep: content headers, `metadata`, or `headers` for all of them.
    An object that has one fails where the target was found to lose it."""

    @property
    def is_limited(self) -> bool:
        """Whether tasks have to be paced."""
        return self.bandwidth_limit is not None or self.request_rate_limit is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a client says about a request that it may send again when the answer is lost."""

    key: str | None = None
    """Its key, the same each time the request is sent; None: the client gives none."""
    retries: int = 0
    """How often the request had been sent before."""


class LimitChanges(TypedDict, total=False):
    """New limits of a job, by the names they have in `JobOptions`; those left out stay."""

    bandwidth_limit: int | None
    request_rate_limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a job was asked to do; immutable for the job's whole life."""

    source: Location
    target: Location
    prefix: str = ""
    keys: tuple[str, ...] | None = None
    """Explicit keys, unique and in UTF-8 byte order; None means everything under `prefix`. Empty
    where a stored job has more than are worth reading."""
    overwrite: bool = True
    options: JobOptions = field(default_factory=JobOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the store of one side was found to do: before the job was made, or while it copies.

    None: not known.
    """

    list_version: int | None = None
    """Which version of ListObjects goes on after a key: 1 or 2."""
    key_order: str | None = None
    """In which order it lists: a value of `objectstore.dialects.KeyOrder`."""
    clock_ahead_seconds: int | None = None
    """By how much its clock was ahead of this machine's; a second tells nothing."""
    obeys_if_match: bool | None = None
    """False: it refused a read for its If-Match, though the object had that ETag."""
    etags_are_md5s: bool | None = None
    """Of a source: whether the ETags of objects that were written in one request are MD5s."""
    etags_of_parts_are_md5s: bool | None = None
    """Of a source: whether those of objects in parts are made of the MD5s of their parts."""
    checksum: str | None = None
    """Of a target: what goes with every write, a value of `objectstore.checksums.Algorithm`."""
    verifies_checksum: bool | None = None
    """Of a target: it refuses bytes that are not those of their checksum."""
    verifies_md5: bool | None = None
    """Of a target: it refuses bytes that are not those of their Content-MD5."""
    wants_md5: bool | None = None
    """Of a target: it refused a write because it had no Content-MD5."""
    conditional_put: bool | None = None
    """Of a target: a write with `If-None-Match: *` spares what is there."""
    conditional_completion: bool | None = None
    """Of a target: it obeys it also when an upload is completed."""
    unkept_keys: tuple[str, ...] | None = None
    """Of a target: shapes of keys that it rewrites or refuses, values of
    `objectstore.key_shapes.KeyShape` in their order."""
    unkept_headers: tuple[str, ...] | None = None
    """Of a target: what objects lose there, of `objectstore.storable.HEADERS` in their order."""

    def with_found(self, found: Capabilities) -> Capabilities:
        """These, and what was found since. That counts where both tell something."""
        told = {each.name: getattr(found, each.name) for each in fields(found)}
        return replace(self, **{name: value for name, value in told.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCapabilities:
    """What the stores of a job were found to do."""

    source: Capabilities = field(default_factory=Capabilities)
    target: Capabilities = field(default_factory=Capabilities)

    def with_found(self, found: JobCapabilities) -> JobCapabilities:
        """The same for both sides."""
        return JobCapabilities(
            source=self.source.with_found(found.source),
            target=self.target.with_found(found.target),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job and where it stands in its lifecycle."""

    id: str
    """64 hexadecimal characters."""
    account_id: str
    spec: JobSpec
    status: JobStatus
    created_at: datetime
    """Aware, UTC, as are all times in here."""
    finished_at: datetime | None = None
    retry_of: str | None = None
    """The job whose failed keys are this one's keys."""
    capabilities: JobCapabilities = field(default_factory=JobCapabilities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many objects ended how; `objects = transferred + skipped + failed` in every commit."""

    objects: int = 0
    transferred: int = 0
    skipped: int = 0
    failed: int = 0
    transferred_bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            objects=self.objects + other.objects,
            transferred=self.transferred + other.transferred,
            skipped=self.skipped + other.skipped,
            failed=self.failed + other.failed,
            transferred_bytes=self.transferred_bytes + other.transferred_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """How much there is to copy, as far as it is known."""

    objects: int | None = None
    size: int | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a job moves at the moment. An estimate, unlike its counters."""

    objects_per_second: float = 0.0
    bytes_per_second: float = 0.0
    source_throttled: float = 0.0
    """Which share of the recent answers of the source asked to slow down, 0 to 1."""
    target_throttled: float = 0.0
    active_workers: int | None = None
    """Processes that work on the job; None when that is not known."""
    seconds_left: float | None = None
    """None when the whole is not known, or nothing moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One read of a job's counters."""

    job_id: str
    created_at: datetime
    finished_at: datetime | None
    status: JobStatus
    counts: Counts
    whole: Whole = Whole()
    pace: Pace = Pace()
    waiting_for: tuple[str, ...] = ()
    """What requests under way wait for; empty when this process knows of nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of a job's log. `object_key` is None exactly for the `migration*` types."""

    log_type: LogType
    created_at: datetime
    message: str | None = None
    object_key: str | None = None
