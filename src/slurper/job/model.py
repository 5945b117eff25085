"""The domain's values: what a job is, how far it has come, and its log.

The values are frozen, and have no behaviour except their own invariants. So every layer may use
them. Names of the wire (camelCase) are only in `api.schemas`.
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
    """The kind of store at a side of a job."""

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
    """One side of a job, as the user described it: which store, which bucket, where."""

    vendor: Vendor
    bucket: str
    endpoint: str | None = None
    """`https://host[:port]` of an S3-compatible store; None: the vendor's usual one."""
    region: str | None = None
    jurisdiction: Jurisdiction | None = None
    """Only for R2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The extension member `options` of a create request; the defaults are upstream's behaviour."""

    skip_empty: bool = False
    """Skip zero-byte objects as `importSkippedEmptyObject` instead of copying them."""
    include_content_types: tuple[str, ...] = ()
    """If given, only these content types (`type/subtype` or `type/*`) are copied."""
    exclude_content_types: tuple[str, ...] = ()
    """Content types that are never copied."""
    validate_media: bool = False
    """Skip image, audio and video objects whose first bytes contradict their content type."""
    strip_prefix: bool = False
    """Remove the source prefix from the keys written to the target."""
    max_object_bytes: int | None = None
    """Skip larger objects as `importSkippedOversized`; None: only the target's own limit counts."""
    bandwidth_limit: int | None = None
    """Bytes per second that the job may copy; None: no limit."""
    request_rate_limit: int | None = None
    """Requests per second that the job may send to both stores together; None: no limit."""
    server_side_copy: bool = True
    """Let a store that holds both buckets copy objects itself, where it can."""
    count_objects: bool = False
    """List the source beside the copy, so that the total is known before the copy ends."""
    require: tuple[str, ...] = ()
    """Headers that the target must keep: content headers, `metadata`, or `headers` for all of them.
    If the target was found to lose such a header, objects that have it fail."""

    @property
    def is_limited(self) -> bool:
        """Whether the job has a limit of bandwidth or requests."""
        return self.bandwidth_limit is not None or self.request_rate_limit is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a client says about a request that it may send again when the answer is lost."""

    key: str | None = None
    """Its key, the same each time the request is sent; None: the client gives none."""
    retries: int = 0
    """How often the request was sent before."""


class LimitChanges(TypedDict, total=False):
    """New limits of a job, with the names of `JobOptions`. Limits that are left out stay."""

    bandwidth_limit: int | None
    request_rate_limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a job was asked to do; immutable for the job's whole life."""

    source: Location
    target: Location
    prefix: str = ""
    keys: tuple[str, ...] | None = None
    """Explicit keys, unique, in UTF-8 byte order; None: everything under `prefix`. Empty when the
    keys of a stored job were not read."""
    overwrite: bool = True
    options: JobOptions = field(default_factory=JobOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What was found out about the store of one side, before the job was made or while it runs.

    None: not known.
    """

    list_version: int | None = None
    """The version of ListObjects that can go on after a key: 1 or 2."""
    key_order: str | None = None
    """The order in which it lists: a value of `objectstore.dialects.KeyOrder`."""
    clock_ahead_seconds: int | None = None
    """How far its clock was ahead of this machine's. A difference of one second means nothing."""
    obeys_if_match: bool | None = None
    """False: it refused a read with If-Match, although the object had that ETag."""
    etags_are_md5s: bool | None = None
    """Of a source: whether the ETag of an object written in one request is its MD5."""
    etags_of_parts_are_md5s: bool | None = None
    """Of a source: whether the ETag of an object written in parts is made from the parts' MD5s."""
    checksum: str | None = None
    """Of a target: the checksum sent with each write, from `objectstore.checksums.Algorithm`."""
    verifies_checksum: bool | None = None
    """Of a target: it refuses bytes that do not match their checksum."""
    trailing_checksum: bool | None = None
    """Of a target: it verifies the checksum of a part that comes behind the part's bytes."""
    verifies_md5: bool | None = None
    """Of a target: it refuses bytes that do not match their Content-MD5."""
    wants_md5: bool | None = None
    """Of a target: it refused a write because it had no Content-MD5."""
    conditional_put: bool | None = None
    """Of a target: a write with `If-None-Match: *` does not overwrite an existing object."""
    conditional_completion: bool | None = None
    """Of a target: it obeys `If-None-Match: *` also when an upload is completed."""
    unkept_keys: tuple[str, ...] | None = None
    """Of a target: shapes of keys that it rewrites or refuses, values of
    `objectstore.key_shapes.KeyShape` in their order."""
    unkept_headers: tuple[str, ...] | None = None
    """Of a target: headers that it loses, from `objectstore.storable.HEADERS` in their order."""

    def with_found(self, found: Capabilities) -> Capabilities:
        """These, updated with `found`. Where both know something, `found` counts."""
        told = {each.name: getattr(found, each.name) for each in fields(found)}
        return replace(self, **{name: value for name, value in told.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCapabilities:
    """What was found out about the two stores of a job."""

    source: Capabilities = field(default_factory=Capabilities)
    target: Capabilities = field(default_factory=Capabilities)

    def with_found(self, found: JobCapabilities) -> JobCapabilities:
        """These, updated with `found`, for both sides."""
        return JobCapabilities(
            source=self.source.with_found(found.source),
            target=self.target.with_found(found.target),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job and its status."""

    id: str
    """64 hexadecimal characters."""
    account_id: str
    spec: JobSpec
    status: JobStatus
    created_at: datetime
    """An aware UTC time, like all times in this module."""
    finished_at: datetime | None = None
    retry_of: str | None = None
    """The job whose failed keys this job copies."""
    created_by: str | None = None
    """The name of the token with which it was made; None: the command line, or not known."""
    capabilities: JobCapabilities = field(default_factory=JobCapabilities)
    key_count: int | None = field(default=None, compare=False)
    """How many explicit keys it has, or had until it ended; None: it has none, or was not read from
    the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers of objects. `objects = transferred + skipped + failed` holds in every commit."""

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
    """How much the job has to copy in all; None: not known."""

    objects: int | None = None
    size: int | None = None
    """In bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a job moves now. It is an estimate; the counters are exact."""

    objects_per_second: float = 0.0
    bytes_per_second: float = 0.0
    source_throttled: float = 0.0
    """The share (0 to 1) of recent answers of the source that asked us to slow down."""
    target_throttled: float = 0.0
    active_workers: int | None = None
    """How many processes work on the job; None: not known."""
    seconds_left: float | None = None
    """None when the total is not known, or nothing moves."""


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
    """What requests under way wait for; empty when this process does not know."""


MESSAGE_CHARACTERS = 2_000
"""The longest message of a log entry. Stores choose part of the text, so it needs a bound."""


def shortened(message: str) -> str:
    """The message, cut to `MESSAGE_CHARACTERS`."""
    if len(message) <= MESSAGE_CHARACTERS:
        return message
    return f"{message[: MESSAGE_CHARACTERS - 1]}…"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of a job's log. Exactly the `migration*` types have no `object_key`."""

    log_type: LogType
    created_at: datetime
    message: str | None = None
    object_key: str | None = None
