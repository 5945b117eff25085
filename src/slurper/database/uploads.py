"""Large objects in progress, from the commit that finds them to the commit that settles them.

A row stands for an object that is not counted yet. It is deleted when the object is counted.
Everything here that writes runs inside transactions that have locked the job's row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy import insert as plain_insert

from slurper.database.connection import insert_missing
from slurper.database.job_row import CommitResult, LockedJob
from slurper.database.schema import upload_parts, uploads
from slurper.objectstore.base import ObjectMeta, Part
from slurper.objectstore.checksums import Algorithm
from slurper.planning.parts import SourceSum
from slurper.transfer.task import BegunUpload, PartsReport, Upload


def insert(connection: Connection, number: int, found: Sequence[ObjectMeta], at: datetime) -> None:
    """Make an upload of each large object that a range's task has found.

    If a key has one already, it was listed twice. Stores that list in folder order may do that.
    """
    if not found:
        return
    values = [{"job_number": number, "found_at": at, **_version(meta)} for meta in found]
    connection.execute(insert_missing(connection, uploads), values)


def count(connection: Connection, numbers: Sequence[int]) -> Mapping[int, int]:
    """How many objects of each job are unsettled."""
    of_jobs = select(uploads.c.job_number, func.count().label("how_many")).where(
        uploads.c.job_number.in_(numbers)
    )
    found = connection.execute(of_jobs.group_by(uploads.c.job_number))
    return {row.job_number: row.how_many for row in found}


def read(
    connection: Connection, numbers: Sequence[int], *, max_each: int | None
) -> dict[int, list[Upload]]:
    """The unsettled objects of each job, oldest first; at most `max_each` of a job (None: all)."""
    place = func.row_number().over(partition_by=uploads.c.job_number, order_by=uploads.c.id)
    ranked = select(uploads, place.label("place")).where(uploads.c.job_number.in_(numbers))
    first = ranked.subquery()
    query = select(first).order_by(first.c.id)
    if max_each is not None:
        query = query.where(first.c.place <= max_each)
    found: dict[int, list[Upload]] = {number: [] for number in numbers}
    for row in connection.execute(query):
        found[row.job_number].append(_to_upload(row))
    return found


def read_parts(connection: Connection, upload: Upload) -> tuple[Part, ...]:
    """The finished parts of an object, in order."""
    query = select(upload_parts).where(upload_parts.c.upload == upload.id)
    found = connection.execute(query.order_by(upload_parts.c.number))
    return tuple(
        Part(row.number, row.size, row.etag, row.checksum, tuple(row.source_sums.split()))
        for row in found
    )


def find(connection: Connection, number: int, upload: int) -> Upload | None:
    """An unsettled object of a job; None when it is settled."""
    same = (uploads.c.id == upload, uploads.c.job_number == number)
    row = connection.execute(select(uploads).where(*same)).one_or_none()
    return None if row is None else _to_upload(row)


def commit(
    connection: Connection, job: LockedJob, report: PartsReport, at: datetime
) -> CommitResult:
    """Commit what a task did for a large object."""
    if not _apply(connection, job.number, report):
        still_open = find(connection, job.number, report.upload.id) is not None
        return CommitResult(applied=False, status=job.status, still_open=still_open)
    job.add(report, at)
    job.halt(report.halt, at)
    return CommitResult(applied=True, status=job.status, still_open=not report.settled)


def _apply(connection: Connection, number: int, report: PartsReport) -> bool:
    """Store what a task did; False when the report is stale.

    It is stale when the object was settled or begun again meanwhile, or when the report was
    committed before.
    """
    current = find(connection, number, report.upload.id)
    if current is None or current.generation != report.upload.generation:
        return False
    if _has_any(connection, report):
        return False
    row = uploads.c.id == current.id
    if report.settled:
        connection.execute(delete(uploads).where(row))
    elif report.restarted is not None:
        again = {
            "attempt": current.attempt + 1,
            "source_seen": report.seen,
            **_begun(None),
            **_version(report.restarted),
        }
        connection.execute(update(uploads).where(row).values(again))
        connection.execute(delete(upload_parts).where(upload_parts.c.upload == current.id))
    else:
        if report.begun is not None:
            connection.execute(update(uploads).where(row).values(_begun(report.begun)))
        if report.parts:
            values = [_part(current.id, part) for part in report.parts]
            connection.execute(plain_insert(upload_parts), values)
    return True


def _has_any(connection: Connection, report: PartsReport) -> bool:
    """Whether the report was committed before: then its first part is there."""
    if not report.parts:
        return False
    first = (
        upload_parts.c.upload == report.upload.id,
        upload_parts.c.number == report.parts[0].number,
    )
    return connection.scalar(select(upload_parts.c.number).where(*first)) is not None


def _version(meta: ObjectMeta) -> dict[str, object]:
    return {
        "key": meta.key,
        "size": meta.size,
        "etag": meta.etag,
        "last_modified": meta.last_modified,
    }


def _begun(begun: BegunUpload | None) -> dict[str, object]:
    if begun is None:
        return {
            "upload_id": None,
            "part_size": None,
            "whole_checked": False,
            "begun_at": None,
            **_source_sum(None),
        }
    return {
        "upload_id": begun.upload_id,
        "part_size": begun.part_size,
        "whole_checked": begun.whole_checked,
        "begun_at": begun.begun_at,
        "last_modified": begun.last_modified,
        **_source_sum(begun.source_sum),
    }


def _source_sum(told: SourceSum | None) -> dict[str, object]:
    return {
        "source_algorithm": told and told.algorithm.value,
        "source_sum": told and told.value,
        "source_piece_bytes": told and told.piece_bytes,
    }


def _part(upload: int, part: Part) -> dict[str, object]:
    return {
        "upload": upload,
        "number": part.number,
        "size": part.size,
        "etag": part.etag,
        "checksum": part.checksum,
        "source_sums": " ".join(part.source_sums),
    }


def _to_upload(row: Row[*tuple[Any, ...]]) -> Upload:
    begun = None
    if row.upload_id is not None:
        begun = BegunUpload(
            upload_id=row.upload_id,
            part_size=row.part_size,
            whole_checked=row.whole_checked,
            begun_at=row.begun_at,
            last_modified=row.last_modified,
            source_sum=_to_source_sum(row),
        )
    return Upload(
        id=row.id,
        meta=ObjectMeta(row.key, row.size, row.etag, row.last_modified, ""),
        found_at=row.found_at,
        attempt=row.attempt,
        begun=begun,
        seen=row.source_seen,
    )


def _to_source_sum(row: Row[*tuple[Any, ...]]) -> SourceSum | None:
    if row.source_algorithm is None:
        return None
    return SourceSum(Algorithm(row.source_algorithm), row.source_sum, row.source_piece_bytes)
