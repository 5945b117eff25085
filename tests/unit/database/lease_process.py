"""A process of its own that holds the driver's lease, and commits with it when asked to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime

from slurper import errors
from slurper.database.leases import Lease, LeaseStore
from slurper.database.store import JobStore
from slurper.database.work import WorkStore
from slurper.job.model import Counts
from slurper.transfer.task import RangeReport


async def hold(database_url: str, seconds: float) -> tuple[JobStore, Lease]:
    store = await JobStore.open(database_url)
    lease = await LeaseStore(store.database).acquire("driver", seconds)
    assert lease is not None
    return store, lease


async def commit_on_and_on(database_url: str, job_id: str) -> None:
    """Commit one object, stop as by SIGSTOP, commit the next ones until that is refused.

    It stops with a report in hand, outside of any transaction.
    """
    store, lease = await hold(database_url, 0.2)
    work = WorkStore(store.database, lease)
    try:
        while True:
            (job_work,) = [one for one in await work.running_jobs() if one.job.id == job_id]
            (left,) = job_work.ranges
            number = int(left.slice.start_after or "0") + 1
            report = RangeReport(
                job_id=job_id,
                range_id=left.range_id,
                started_after=left.slice.start_after,
                cursor=f"{number:08}",
                finished=False,
                counts=Counts(objects=1, transferred=1),
            )
            if number > 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            await work.commit(report, datetime.now(UTC))
            print("committed", flush=True)  # noqa: T201 - this is what it is asked for
    except errors.LeaseLost as error:
        print(f"LeaseLost: {error}", flush=True)  # noqa: T201
    finally:
        await store.close()


async def main() -> None:
    match sys.argv[1:]:
        case [database_url, "hold"]:
            _, lease = await hold(database_url, 3600)
            print(lease.token, flush=True)  # noqa: T201
            await asyncio.to_thread(sys.stdin.read)
        case [database_url, "commit", job_id]:
            await commit_on_and_on(database_url, job_id)


if __name__ == "__main__":
    asyncio.run(main())
