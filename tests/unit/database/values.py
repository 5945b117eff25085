"""Jobs and reports to fill a database with."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Self

from sqlalchemy import Connection, Table, func, select

from slurper.database.connection import Database
from slurper.database.housekeeping import Housekeeping
from slurper.database.job_row import RangeWork
from slurper.database.leases import Lease, LeaseStore
from slurper.database.reading import JobReader
from slurper.database.store import JobStore
from slurper.database.work import WorkStore
from slurper.job.lifecycle import Command
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
    Vendor,
)
from slurper.objectstore.base import ObjectMeta, Part
from slurper.objectstore.checksums import Algorithm
from slurper.planning.parts import SourceSum
from slurper.transfer.task import (
    BegunUpload,
    Halt,
    ObjectEvent,
    PartsReport,
    RangeReport,
    Upload,
)

ACCOUNT = "a" * 32
SEALED = b"sealed-credentials"
_MILLISECONDS = itertools.count()


def now() -> datetime:
    """A time of its own for each call."""
    return datetime(2026, 3, 19, 15, 46, 20, 1000 * (next(_MILLISECONDS) % 1000), UTC)


SPEC = JobSpec(
    source=Location(
        vendor=Vendor.S3, bucket="from", endpoint="https://s3.example", region="us-east-1"
    ),
    target=Location(vendor=Vendor.R2, bucket="to", jurisdiction=Jurisdiction.EU),
)
CAPABILITIES = JobCapabilities(
    source=Capabilities(list_version=2, key_order="bytes", clock_ahead_seconds=-3),
    target=Capabilities(
        checksum="crc64nvme",
        verifies_checksum=True,
        conditional_put=True,
        unkept_keys=("plus",),
        unkept_headers=(),
    ),
)


def job(account_id: str = ACCOUNT, **changes: Any) -> Job:  # noqa: ANN401 - fields of JobSpec
    return Job(
        id=token_hex(32),
        account_id=account_id,
        spec=replace(SPEC, **changes),
        status=JobStatus.RUNNING,
        created_at=now(),
        capabilities=CAPABILITIES,
    )


@asynccontextmanager
async def held(
    database: Database, begin: Callable[[Connection], object] = id
) -> AsyncIterator[None]:
    """While the block lasts, a transaction that writes is open, and has done what `begin` does."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[None] = loop.create_future()
    over = threading.Event()

    def stay(connection: Connection) -> None:
        begin(connection)
        loop.call_soon_threadsafe(begun.set_result, None)
        assert over.wait(60)

    transaction = asyncio.create_task(database.write(stay))
    await asyncio.wait((transaction, begun), return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        over.set()
        await transaction


async def whole(store: JobReader, job: Job) -> Job:
    """The stored job, with its explicit keys."""
    found = await store.get_job(job.account_id, job.id)
    if found.spec.keys is None:
        return found
    keys = await store.explicit_keys(job.account_id, job.id)
    return replace(found, spec=replace(found.spec, keys=keys))


async def count_rows(store: JobStore, *tables: Table) -> list[int]:
    queries = [select(func.count()).select_from(table) for table in tables]
    return await store.database.read(
        lambda connection: [connection.execute(query).scalar_one() for query in queries]
    )


def without_keys(job: Job) -> Job:
    """The job as it is where its explicit keys are not read."""
    keys = None if job.spec.keys is None else ()
    return replace(job, spec=replace(job.spec, keys=keys))


def made_at(job: Job, other: Job) -> Job:
    """The job, made when the other was: a driver reads that time by its own clock."""
    return replace(job, created_at=other.created_at)


def started(job: Job) -> LogEntry:
    return LogEntry(log_type=LogType.MIGRATION_START, created_at=job.created_at)


class Store(JobStore):
    """A job store together with what a driver has on top."""

    lease: Lease
    work: WorkStore

    @classmethod
    async def open(cls, database_url: str, lease: Lease | None = None) -> Self:
        """Open a database and take the driver's lease, or share one that was taken."""
        store = await super().open(database_url)
        taken = lease or await LeaseStore(store.database).acquire("driver", 3600)
        assert taken is not None, "another store holds the lease"
        store.lease = taken
        store.work = WorkStore(store.database, taken)
        return store


def housekeeping(work: WorkStore) -> Housekeeping:
    """The chores of the driver that has this store of work."""
    return Housekeeping(work.database, work.lease)


async def create(store: Store, job: Job, *, max_active: int = 1000) -> RangeWork:
    """Store a job and return its one range."""
    await store.create_job(job, SEALED, max_active=max_active, entry=started(job))
    return (await open_ranges(store, job))[0]


async def abort(store: Store, job: Job) -> Job:
    """Abort a job at whose target nothing is left."""
    aborted = await store.apply(ACCOUNT, job.id, Command.ABORT)
    await store.work.swept(job.id)
    return aborted


async def open_ranges(store: Store, job: Job) -> tuple[RangeWork, ...]:
    for work in await store.work.running_jobs():
        if work.job.id == job.id:
            return work.ranges
    return ()


def report(
    job: Job,
    work: RangeWork,
    cursor: str | None,
    *,
    transferred: int = 0,
    skipped: int = 0,
    failed: tuple[str, ...] = (),
    finished: bool = False,
    halt: Halt | None = None,
) -> RangeReport:
    """Report of a task that began at `work` and settled everything up to `cursor`."""
    return RangeReport(
        job_id=job.id,
        range_id=work.range_id,
        started_after=work.slice.start_after,
        cursor=cursor,
        finished=finished,
        counts=Counts(
            objects=transferred + skipped + len(failed),
            transferred=transferred,
            skipped=skipped,
            failed=len(failed),
            transferred_bytes=transferred * 1000,
        ),
        events=tuple(map(failure, failed)),
        halt=halt,
        retries=1,
        attempts=2,
        throttled=3,
    )


def failure(key: str) -> ObjectEvent:
    return ObjectEvent(
        key=key,
        log_type=LogType.IMPORT_ERROR_RETRY_EXHAUSTION,
        message=f"GET answered HTTP 500 InternalError for {key}",
    )


ALL_OPTIONS = JobOptions(
    skip_empty=True,
    include_content_types=("image/*", "text/plain"),
    exclude_content_types=("image/gif",),
    validate_media=True,
    strip_prefix=True,
    max_object_bytes=5 * 2**40,
    bandwidth_limit=10**9,
    request_rate_limit=1000,
    server_side_copy=False,
    count_objects=True,
)


def large(key: str, *, size: int = 100 << 20, etag: str = '"e"') -> ObjectMeta:
    """A large object, as a listing shows it."""
    return ObjectMeta(key, size, etag, datetime(2026, 1, 1, tzinfo=UTC), "")


async def find_large(store: Store, job: Job, *keys: str, finished: bool = True) -> list[Upload]:
    """Commit that the job's range holds these large objects; return them."""
    (work,) = await open_ranges(store, job)
    found = replace(
        report(job, work, max(keys), finished=finished), large=tuple(large(key) for key in keys)
    )
    assert (await store.work.commit(found, now())).applied
    return await unsettled(store, job)


FOUND_AT = datetime(2026, 3, 19, 12, tzinfo=UTC)


async def unsettled(store: Store, job: Job) -> list[Upload]:
    """The job's large objects in progress, found at `FOUND_AT`.

    When it really was is told by the database's clock, which is asked anew for every look.
    """
    works = [*await store.work.running_jobs(), *await store.work.unswept()]
    found = [upload for work in works if work.job.id == job.id for upload in work.uploads]
    return [replace(upload, found_at=FOUND_AT) for upload in found]


def begun(number: int = 1, *, part_size: int = 40 << 20) -> BegunUpload:
    return BegunUpload(
        upload_id=f"upload-{number}",
        part_size=part_size,
        whole_checked=True,
        begun_at=datetime(2026, 3, 19, 15, 0, number, tzinfo=UTC),
        last_modified=datetime(2026, 1, 1, tzinfo=UTC),
        source_sum=SourceSum(Algorithm.CRC32C, f"told-{number}", 15 << 20),
    )


def part(number: int) -> Part:
    sums = tuple(f"sum-{number}-{piece}" for piece in range(3))
    return Part(number, 40 << 20, f'"{number}"', f"checksum-{number}", sums)


def settled(job: Job, upload: Upload, *, transferred: bool = True, retries: int = 0) -> PartsReport:
    """Report of a task that brought a large object to its outcome."""
    size = upload.meta.size if transferred else 0
    done = int(transferred)
    return PartsReport(
        job_id=job.id,
        upload=upload,
        counts=Counts(objects=1, transferred=done, failed=1 - done, transferred_bytes=size),
        events=() if transferred else (failure(upload.meta.key),),
        retries=retries,
    )
