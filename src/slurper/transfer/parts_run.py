"""One parts task under way: begin the upload, copy parts, complete it, report.

What ends how:

    | what                                         | then                                       |
    |----------------------------------------------|--------------------------------------------|
    | the time is used up                          | what is finished is reported, the rest not |
    | every part is there                          | the upload is completed, the object counts |
    | the object must be left out, or is broken    | the upload is aborted, the object counts   |
    | the source has another version, or           | the upload is aborted, the object is begun |
    | the upload is gone, damaged or too old       | again, `object_attempts` times at most     |
    | nothing can be copied at all                 | the job halts; upload and parts are kept   |
    | the task is cancelled                        | an upload that is not reported is aborted  |

A part is begun at most `object_attempts` times; below that, each request has its own retries.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from slurper import errors
from slurper.jobs.models import LogType
from slurper.objectstore.base import (
    ByteRange,
    ObjectHeaders,
    ObjectMeta,
    ObjectStore,
    Part,
    StoredObject,
)
from slurper.objectstore.dialects import PartCopy
from slurper.planning import selection
from slurper.planning.parts import PartPlan, plan_parts
from slurper.settings import Settings
from slurper.transfer import clocks, leftovers
from slurper.transfer.copy import (
    Copier,
    SourceChangedError,
    TargetChangedError,
    archived,
    changing_text,
    failure_text,
    pause_before,
)
from slurper.transfer.ledger import Failed, Large, Ledger, Outcome, Skipped, Transferred
from slurper.transfer.outage import find_outage
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.permission import Permission
from slurper.transfer.shortcuts import Shortcut, may_exist
from slurper.transfer.task import BegunUpload, Halt, PartsReport, PartsTask

_STATUS_OF_CHANGE = (412, 416)
"""If-Match does not hold, or the object has become too short for the range."""

_DAMAGED = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
"""The store does not have the parts that it has confirmed."""

_RESTED = timedelta(seconds=5)
"""A version this old has an earlier date than any that comes after it, at every machine of a store:
dates are whole seconds, and the clocks of its machines nearly agree."""

_Gone = SourceChangedError | TargetChangedError
Result = TypeVar("Result")


class PartsRun:
    """Runs one `PartsTask`."""

    def __init__(
        self,
        task: PartsTask,
        source: ObjectStore,
        target: ObjectStore,
        settings: Settings,
        budget: ByteBudget,
        *,
        shortcut: Shortcut | None = None,
    ) -> None:
        self._task = task
        self._source = source
        self._target = target
        self._budget = budget
        self._lanes = settings.in_flight_requests
        self._part_bytes = settings.part_bytes
        self._rules = selection.Rules(
            source=source.dialect,
            target=target.dialect,
            overwrite=task.overwrite,
            options=task.options,
        )
        self._pacer = None if task.share is None else Pacer(task.share)
        self._shortcut = shortcut
        # Without the shortcut: what is here goes in parts, or is no longer large.
        self._copier = Copier(
            source,
            target,
            self._rules,
            prefix=task.prefix,
            settings=settings,
            budget=budget,
            pacer=self._pacer,
        )
        self._key = self._copier.target_key(self._meta.key)
        self._begun_at = datetime.now(UTC)
        self._begun = task.upload.begun
        self._in_doubt = task.replayed_since is not None
        """There may be an upload of ours that nobody knows."""
        self._parts: dict[int, Part] = {}
        self._has_copied_inside = False
        """Some of these the store has copied itself."""
        self._attempts = 0
        self._restarted: ObjectMeta | None = None
        self._halt: Halt | None = None
        self._deadline = math.inf
        """Monotonic seconds. It is set when the first part is begun, so that no store is too slow
        for a task to get ahead."""

    async def report(self) -> PartsReport:
        """Work until the parts or the budget are used up, or the object has its outcome."""
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
            if self._in_doubt:
                # In the end: what a dead process had sent may reach the store late.
                await asyncio.shield(self._abort_lost())
        return self._report(outcome)

    async def sweep(self) -> PartsReport:
        """Copy nothing: only remove what work on the object has left half-done.

        Raises:
            SlurperError: something may be left.
        """
        task = self._task
        if self._begun is not None:
            await self._target.abort_upload(self._key, self._begun.upload_id)
        if task.replayed_since is not None:
            await leftovers.sweep(
                self._target, self._key, since=task.replayed_since, until=task.swept_until
            )
        return self._report(None)

    @property
    def _meta(self) -> ObjectMeta:
        return self._task.upload.meta

    def _report(self, outcome: Outcome | None) -> PartsReport:
        task = self._task
        ledger = Ledger(None)
        if outcome is not None:
            ledger.settle(ledger.open(self._meta.key), outcome)
        return PartsReport(
            job_id=task.job_id,
            upload=task.upload,
            begun=None if self._begun is task.upload.begun else self._begun,
            parts=tuple(self._parts[number] for number in sorted(self._parts)),
            restarted=self._restarted,
            counts=ledger.counts,
            events=tuple(ledger.events),
            halt=self._halt,
            attempts=self._attempts + self._copier.attempts,
            owed_seconds=0.0 if self._pacer is None else self._pacer.owed_seconds,
        )

    # What errors come to

    async def _try(self) -> Outcome | None:
        """Return the object's outcome, if it has one now."""
        try:
            try:
                return await self._work()
            except (SourceChangedError, TargetChangedError) as error:
                return await self._begin_again(error)
        except errors.RequiresRetrieval as error:
            return archived(error)
        except errors.SlurperError as error:
            cause = await self._cause_for_all(error)
            if cause is None:
                tries = self._copier.max_attempts if error.retryable else 1
                return Failed(failure_text(error, tries))
            self._halt = Halt(log_type=LogType.MIGRATION_ERROR, message=failure_text(cause, 1))
            return None

    async def _cause_for_all(self, error: errors.SlurperError) -> errors.SlurperError | None:
        """Why no object at all can be copied now; None when the error is this object's own."""
        if error.blocks_job:
            return error
        if isinstance(error, errors.AccessDenied):
            try:
                await self._permission().check(self._meta.key, error)
            except errors.SlurperError as cause:
                return cause
            return None
        return await find_outage(self._source, self._target) if error.retryable else None

    def _permission(self) -> Permission:
        task = self._task
        return Permission(
            self._source,
            self._target,
            prefix=task.prefix,
            target_prefix=self._copier.target_key(task.prefix),
            keys=task.sample,
        )

    async def _begin_again(self, error: _Gone) -> Outcome | None:
        """Have the object begun again, with a new upload, in the version that is there now."""
        attempt = self._task.upload.attempt
        if attempt >= self._copier.max_attempts:
            if isinstance(error, SourceChangedError):
                return Failed(changing_text(error, attempt))
            return Failed(failure_text(error, attempt))
        found = await self._copier.look_again(self._meta.key)
        if not isinstance(found, ObjectMeta):
            return found
        await asyncio.sleep(pause_before(attempt + 1))
        self._attempts += 1
        self._restarted = found
        return None

    async def _drop_upload(self) -> None:
        """Abort what is not completed; an upload that is over already is no error."""
        if self._begun is None:
            return
        try:
            await self._target.abort_upload(self._key, self._begun.upload_id)
        except errors.SlurperError:
            # It is looked for again, by its key, when all is over.
            self._in_doubt = True
        self._begun = None

    async def _abort_lost(self) -> None:
        found_at = self._task.upload.found_at
        own_since = self._begun_at if self._task.upload.begun is None else found_at
        since = self._task.replayed_since or own_since
        known = None if self._begun is None else self._begun.upload_id
        await leftovers.abort_lost(self._target, self._key, since=since, known=known)

    # The work

    async def _work(self) -> Outcome | None:
        if not self._copier.is_large(self._meta.size):
            return await self._copy_whole()
        if self._begun is None:
            found = await self._begin()
            if found is not None:
                return found
        elif (days := self._target.dialect.upload_days) is not None and (
            self._begun.begun_at < datetime.now(UTC) - timedelta(days=days)
        ):
            raise TargetChangedError(f"the upload is older than {days:g} days, and dropped")
        await self._copy_parts()
        return await self._complete()

    async def _copy_whole(self) -> Outcome:
        """Copy an object whose new version is no longer large."""
        existing = await self._find_existing()
        outcome = existing or await self._copier.copy(self._meta)
        if isinstance(outcome, Large):
            raise SourceChangedError("the object has become large again")
        return outcome

    async def _find_existing(self) -> Outcome | None:
        """How the object ends for what the target has under its key, with `overwrite=false`.

        The key was absent when its slice was planned. What is there now was written by this job,
        in work of which nobody knows, or by somebody else.
        """
        task = self._task
        if task.overwrite:
            return None
        try:
            existing = (await self._repeat(lambda: self._target.head(self._key))).meta
        except (errors.NotFound, errors.AccessDenied):
            return None  # who may not look learns it when the object is to be written
        if task.replayed_since is not None:
            since = task.replayed_since + await clocks.ahead_of_ours(self._target)
            if selection.copied_by_lost_work(self._meta.size, existing, since):
                return Transferred(self._meta.size)
        if task.upload.attempt > 1:
            return await self._copier.already_there(self._meta)
        return Skipped()

    async def _begin(self) -> Outcome | None:
        """Begin the upload, unless the object has its outcome without one."""
        if (existing := await self._find_existing()) is not None:
            return existing
        described = await self._repeat(self._describe)
        if isinstance(described, Skipped):
            return described
        plan = plan_parts(self._meta.size, self._target.dialect, part_bytes=self._part_bytes)
        upload_id = await self._repeat(lambda: self._create(described.headers))
        self._begun = BegunUpload(
            upload_id=upload_id,
            part_size=plan.part_size,
            whole_checked=self._target.checks_whole(upload_id),
            begun_at=datetime.now(UTC),
            last_modified=self._telling_date(described),
        )
        return None

    async def _describe(self) -> StoredObject | Skipped:
        return await self._copier.describe(self._meta)

    def _telling_date(self, described: StoredObject) -> datetime | None:
        """The date of the version, unless nothing else will tell its parts and it may come twice.

        Where parts are copied inside under no condition, the source is looked at before the first
        and after the last. The same ETag could have come back meanwhile, but not with this date.
        """
        date, served_at = described.meta.last_modified, described.served_at
        if not self._copies_blindly or date is None:
            return date
        return date if served_at is not None and served_at - date >= _RESTED else None

    @property
    def _may_be_inside(self) -> bool:
        """Parts may be copied inside, if not here then by a process with other settings."""
        return may_exist(self._task)

    @property
    def _copies_blindly(self) -> bool:
        """Parts that are copied inside are of whatever version is there."""
        unconditional = self._target.dialect.part_copy is PartCopy.UNCONDITIONAL
        return unconditional and self._may_be_inside

    def _may_hold_other_version(self, begun: BegunUpload) -> bool:
        """Whether a part may have been copied inside, by this task or those before it.

        Of parts that others have finished nobody knows how they came. What was read came under
        If-Match, or showed its version.
        """
        if self._copies_blindly and begun.last_modified is None:
            return False  # then all are read
        return self._has_copied_inside or (self._may_be_inside and bool(self._task.done))

    async def _check_unchanged(self, begun: BegunUpload) -> None:
        """Raise SourceChangedError, unless the source is still what was begun with.

        Raises:
            NotFound: it is gone, and the store is not known to have copied under a condition.
        """
        try:
            described = await self._describe()
        except errors.NotFound:
            dialect = self._target.dialect
            if dialect.part_copy is PartCopy.CONDITIONAL and not dialect.assumed:
                return
            raise
        if isinstance(described, StoredObject):
            _check_version(self._dated(begun), described.meta)

    def _dated(self, begun: BegunUpload) -> ObjectMeta:
        return self._meta._replace(last_modified=begun.last_modified)

    async def _create(self, headers: ObjectHeaders) -> str:
        # Until its id has come, the store may have begun an upload that nobody knows.
        was_in_doubt, self._in_doubt = self._in_doubt, True
        upload_id = await self._target.create_upload(self._key, headers)
        self._in_doubt = was_in_doubt
        return upload_id

    def _plan(self, begun: BegunUpload) -> PartPlan:
        return PartPlan(self._meta.size, begun.part_size)

    async def _copy_parts(self) -> None:
        """Copy the parts of this task side by side; the first failure cancels the others."""
        begun = self._begun
        assert begun is not None  # noqa: S101 - `_work` has seen to it
        wanted = (
            range(1, self._plan(begun).count + 1)
            if self._task.numbers is None
            else self._task.numbers
        )
        todo = iter(wanted)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._lanes, len(wanted))):
                    group.create_task(self._lane(begun, todo))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _lane(self, begun: BegunUpload, todo: Iterator[int]) -> None:
        plan = self._plan(begun)
        for number in todo:
            byte_range = plan.byte_range(number)
            size = len(byte_range)
            if self._pacer is not None and not await self._is_our_turn(self._pacer, size):
                return
            await self._budget.acquire(size)
            try:
                # Looked at here: a lane may have waited long for its bytes.
                if time.monotonic() >= self._deadline:
                    return
                if self._deadline == math.inf:
                    self._deadline = time.monotonic() + self._task.budget_seconds
                copy = functools.partial(self._copy_part, begun, number, byte_range)
                self._parts[number] = await self._repeat(copy)
            finally:
                self._budget.release(size)

    async def _is_our_turn(self, pacer: Pacer, size: int) -> bool:
        """Wait until another part may begin, and pay for it; False when there is no time for it."""
        async with pacer.queue:
            await pacer.turn(self._deadline)
            if time.monotonic() >= self._deadline:
                return False
            pacer.spend(size=size, requests=2)
            return True

    async def _copy_part(self, begun: BegunUpload, number: int, byte_range: ByteRange) -> Part:
        meta = self._meta
        if (inside := await self._copy_part_inside(begun, number, byte_range)) is not None:
            return inside
        try:
            download = await self._source.get(
                meta.key,
                if_match=meta.etag,
                byte_range=byte_range,
                checksum=self._target.dialect.checksum,
            )
        except errors.IntegrityError:
            await self._describe()  # stores that know no If-Match show a change by a wrong length
            raise
        except errors.StoreError as error:
            if error.status in _STATUS_OF_CHANGE:
                raise SourceChangedError(str(error)) from error
            raise
        _check_version(self._dated(begun), download.stored.meta)
        try:
            return await self._target.put_part(self._key, begun.upload_id, number, download.body)
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error

    async def _copy_part_inside(
        self, begun: BegunUpload, number: int, byte_range: ByteRange
    ) -> Part | None:
        """Let the store copy a part itself; None when it does not."""
        shortcut = self._shortcut
        if shortcut is None or shortcut.is_closed:
            return None
        if self._copies_blindly and begun.last_modified is None:
            return None
        try:
            part = await shortcut.copy_part(
                self._target, self._key, begun.upload_id, number, self._meta, byte_range
            )
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error
        self._has_copied_inside = self._has_copied_inside or part is not None
        return part

    async def _complete(self) -> Outcome | None:
        """Complete the upload if this task may, and every part is there."""
        begun, done = self._begun, self._task.done
        assert begun is not None  # noqa: S101 - `_work` has seen to it
        if done is None or len(done) + len(self._parts) < self._plan(begun).count:
            return None
        parts = sorted((*done, *self._parts.values()), key=_number)
        if self._may_hold_other_version(begun):
            # Parts copied inside do not tell their version.
            await self._repeat(functools.partial(self._check_unchanged, begun))
        if not self._target.dialect.conditional_completion:
            existing = await self._find_existing()
            if existing is not None:
                return existing
        try:
            await self._repeat(functools.partial(self._join, begun, parts))
        except errors.PreconditionFailed:
            return await self._copier.already_there(self._meta)
        self._begun = None
        return Transferred(self._meta.size)

    async def _join(self, begun: BegunUpload, parts: Sequence[Part]) -> None:
        try:
            await self._target.complete_upload(
                self._key,
                begun.upload_id,
                parts,
                if_absent=not self._task.overwrite,
                whole_checked=begun.whole_checked,
            )
        except (errors.NotFound, errors.IntegrityError) as error:
            raise TargetChangedError(str(error)) from error
        except errors.StoreError as error:
            if error.code in _DAMAGED:
                raise TargetChangedError(str(error)) from error
            raise

    async def _repeat(self, request: Callable[[], Awaitable[Result]]) -> Result:
        """Make a request, as many times as an object may be begun if it fails for a passing cause.

        Raises:
            SlurperError: what it came to at last.
        """
        attempt = 1
        while True:
            try:
                return await request()
            except (SourceChangedError, TargetChangedError):
                raise
            except errors.SlurperError as error:
                passing = error.retryable and not error.blocks_job
                if not passing or attempt >= self._copier.max_attempts:
                    raise
            await asyncio.sleep(pause_before(attempt + 1))
            attempt += 1
            self._attempts += 1


def _number(part: Part) -> int:
    return part.number


def _check_version(wanted: ObjectMeta, got: ObjectMeta) -> None:
    """Refuse another version, of which a store that knows no If-Match may send or copy a part.

    Raises:
        SourceChangedError: it is another.
    """
    of_both = ((wanted.etag, got.etag), (wanted.last_modified, got.last_modified))
    differ = any(one and other and one != other for one, other in of_both)
    if differ or wanted.size != got.size:
        raise SourceChangedError("there is another version than HEAD showed at first")
