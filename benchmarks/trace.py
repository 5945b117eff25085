"""What a copy waits for: the share of its lanes that wait for each thing, and how busy a core is.

    python -m benchmarks.trace [--set L] [--target nginx] [--lanes 64]

One worker copies a set, in one process, without start-up, database and job. Each lane copies one
object or part at a time. The report says how many lanes waited for each thing, on average:

    source      requests to the source, and bytes of a body that is passed on
    target      requests to the target, and its taking of such bytes
    window      room for more bytes in flight
    checksum    checksums that are computed in threads
    loop        the event loop: it was at work, or another process had the core

The rest of the time the lanes worked, or had nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar, cast

import uvloop
from tests.chain import first_task, settle

from benchmarks.run import TARGETS, scratch_folder, staged
from benchmarks.sets import SETS
from slurper.engine.child import tune_process
from slurper.http.client import TransportOptions
from slurper.http.streams import Pieces
from slurper.objectstore import dialects
from slurper.objectstore.base import Body, ObjectStore, StoreAddress
from slurper.objectstore.factory import StoreOpener
from slurper.objectstore.streamed import StreamedBody, StreamedDownload
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer.pacing import ByteBudget
from slurper.transfer.task import RangeTask
from slurper.transfer.worker import Worker

LONG_SECONDS = 3600.0
TICK_SECONDS = 0.005

Result = TypeVar("Result")


class Meter:
    """Seconds that all lanes together have waited, by what they waited for."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.late = 0.0
        self.longest = 0.0

    @contextmanager
    def waiting(self, what: str, besides: str = "") -> Iterator[None]:
        """Count the time of a block; it does not count for `besides`, whose block it is in."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self.seconds[what] += seconds
            if besides:
                self.seconds[besides] -= seconds

    def timed(
        self, what: str, call: Callable[..., Awaitable[Result]]
    ) -> Callable[..., Awaitable[Result]]:
        """The same function, whose time is counted."""

        async def counted(*args: Any, **named: Any) -> Result:  # noqa: ANN401 - passed through
            with self.waiting(what):
                return await call(*args, **named)

        return counted

    async def watch_loop(self) -> None:
        """Count how late the event loop is."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            late = time.perf_counter() - due
            self.late += late
            self.longest = max(self.longest, late)


class Traced:
    """A store whose requests are timed."""

    def __init__(self, store: ObjectStore, side: str, meter: Meter) -> None:
        self._store = store
        self._side = side
        self._meter = meter

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any member of a store
        found = getattr(self._store, name)
        return self._meter.timed(self._side, found) if asyncio.iscoroutinefunction(found) else found

    # Named, because a protocol of methods does not see what `__getattr__` gives.

    async def get_stream(self, *args: Any, **named: Any) -> StreamedDownload:  # noqa: ANN401
        """Begin to read."""
        with self._meter.waiting(self._side):
            begun: StreamedDownload = await cast("Any", self._store).get_stream(*args, **named)
        return begun

    async def put_stream(self, key: str, body: StreamedBody, *args: Any, **named: Any) -> str:  # noqa: ANN401
        """Write; the waits for pieces of the body are those for the source."""
        passed = cast("StreamedBody", _TracedBody(body, self._meter))
        with self._meter.waiting("target"):
            etag: str = await cast("Any", self._store).put_stream(key, passed, *args, **named)
        return etag


class _TracedBody:
    def __init__(self, body: StreamedBody, meter: Meter) -> None:
        self.length, self.told = body.length, body.told
        self._body = body
        self._meter = meter

    async def open(self) -> Pieces:
        with self._meter.waiting("source", besides="target"):
            pieces = await self._body.open()
        read = pieces.read

        async def timed() -> bytes | bytearray:
            with self._meter.waiting("source", besides="target"):
                return await read()

        pieces.read = timed  # type: ignore[method-assign]
        return pieces


async def traced(task: RangeTask, settings: Settings) -> None:
    """Copy what a task names, large objects too, and print what was waited for."""
    meter = Meter()
    opener = StoreOpener()

    def open_store(address: StoreAddress, options: TransportOptions) -> ObjectStore:
        side = "source" if address == task.source else "target"
        return cast("ObjectStore", Traced(opener(address, options), side, meter))

    for kind, name, what in ((ByteBudget, "acquire", "window"), (Body, "computed", "checksum")):
        setattr(kind, name, meter.timed(what, getattr(kind, name)))
    worker = Worker(settings, open_store=open_store)
    watch = asyncio.create_task(meter.watch_loop())
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    report = await worker.run(task)
    large = [first_task(task, meta) for meta in report.large]
    settled = await asyncio.gather(*(settle([one], worker.run) for one in large))
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    watch.cancel()
    await worker.close()
    counts = [report.counts, *(one.counts for reports, _ in settled for one in reports)]
    if report.halt is not None or any(halted for _, halted in settled):
        raise SystemExit(f"the copy halted: {report.halt}")
    moved = sum(one.transferred_bytes for one in counts)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{wall:.2f} s, {moved / wall / 1e6:.0f} MB/s, {cpu / wall:.2f} of one core,")
    print(f"{len(large)} objects in parts")
    print("waited for   lanes on average")
    for what in ("source", "target", "window", "checksum"):
        print(f"{what:12} {meter.seconds[what] / wall:6.2f}")
    print(f"loop         late for {meter.late:.2f} s in all, {1e3 * meter.longest:.0f} ms at most")


def main() -> None:
    """Copy a set and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=list(SETS), default="L")
    parser.add_argument("--target", choices=list(TARGETS), default="nginx")
    parser.add_argument("--lanes", type=int, default=Settings().in_flight_requests)
    arguments = parser.parse_args()
    each = SETS[arguments.set]
    with scratch_folder(None) as scratch, staged(each, arguments.target, scratch) as stage:
        stage.target.create("traced")
        credentials = S3Credentials(
            access_key_id=stage.target.access_key_id,
            secret_access_key=stage.target.secret_access_key,
        )
        source, target = (
            StoreAddress(
                origin=url,
                bucket=bucket,
                region="us-east-1",
                dialect=replace(dialects.GENERIC, verifies_md5=each.within_store),
                credentials=credentials,
                trusted=True,
            )
            for url, bucket in (
                (stage.source_url, each.dataset.bucket),
                (stage.target_url, "traced"),
            )
        )
        task = RangeTask(
            job_id="trace",
            range_id=1,
            source=source,
            target=target,
            slice=KeyRange(),
            budget_seconds=LONG_SECONDS,
        )
        settings = Settings(
            allow_http=True,
            allow_private_endpoints=True,
            ca_file=stage.ca_file,
            in_flight_requests=arguments.lanes,
        )
        tune_process(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(traced(task, settings))


if __name__ == "__main__":
    main()
