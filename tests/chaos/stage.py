"""Two real buckets, each behind a fault proxy, and a worker that copies from one to the other.

Whatever is done to the requests in between, `Stage.check` looks at both buckets past the proxies
and holds them against what the reports say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from slurper.demo.servers import S3Server
from slurper.job.model import Counts
from slurper.objectstore import dialects
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer.task import (
    GatherReport,
    GatherTask,
    ObjectEvent,
    PartsTask,
    RangeReport,
    RangeTask,
)
from slurper.transfer.worker import Worker
from tests.chain import first_task, folded, settle
from tests.chaos.proxy import FaultProxy
from tests.pairs.referee import S3Bucket, Stored

PART = 2 << 20
"""An object a little larger is copied in parts. S3 itself allows none so small; ministack does, and
all that is to be seen of parts is seen of these."""
LEAST_PART = 5 << 20
"""The smallest part of stores that keep S3's rule, and of the real program."""

CALM = Settings(
    allow_http=True,
    allow_private_endpoints=True,
    in_flight_requests=4,
    stream_seconds=0.0,
    task_seconds=5.0,
    object_attempts=2,
    idle_timeout_seconds=10.0,
    request_retries=1,
    retry_deadline_seconds=2.0,
).model_copy(update={"multipart_threshold_bytes": PART, "part_bytes": PART})  # less than it allows
"""Tries little, so that a test sees what happens then. Nothing is streamed: see `test_streams`."""

HASTY = CALM.model_copy(update={"idle_timeout_seconds": 2.0, "retry_deadline_seconds": 6.0})
"""For silence. A busy machine may be silent by itself, so other tests do not take these.

The deadline leaves time for the retry that follows a silence.
"""

MOST_TASKS = 50


@dataclass(slots=True)
class Run:
    """Tasks that were run one after the other, each from where the last one ended."""

    counts: Counts = field(default_factory=Counts)
    events: list[ObjectEvent] = field(default_factory=list)
    reports: list[RangeReport | GatherReport] = field(default_factory=list)
    halted: list[PartsTask] = field(default_factory=list)
    """Where large objects are to be gone on with."""

    @property
    def last(self) -> RangeReport | GatherReport:
        """The last report."""
        return self.reports[-1]

    def take_in(self, report: RangeReport | GatherReport) -> None:
        """Add a report, as the driver would."""
        is_known = isinstance(report, RangeReport) and report.order is not KeyOrder.OWN
        assert not is_known or (report.cursor or "") >= (report.started_after or "")
        assert len(report.events) <= report.counts.skipped + report.counts.failed
        counts = report.counts
        assert counts.objects == counts.transferred + counts.skipped + counts.failed
        self.counts += counts
        self.events += report.events
        self.reports.append(report)


@dataclass(slots=True, kw_only=True)
class Stage:
    """A source and a target, and everything that stands between them."""

    source: S3Bucket
    target: S3Bucket
    source_proxy: FaultProxy
    target_proxy: FaultProxy
    task: RangeTask
    settings: Settings = CALM

    async def run(
        self,
        *,
        overwrite: bool = True,
        went_before: Run | None = None,
        replayed_since: datetime | None = None,
        keys: Sequence[str] | None = None,
    ) -> Run:
        """Run tasks until the slice is finished or one halts; `went_before` is continued."""
        run = went_before or Run()
        cursor = run.last.cursor if run.reports else None
        worker = Worker(self.settings)
        try:
            for _ in range(MOST_TASKS):
                if self.task.source.dialect.no_order and keys is None:
                    keys, cursor = await self._gathered(worker, run), None
                    if keys is None:
                        return run
                task = replace(
                    self.task,
                    slice=KeyRange(cursor),
                    overwrite=overwrite,
                    keys=None if keys is None else tuple(keys),
                    replayed_since=replayed_since,
                    budget_seconds=self.settings.task_seconds,
                )
                found = await worker.run(task)
                large = [*run.halted, *(first_task(task, meta) for meta in found.large)]
                reports, run.halted = await settle(large, worker.run)
                run.take_in(folded(found, reports))
                if found.disorder:  # as the commit notes it with the job
                    self._list_in_order(found.order)
                    if found.order is KeyOrder.NONE:
                        run.counts = Counts()
                        continue
                if run.last.finished or run.last.halt is not None:
                    return run
                cursor, replayed_since = run.last.cursor, None
        finally:
            await worker.close()
        raise AssertionError(f"not finished after {MOST_TASKS} tasks: {run.last}")

    async def _gathered(self, worker: Worker, run: Run) -> list[str] | None:
        """The keys of a source without an order; None: its listing halts."""
        keys: set[str] = set()
        token: str | None = None
        for _ in range(MOST_TASKS):
            task = GatherTask(
                job_id=self.task.job_id,
                range_id=self.task.range_id,
                source=self.task.source,
                target=self.task.target,
                prefix=self.task.prefix,
                token=token,
            )
            found = await worker.run(task)
            run.take_in(found)
            keys.update(found.keys)
            token = found.cursor
            if found.halt is not None:
                return None
            if found.finished:
                return sorted(keys)
        raise AssertionError(f"keys not gathered after {MOST_TASKS} tasks: {run.last}")

    def _list_in_order(self, order: KeyOrder) -> None:
        source = self.task.source
        is_none = order is KeyOrder.NONE
        dialect = replace(source.dialect, own_order=True, no_order=is_none)
        self.task = replace(self.task, source=replace(source, dialect=dialect))

    async def once(self, **changes: Any) -> RangeReport:  # noqa: ANN401 - fields of a task
        """Run one task, and those of the large objects that it finds."""
        worker = Worker(self.settings)
        task = replace(self.task, **changes)
        try:
            found = await worker.run(task)
            large = [first_task(task, meta) for meta in found.large]
            return folded(found, (await settle(large, worker.run))[0])
        finally:
            await worker.close()

    def check(self, run: Run, *, found: Mapping[str, bytes] | None = None) -> None:
        """Compare both buckets with what a finished run says of them.

        `found` are the objects that were at the target before and had to stay.
        """
        assert run.last.finished
        assert self.target.uploads() == []
        source, target = self.source.read_all(), self.target.read_all()
        found = found or {}
        left_out = {event.key for event in run.events}
        assert run.counts.objects == len(source)
        for key, stored in source.items():
            if key in found:
                assert target[key].body == found[key], key
            elif key not in left_out or key in target:  # a write whose answer was lost for good
                assert_equal(key, stored, target[key])
        assert set(target) <= set(source) | set(found)


def assert_equal(key: str, source: Stored, target: Stored) -> None:
    """Compare two objects byte by byte and header by header, without printing megabytes."""
    assert (key, target.headers) == (key, source.headers)
    assert (key, target.metadata) == (key, source.metadata)
    assert target.body == source.body, f"{key}: the bytes differ"


@contextmanager
def stage(
    source: S3Server,
    source_bucket: S3Bucket,
    target: S3Server,
    target_bucket: S3Bucket,
    *,
    settings: Settings = CALM,
    part: int = PART,
    seed: int = 0,
) -> Iterator[Stage]:
    """Put a proxy before each bucket while the block lasts.

    `part` is the least that the target allows.
    """
    if part != PART:
        changes = {"multipart_threshold_bytes": part, "part_bytes": part}
        settings = settings.model_copy(update=changes)
    with contextlib.ExitStack() as stack:
        before_source = stack.enter_context(FaultProxy(source.endpoint, seed=seed).running())
        before_target = stack.enter_context(FaultProxy(target.endpoint, seed=seed + 1).running())
        task = RangeTask(
            job_id="j" * 64,
            range_id=1,
            source=address(source, before_source, source_bucket.name),
            target=address(target, before_target, target_bucket.name, part=part),
            slice=KeyRange(),
        )
        yield Stage(
            source=source_bucket,
            target=target_bucket,
            source_proxy=before_source,
            target_proxy=before_target,
            task=task,
            settings=settings,
        )


def address(server: S3Server, proxy: FaultProxy, bucket: str, *, part: int = PART) -> StoreAddress:
    """Where a worker finds a bucket: behind the proxy."""
    return StoreAddress(
        origin=proxy.endpoint,
        bucket=bucket,
        region=server.region,
        dialect=replace(dialects.GENERIC, min_part_bytes=part),
        credentials=S3Credentials(
            access_key_id=server.access_key_id, secret_access_key=server.secret_access_key
        ),
    )
