"""Turns the values of a job into rows of the database, and rows into values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from slurper.database.pace import Recent, pace_of
from slurper.database.schema import job_keys, jobs
from slurper.job.model import (
    Capabilities,
    Counts,
    Job,
    JobCapabilities,
    JobOptions,
    JobSpec,
    JobStatus,
    Jurisdiction,
    Location,
    LogEntry,
    LogType,
    Progress,
    Vendor,
    Whole,
)
from slurper.planning.keyspace import KeyRange

JOB_COLUMNS = (
    jobs.c.number,
    jobs.c.id,
    jobs.c.account_id,
    jobs.c.status,
    jobs.c.created_at,
    jobs.c.finished_at,
    jobs.c.overwrite,
    jobs.c.has_keys,
    jobs.c.prefix,
    jobs.c.source,
    jobs.c.target,
    jobs.c.options,
    jobs.c.retry_of,
    jobs.c.capabilities,
    jobs.c.created_by,
    jobs.c.total_objects,
)
"""The columns of a `Job`: no secrets, and no explicit keys, only whether there are any."""

PROGRESS_COLUMNS = (
    jobs.c.id,
    jobs.c.created_at,
    jobs.c.finished_at,
    jobs.c.status,
    jobs.c.objects,
    jobs.c.transferred,
    jobs.c.skipped,
    jobs.c.failed,
    jobs.c.transferred_bytes,
    jobs.c.total_objects,
    jobs.c.total_bytes,
    jobs.c.recent,
    jobs.c.gathered,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredSoFar:
    """How far the keys of a job have been gathered. Its source lists in no order."""

    keys: int = 0
    """How many different keys are stored."""
    rows: int = 0
    """Rows listed since the listing began, or began anew. An empty page counts as one row."""
    times_anew: int = 0
    """How often the listing has begun anew since the last new key."""
    done: bool = False
    """The job has all its keys."""


def job_values(job: Job, sealed: bytes) -> dict[str, object]:
    """Return the columns of a new job's row."""
    spec = job.spec
    return {
        "id": job.id,
        "account_id": job.account_id,
        "status": job.status.value,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "overwrite": spec.overwrite,
        "has_keys": spec.keys is not None,
        "prefix": spec.prefix,
        "source": asdict(spec.source),
        "target": asdict(spec.target),
        "options": asdict(spec.options),
        "sealed": sealed,
        "retry_of": job.retry_of,
        "capabilities": asdict(job.capabilities),
        "created_by": job.created_by,
        "total_objects": len(spec.keys) if spec.keys else None,
    }


def to_job(row: Row[*tuple[Any, ...]]) -> Job:
    """Build a job from `JOB_COLUMNS`. Its `spec.keys` is empty if it has explicit keys."""
    spec = JobSpec(
        source=_to_location(row.source),
        target=_to_location(row.target),
        prefix=row.prefix,
        keys=() if row.has_keys else None,
        overwrite=row.overwrite,
        options=to_options(row.options),
    )
    return Job(
        id=row.id,
        account_id=row.account_id,
        spec=spec,
        status=JobStatus(row.status),
        created_at=row.created_at,
        finished_at=row.finished_at,
        retry_of=row.retry_of,
        capabilities=to_capabilities(row.capabilities),
        created_by=row.created_by,
        key_count=row.total_objects if row.has_keys else None,
    )


def to_progress(row: Row[*tuple[Any, ...]], now: datetime) -> Progress:
    """Build a progress from `PROGRESS_COLUMNS`, with the job's pace at `now`."""
    status = JobStatus(row.status)
    counts = Counts(
        objects=row.objects,
        transferred=row.transferred,
        skipped=row.skipped,
        failed=row.failed,
        transferred_bytes=row.transferred_bytes,
    )
    whole = Whole(objects=row.total_objects, size=row.total_bytes)
    recent = None if row.recent is None else Recent(**row.recent)
    return Progress(
        job_id=row.id,
        created_at=row.created_at,
        finished_at=row.finished_at,
        status=status,
        counts=counts,
        whole=whole,
        pace=pace_of(recent, status, counts, whole, now),
        waiting_for=_waits_for(status, to_gathered(row.gathered)),
    )


def _waits_for(status: JobStatus, gathered: GatheredSoFar | None) -> tuple[str, ...]:
    if gathered is None or gathered.done or status is not JobStatus.RUNNING:
        return ()
    text = (
        "the end of the source's listing, which has no order and is read before anything is copied"
    )
    return (f"{text} ({gathered.keys:,} keys so far)",)


def to_gathered(plain: Mapping[str, Any] | None) -> GatheredSoFar | None:
    """None: the job's keys are not gathered."""
    return None if plain is None else GatheredSoFar(**plain)


def to_log_entry(row: Row[*tuple[Any, ...]]) -> LogEntry:
    """Build a log entry from a row of `logs`."""
    return LogEntry(
        log_type=LogType(row.log_type),
        created_at=row.created_at,
        message=row.message,
        object_key=row.object_key,
    )


def log_values(number: int, position: int, entries: Iterable[LogEntry]) -> list[dict[str, object]]:
    """Return rows of `logs` for job `number`, the first of them at `position`."""
    return [
        {
            "job_number": number,
            "position": place,
            "log_type": entry.log_type.value,
            "created_at": entry.created_at,
            "object_key": entry.object_key,
            "message": entry.message,
        }
        for place, entry in enumerate(entries, position)
    ]


def read_keys(
    connection: Connection, number: int, slice_: KeyRange, *, limit: int
) -> tuple[str, ...]:
    """Read the first explicit keys of a job that lie in a slice, in byte order."""
    query = select(job_keys.c.key).where(*_keys_within(number, slice_))
    return tuple(connection.scalars(query.order_by(job_keys.c.key).limit(limit)))


def key_boundaries(
    connection: Connection, number: int, slice_: KeyRange, *, pieces: int, min_keys: int
) -> tuple[str, ...]:
    """Read explicit keys that cut a slice into pieces with about the same number of keys."""
    within = _keys_within(number, slice_)
    count = connection.scalar(select(func.count()).select_from(job_keys).where(*within)) or 0
    pieces = min(pieces, count // min_keys)
    ordered = select(job_keys.c.key).where(*within).order_by(job_keys.c.key).limit(1)
    lasts = [piece * count // pieces - 1 for piece in range(1, pieces)]
    found = [connection.scalar(ordered.offset(last)) for last in lasts]
    return tuple(key for key in found if key is not None)


def _keys_within(number: int, slice_: KeyRange) -> list[ColumnElement[bool]]:
    within = [job_keys.c.job_number == number]
    if slice_.start_after is not None:
        within.append(job_keys.c.key > slice_.start_after)
    if slice_.end_at is not None:
        within.append(job_keys.c.key <= slice_.end_at)
    return within


def _to_location(plain: Mapping[str, Any]) -> Location:
    jurisdiction = plain["jurisdiction"]
    return Location(
        vendor=Vendor(plain["vendor"]),
        bucket=plain["bucket"],
        endpoint=plain["endpoint"],
        region=plain["region"],
        jurisdiction=None if jurisdiction is None else Jurisdiction(jurisdiction),
    )


def to_capabilities(plain: Mapping[str, Any] | None) -> JobCapabilities:
    """Build capabilities from their column. It is empty in jobs of an earlier version."""
    if plain is None:
        return JobCapabilities()
    return JobCapabilities(source=_to_side(plain["source"]), target=_to_side(plain["target"]))


def _to_side(plain: Mapping[str, Any]) -> Capabilities:
    fields: dict[str, Any] = dict(plain)
    for name in ("unkept_keys", "unkept_headers"):
        if fields.get(name) is not None:
            fields[name] = tuple(fields[name])
    return Capabilities(**fields)


def to_options(plain: Mapping[str, Any]) -> JobOptions:
    """Build options from their column."""
    fields: dict[str, Any] = dict(plain)
    for name in ("include_content_types", "exclude_content_types", "require"):
        fields[name] = tuple(fields.get(name) or ())
    return JobOptions(**fields)
