"""Resident memory of the control plane and a worker over a job of millions of objects.

    python -m benchmarks.memory [--objects N]

One real job: database, driver, engine, a worker process. Only the stores are made up: the source
lists N objects that exist when they are asked for, the target drops what it is given. Memory is
read at a tenth of the job and at its end; flat means that the two do not differ.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from slurper.database.work import WorkStore
from slurper.driver.loop import Driver
from slurper.engine.local import LocalEngine
from slurper.job.model import Job, JobSpec, JobStatus, Location, LogEntry, LogType, Vendor
from slurper.node import Node, assembled
from slurper.secrets import JobSecrets, S3Credentials
from slurper.settings import Settings

ACCOUNT = "bench"


async def create(node: Node, objects: int) -> str:
    """Store the job; there is nothing to check beforehand."""
    pair = S3Credentials(access_key_id="none", secret_access_key="none")  # noqa: S106 - no secret
    source = Location(vendor=Vendor.S3, bucket=f"objects-{objects}", endpoint="http://none.invalid")
    target = Location(vendor=Vendor.S3, bucket="nowhere", endpoint="http://none.invalid")
    now = datetime.now(UTC)
    job = Job(
        id=secrets.token_hex(32),
        account_id=ACCOUNT,
        spec=JobSpec(source=source, target=target),
        status=JobStatus.RUNNING,
        created_at=now,
    )
    sealed = node.sealer.seal(JobSecrets(source=pair, target=pair))
    entry = LogEntry(log_type=LogType.MIGRATION_START, created_at=now)
    await node.store.create_job(job, sealed, max_active=1, entry=entry)
    return job.id


def resident_mib(pid: int) -> float:
    """What a process holds in memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def measure(objects: int, folder: Path) -> None:
    """Run the job, and print memory on the way."""
    settings = Settings(data_dir=folder, workers=1, allow_http=True)
    async with assembled(settings) as node, node.leadership.hold() as tenure:
        engine = LocalEngine(settings, worker_factory="benchmarks.synthetic_worker:make_worker")
        work = WorkStore(node.store.database, tenure.lease)
        driver = Driver(work, engine, node.sealer, settings, woken=node.woken)
        job_id = await create(node, objects)
        await engine.start()
        driving = asyncio.create_task(driver.run())
        marks = iter((objects // 10, objects))
        mark = next(marks)
        while True:
            progress = await node.store.progress(ACCOUNT, job_id)
            if progress.counts.objects >= mark:
                (worker,) = engine.worker_pids
                print(
                    f"{progress.counts.objects:>10,} objects:"
                    f" control plane {resident_mib(os.getpid()):.0f} MiB,"
                    f" worker {resident_mib(worker):.0f} MiB",
                    flush=True,
                )
                mark = next(marks, 0)
                if not mark:
                    break
            await asyncio.sleep(0.2)
        await driver.stop(10)
        await driving
        await engine.stop(10)


def main() -> None:
    """Measure a job of five million objects, or as many as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=5_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(arguments.objects, Path(folder)))


if __name__ == "__main__":
    main()
