"""One turn of a large object: copies some of its parts. It may have several turns at once."""

from __future__ import annotations

import contextlib
from typing import Any

from slurper.database.job_row import CommitResult
from slurper.driver import assignment
from slurper.driver.open_work import Dealt, OpenUpload
from slurper.driver.turn import Means, Turn
from slurper.job.model import Job
from slurper.planning.keyspace import KeyRange
from slurper.transfer.diagnosis import SAMPLE
from slurper.transfer.task import PartsReport, PartsTask, Task


class UploadTurn(Turn[OpenUpload, PartsReport]):
    """One turn of a large object."""

    def __init__(self, open_work: OpenUpload, job: Job, means: Means) -> None:
        super().__init__(open_work, job, means)
        self._dealing = contextlib.ExitStack()
        """Reserves the parts of this turn until it ends."""

    @property
    def where(self) -> str:
        """The object's key."""
        return f"The copy of the large object {self.open_work.upload.meta.key!r} cannot go on"

    def halt(self, message: str) -> PartsReport:
        """A report that pauses the job and holds no work."""
        return PartsReport(
            job_id=self.job.id, upload=self.open_work.upload, halt=assignment.halt(message)
        )

    async def next_task(self, sealed: bytes) -> Task[Any] | PartsReport:
        """Deal parts and return the task that copies them."""
        open_upload, store = self.open_work, self._means.store
        sample: tuple[str, ...] = ()
        if self.job.spec.keys is not None:
            sample = await self._read_keys(KeyRange(), SAMPLE)
        if open_upload.upload.begun is None:
            open_upload.know_parts(())
        elif open_upload.parts is None:
            open_upload.know_parts(await self.patiently(lambda: store.parts(open_upload.upload)))
        part_bytes = self._means.settings.part_bytes
        dealt = self._dealing.enter_context(open_upload.deal(part_bytes))
        return self._made(lambda: self._parts_task(dealt, sample, sealed))

    def absorb(self, report: PartsReport, result: CommitResult) -> None:
        """Keep the parts that are finished."""
        open_upload, board = self.open_work, self._board
        is_begun_again = result.still_open and report.restarted is not None
        if not result.applied or is_begun_again:  # so it must be read from the database again
            board.close(open_upload)
            self._means.wake()
        elif result.still_open:
            open_upload.add_parts(report)
            self._hold_back_if_owing()
            self._hold_back_if_fruitless(report)
        else:
            board.close(open_upload)
        if result.applied and report.settled:
            board.count_unsettled(self.job.id, -1)

    def end(self) -> None:
        """Give back what the turn had, also its parts."""
        self._dealing.close()
        super().end()

    def _got_ahead(self, report: PartsReport) -> bool:
        return bool(report.parts) or report.begun is not None

    def _parts_task(self, dealt: Dealt, sample: tuple[str, ...], sealed: bytes) -> PartsTask:
        upload, spec = self.open_work.upload, self.job.spec
        since = assignment.replayed_since(upload.found_at)
        return PartsTask(
            upload=upload,
            sample=sample,
            overwrite=spec.overwrite,
            options=spec.options,
            numbers=dealt.numbers,
            done=dealt.done,
            replayed_since=since if self.open_work.uncounted else None,
            **self._means.sides(self.job, sealed),
            **self._quota(),
        )
