"""One parts task under way: begin the upload, copy parts, complete it, report.

How a task ends:

    | what                                         | then                                       |
    |----------------------------------------------|--------------------------------------------|
    | the time is used up                          | what is finished is reported, the rest not |
    | every part is there                          | the upload is completed, the object counts |
    | the object must be left out, or is broken    | the upload is aborted, the object counts   |
    | the source has another version, or           | the upload is aborted, the object is begun |
    | the upload is gone, damaged or too old, or   | again, `object_attempts` times at most     |
    | the parts have another checksum than the     |                                            |
    | source tells of the object                   |                                            |
    | nothing can be copied at all                 | the job halts; upload and parts are kept   |
    | the task is cancelled                        | an upload that is not reported is aborted  |
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from slurper import errors
from slurper.objectstore.base import ObjectMeta, ObjectStore
from slurper.transfer import leftovers
from slurper.transfer.attempts import (
    GONE,
    SourceChangedError,
    TargetChangedError,
    changing_text,
    pause_before,
)
from slurper.transfer.copy import Copier, CopyMeans, archived
from slurper.transfer.diagnosis import Diagnosis, failure_text, own_failure_text
from slurper.transfer.large_object import LargeObject
from slurper.transfer.ledger import Failed, Ledger, Outcome
from slurper.transfer.pacing import Pacer
from slurper.transfer.route import Route
from slurper.transfer.task import BegunUpload, PartsReport, PartsTask
from slurper.transfer.upload_begin import UploadBegin
from slurper.transfer.upload_complete import UploadComplete
from slurper.transfer.upload_parts import UploadParts


class PartsRun:
    """Runs one `PartsTask`."""

    def __init__(
        self, task: PartsTask, source: ObjectStore, target: ObjectStore, means: CopyMeans
    ) -> None:
        self._task = task
        route = Route.of(task, source, target)
        self._pacer = None if task.share is None else Pacer(task.share)
        # Without the shortcut: the object goes in parts, or is no longer large.
        copier = Copier(
            route, route.rules(task), replace(means, shortcut=None, streams=None), self._pacer
        )
        self._large = LargeObject(task, route, copier)
        self._begin = UploadBegin(self._large, means)
        self._parts = UploadParts(self._large, means, self._pacer)
        self._complete = UploadComplete(self._large, self._parts, means.etags)
        self._diagnosis = Diagnosis(route, keys=task.sample)
        self._begun_at = datetime.now(UTC)
        self._begun = task.upload.begun
        self._may_have_lost = task.replayed_since is not None
        """There may be an upload of ours whose id we do not know."""
        self._restarted: ObjectMeta | None = None

    async def report(self) -> PartsReport:
        """Work until the parts or the time are used up, or the object has its outcome."""
        try:
            outcome = await self._try()
            if outcome is not None or self._restarted is not None:
                await asyncio.shield(self._drop_upload())
        except BaseException:
            if self._begun is not self._task.upload.begun:
                # Shielded: a cancelled task must not leave parts behind that somebody pays for.
                await asyncio.shield(self._drop_upload())
            raise
        finally:
            if self._may_have_lost or self._begin.is_unanswered:
                # Done last, because a request of a dead process may reach the store late.
                await asyncio.shield(self._abort_lost())
        return self._report(outcome)

    def _report(self, outcome: Outcome | None) -> PartsReport:
        task, finished = self._task, self._parts.finished
        ledger = Ledger(None)
        if outcome is not None:
            ledger.settle(ledger.open(self._large.meta.key), outcome)
        return PartsReport(
            job_id=task.job_id,
            upload=task.upload,
            begun=None if self._begun is task.upload.begun else self._begun,
            parts=tuple(finished[number] for number in sorted(finished)),
            restarted=self._restarted,
            seen="" if self._restarted is None else self._complete.seen,
            counts=ledger.counts,
            events=tuple(ledger.events),
            halt=self._diagnosis.halt,
            attempts=self._large.attempts.again,
            owed_seconds=0.0 if self._pacer is None else self._pacer.owed_seconds,
        )

    async def _work(self) -> Outcome | None:
        """Take the next steps; return the object's outcome, if it has one now."""
        large = self._large
        if not large.copier.is_large(large.meta):
            return await self._begin.copy_whole()
        if self._begun is None:
            found = await self._begin.begin()
            if not isinstance(found, BegunUpload):
                return found
            self._begun = found
        elif (days := large.target.dialect.upload_days) is not None and (
            self._begun.begun_at < datetime.now(UTC) - timedelta(days=days)
        ):
            raise TargetChangedError(f"the upload is older than {days:g} days, and dropped")
        await self._parts.copy(self._begun)
        outcome = await self._complete.complete(self._begun)
        if self._complete.is_over:
            self._begun = None
        return outcome

    # Errors

    async def _try(self) -> Outcome | None:
        """Return the object's outcome, if it has one now."""
        key, attempts = self._large.meta.key, self._large.attempts
        try:
            try:
                return await self._work()
            except GONE as error:
                return await self._begin_again(error)
        except errors.RequiresRetrieval as error:
            return archived(error)
        except errors.SlurperError as error:
            if await self._diagnosis.is_of_object(key, error, came_at=time.monotonic()):
                return Failed(own_failure_text(error, attempts.max))
            return None

    async def _begin_again(self, error: errors.SlurperError) -> Outcome | None:
        """Let the next task begin the version that is there now, with a new upload."""
        upload, seen = self._task.upload, self._complete.seen
        attempts = self._large.attempts
        came_twice = seen != "" and seen == upload.seen
        if upload.attempt >= attempts.max or came_twice:
            if isinstance(error, SourceChangedError):
                return Failed(changing_text(error, upload.attempt))
            return Failed(failure_text(error, upload.attempt))
        found = await self._large.versions.look_again(upload.meta.key)
        if not isinstance(found, ObjectMeta):
            return found
        await pause_before(upload.attempt + 1)
        attempts.again += 1
        self._restarted = found
        return None

    async def _drop_upload(self) -> None:
        """Abort the upload if it is not completed. If that fails, it is looked for at the end."""
        if self._begun is None:
            return
        try:
            await self._large.target.abort_upload(self._large.target_key, self._begun.upload_id)
        except errors.SlurperError:
            # `_abort_lost` looks for it again, by its key.
            self._may_have_lost = True
        self._begun = None

    async def _abort_lost(self) -> None:
        upload = self._task.upload
        own_since = self._begun_at if upload.begun is None else upload.found_at
        since = self._task.replayed_since or own_since
        known = None if self._begun is None else self._begun.upload_id
        await leftovers.abort_lost(
            self._large.target, self._large.target_key, since=since, known=known
        )
