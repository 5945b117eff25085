"""Which objects are copied: pure decisions with typed reasons (design rule 6).

Two questions, because a listing does not tell everything:

`from_listing`, with what LIST says, in this order:

    | condition                                        | decision                              |
    |--------------------------------------------------|---------------------------------------|
    | storage class cannot be read                     | Skip importSkippedStorageClass        |
    | in an archive tier, as only HEAD shows           | Skip importSkippedRequiresRetrieval   |
    | larger than the target or the options allow      | Skip importSkippedOversized           |
    | zero bytes and `skip_empty`                      | Skip importSkippedEmptyObject         |
    | overwrite, or nothing at the target              | Transfer                              |
    | at the target, perhaps put there by this job's   | Done if the ETags say that the bytes  |
    | lost work                                        | are the same, otherwise Compare       |
    | at the target                                    | Skip without a log type               |

`from_content`, with the headers and first bytes that GET brings:

    | condition                                        | decision                              |
    |--------------------------------------------------|---------------------------------------|
    | content type not in the include list             | Skip importSkippedUnsupportedContentType |
    | content type in the exclude list                 | Skip importSkippedExcludedContentType |
    | `validate_media`, bytes contradict content type  | Skip importSkippedInvalidMedia        |
    | otherwise                                        | Transfer                              |

The API has no log type for "already at the target": it counts as skipped and leaves no log entry,
since nothing is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from slurper.job.model import JobOptions, LogType
from slurper.objectstore import verification
from slurper.objectstore.base import ByteRange, ObjectMeta
from slurper.objectstore.dialects import ARCHIVE_TIERS, Dialect
from slurper.planning import media


@dataclass(frozen=True, slots=True)
class Transfer:
    """Copy the object."""


@dataclass(frozen=True, slots=True)
class Done:
    """This job has copied the object already, and the report was lost: count it as copied."""


@dataclass(frozen=True, slots=True)
class Compare:
    """This job may have copied the object already, and the report was lost: the bytes decide."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave the object out. `log_type` None: it is at the target already."""

    log_type: LogType | None = None
    message: str = ""


FIRST_BYTES = ByteRange(0, 512)
"""What `from_content` needs to see of an object; the longest signature is far shorter."""

Decision = Transfer | Done | Compare | Skip

TRANSFER = Transfer()
DONE = Done()
COMPARE = Compare()
EXISTS = Skip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the decisions depend on besides the object. It is the same for all of a task."""

    source: Dialect
    target: Dialect
    overwrite: bool
    options: JobOptions
    replayed_since: datetime | None = None

    @property
    def max_object_bytes(self) -> int:
        """The largest object that is copied."""
        wanted = self.options.max_object_bytes
        limit = self.target.max_object_bytes
        return limit if wanted is None else min(limit, wanted)

    @property
    def looks_at_content(self) -> bool:
        """Whether `from_content` can skip anything."""
        options = self.options
        return bool(
            options.include_content_types or options.exclude_content_types or options.validate_media
        )


def from_listing(meta: ObjectMeta, existing: ObjectMeta | None, rules: Rules) -> Decision:
    """Decide by the listings; `existing` is the target's object under the same key."""
    if (archived := in_archive(meta, rules.source)) is not None:
        return archived
    if meta.size > rules.max_object_bytes:
        return Skip(
            LogType.IMPORT_SKIPPED_OVERSIZED,
            f"{meta.size} bytes; the limit is {rules.max_object_bytes} bytes "
            "(the target's, or options.maxObjectSize, which can be raised)",
        )
    if meta.size == 0 and rules.options.skip_empty:
        return Skip(
            LogType.IMPORT_SKIPPED_EMPTY_OBJECT,
            "zero bytes, and options.skipEmpty is set; leave that out to copy the object",
        )
    if rules.overwrite or existing is None:
        return TRANSFER
    if not may_be_ours(meta.size, existing, rules.replayed_since):
        return EXISTS
    return DONE if verification.same_bytes(meta.etag, existing.etag) else COMPARE


def in_archive(meta: ObjectMeta, source: Dialect) -> Skip | None:
    """Skip, if the object must be restored before it can be read; None: it can be read."""
    if meta.storage_class not in source.unreadable_storage_classes:
        return None
    advice = "cannot be read; restore the object, then copy it with a job that names its key"
    if meta.storage_class in ARCHIVE_TIERS:
        text = f"the archive tier {meta.storage_class} of Intelligent-Tiering {advice}"
        return Skip(LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL, text)
    text = f"storage class {meta.storage_class} {advice}"
    return Skip(LogType.IMPORT_SKIPPED_STORAGE_CLASS, text)


def may_be_ours(size: int, existing: ObjectMeta, since: datetime | None) -> bool:
    """Whether the target's object may be this job's own, from a task that never reported.

    True only in a replayed slice (`since` given), for an object of the right size that the target
    stored after `since`. Somebody else may still have stored it: its bytes decide.
    """
    return (
        since is not None
        and existing.size == size
        and existing.last_modified is not None
        and existing.last_modified >= since
    )


def from_content(content_type: str, first_bytes: bytes, options: JobOptions) -> Transfer | Skip:
    """Decide by content type and the bytes of `FIRST_BYTES`."""
    kind = content_type.partition(";")[0].strip().lower()
    included = options.include_content_types
    if included and not _matches(kind, included):
        return Skip(
            LogType.IMPORT_SKIPPED_UNSUPPORTED_CONTENT_TYPE,
            f"content type {kind or '(none)'} is not in options.contentTypes.include; "
            "add it there to copy the object",
        )
    if _matches(kind, options.exclude_content_types):
        return Skip(
            LogType.IMPORT_SKIPPED_EXCLUDED_CONTENT_TYPE,
            f"content type {kind} is in options.contentTypes.exclude; "
            "remove it there to copy the object",
        )
    if options.validate_media and media.contradicts(kind, first_bytes):
        return Skip(
            LogType.IMPORT_SKIPPED_INVALID_MEDIA,
            f"the first bytes are not those of {kind}, and options.validateMedia is set; "
            "correct the object or its content type, or leave that option out",
        )
    return TRANSFER


def _matches(kind: str, patterns: tuple[str, ...]) -> bool:
    """Whether `kind` equals a pattern, or the pattern is `type/*` and the types agree."""
    major = kind.partition("/")[0]
    return any(pattern.lower() in (kind, f"{major}/*", "*/*") for pattern in patterns)
