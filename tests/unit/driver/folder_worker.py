"""A worker that copies numbered objects into a folder: a store that survives every kill."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from slurper.job.model import Counts
from slurper.settings import Settings
from slurper.transfer.task import RangeReport, RangeTask

FOLDER = "TEST_TARGET_FOLDER"
BODY = b"12345"
OBJECTS_PER_TASK = 40


class FolderWorker:
    """Copies the objects `00001` to the number that is the source bucket's name."""

    def __init__(self, _settings: Settings) -> None:
        self._folder = Path(os.environ[FOLDER])

    async def run(self, task: RangeTask) -> RangeReport:
        last = int(task.source.bucket)
        first = int(task.slice.start_after or "0") + 1
        deadline = time.monotonic() + task.budget_seconds
        cursor, transferred, skipped = task.slice.start_after, 0, 0
        for number in range(first, min(last + 1, first + OBJECTS_PER_TASK)):
            if time.monotonic() > deadline and transferred + skipped:
                break
            cursor = f"{number:05}"
            if self._is_skipped(self._folder / cursor, task):
                skipped += 1
            else:
                transferred += 1
            await asyncio.sleep(0.001)
        return RangeReport(
            job_id=task.job_id,
            range_id=task.range_id,
            started_after=task.slice.start_after,
            cursor=cursor,
            finished=cursor == f"{last:05}",
            counts=Counts(
                objects=transferred + skipped,
                transferred=transferred,
                skipped=skipped,
                transferred_bytes=transferred * len(BODY),
            ),
        )

    def waits(self) -> dict[str, dict[str, int]]:
        return {}

    def job_ended(self, job_id: str) -> None:
        """Nothing is open."""

    async def close(self) -> None:
        """Nothing is open."""

    def _is_skipped(self, path: Path, task: RangeTask) -> bool:
        if not path.exists() or task.overwrite:
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(BODY)
            unfinished.rename(path)
            return False
        # As stores do: whole seconds, and equal size with a later time is our own lost work.
        modified = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
        since = task.replayed_since
        same_size = path.stat().st_size == len(BODY)
        return not (since is not None and same_size and modified >= since)
