"""One parts task under way: begin the upload, copy parts, complete it, report.

What ends how:

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

A part is begun at most `object_attempts` times; below that, each request has its own retries.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from slurper import errors, telemetry
from slurper.job.model import LogType
from slurper.objectstore import entity_tags, failures, verification
from slurper.objectstore.base import (
    Body,
    ByteRange,
    Download,
    ObjectHeaders,
    ObjectMeta,
    ObjectStore,
    Part,
    StoredObject,
)
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import PartCopy
from slurper.objectstore.verification import etag_of_parts, md5_of_etag
from slurper.planning import selection
from slurper.planning.parts import (
    PartPlan,
    SourceSum,
    plan_parts,
    sum_of_whole,
    sums_of_parts,
)
from slurper.settings import Settings
from slurper.transfer import clocks, leftovers
from slurper.transfer.copy import (
    Copier,
    PartsDisagreeError,
    SourceChangedError,
    TargetChangedError,
    archived,
    changing_text,
    failure_text,
    halt_text,
    pause_before,
)
from slurper.transfer.etags import SourceEtags
from slurper.transfer.ledger import Failed, Large, Ledger, Outcome, Skipped, Transferred
from slurper.transfer.outage import find_outage
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.permission import LEARNED_LATE, Permission, alone_text
from slurper.transfer.server_side import Shortcut, may_exist
from slurper.transfer.task import BegunUpload, Halt, PartsReport, PartsTask

_log = telemetry.get_logger(__name__)

_TOO_SHORT = 416
"""The object no longer reaches as far as the range."""

_DAMAGED = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
"""The store does not have the parts that it has confirmed."""

_RESTED = timedelta(seconds=5)
"""A version this old has an earlier date than any that comes after it, at every machine of a store:
dates are whole seconds, and the clocks of its machines nearly agree."""

_Gone = SourceChangedError | TargetChangedError | PartsDisagreeError
_GONE = (SourceChangedError, TargetChangedError, PartsDisagreeError)
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
        etags: SourceEtags | None = None,
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
            etags=etags,
        )
        self._etags = etags or SourceEtags(source.dialect)
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
        self._seen = ""
        """The checksum that the parts gave, if it is not the one that the source tells."""
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
            seen="" if self._restarted is None else self._seen,
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
            except _GONE as error:
                return await self._begin_again(error)
        except errors.RequiresRetrieval as error:
            return archived(error)
        except errors.SlurperError as error:
            cause = await self._cause_for_all(error)
            if cause is None:
                return Failed(self._text(error))
            key = self._meta.key if isinstance(error, errors.Refused) else None
            self._halt = Halt(log_type=LogType.MIGRATION_ERROR, message=halt_text(cause, key))
            return None

    def _text(self, error: errors.SlurperError) -> str:
        if isinstance(error, errors.Refused):
            return alone_text(error)
        return failure_text(error, self._copier.max_attempts if error.retryable else 1)

    async def _cause_for_all(self, error: errors.SlurperError) -> errors.SlurperError | None:
        """Why no object at all can be copied now; None when the error is this object's own."""
        if isinstance(error, errors.Refused):
            try:
                await self._permission().check(self._meta.key, error, came_at=time.monotonic())
            except errors.SlurperError as cause:
                return cause
            return None
        if error.blocks_job:
            return error
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
        came_twice = self._seen != "" and self._seen == self._task.upload.seen
        if attempt >= self._copier.max_attempts or came_twice:
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

    async def _find_existing(self, parts: Sequence[Part] = ()) -> Outcome | None:
        """How the object ends for what the target has under its key, with `overwrite=false`.

        The key was absent when its slice was planned. The object there now was written by this job,
        in work whose report was lost, or by somebody else. If it is made of these `parts`, it is
        ours.
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
            if selection.may_be_ours(self._meta.size, existing, since):
                return await self._compare(existing, parts)
        if task.upload.attempt > 1:
            return await self._compare(existing, parts)
        return Skipped()

    async def _compare(self, existing: ObjectMeta, parts: Sequence[Part]) -> Outcome:
        """Decide whether this job or somebody else has made the object."""
        made = verification.multipart_etag(parts) if parts else None
        if made is not None and verification.same_bytes(made, existing.etag):
            return Transferred(self._meta.size)
        return await self._repeat(functools.partial(self._copier.already_there, self._meta))

    async def _begin(self) -> Outcome | None:
        """Begin the upload, unless the object has its outcome without one."""
        if (existing := await self._find_existing()) is not None:
            return existing
        described = await self._repeat(functools.partial(self._describe, with_checksums=True))
        if isinstance(described, Skipped):
            return described
        told = await self._repeat(functools.partial(self._sum_told, described))
        part_size = None if told is None else told.part_bytes
        if part_size is None:
            dialect, part_bytes = self._target.dialect, self._part_bytes
            part_size = plan_parts(self._meta.size, dialect, part_bytes=part_bytes).part_size
        try:
            upload_id = await self._repeat(lambda: self._create(described.headers))
        except errors.StoreError as error:
            if not failures.lacks_uploads(error):
                raise
            self._in_doubt = self._task.replayed_since is not None
            return await self._copy_in_one(error)
        self._begun = BegunUpload(
            upload_id=upload_id,
            part_size=part_size,
            whole_checked=self._target.checks_whole(upload_id),
            begun_at=datetime.now(UTC),
            last_modified=self._telling_date(described),
            source_sum=told,
        )
        return None

    async def _copy_in_one(self, refusal: errors.StoreError) -> Outcome:
        """Write the object in one request, to a target without uploads in parts."""
        limit = min(self._target.dialect.max_put_bytes, self._budget.limit)
        if self._meta.size > limit:
            return Failed(
                f"{refusal}; the target knows no uploads in parts, and {self._meta.size} bytes are "
                f"too many for one request, which may have {limit}: raise SLURPER_IN_FLIGHT_BYTES, "
                "which bounds it, or copy the object by hand"
            )
        self._copier.take_whole(limit)
        return await self._copy_whole()

    async def _describe(self, *, with_checksums: bool = False) -> StoredObject | Skipped:
        return await self._copier.describe(self._meta, with_checksums=with_checksums)

    async def _sum_told(self, described: StoredObject) -> SourceSum | None:
        """The checksum that the source tells and that the parts will give again."""
        whole = sum_of_whole(described)
        of_parts = described.told_of_parts or etag_of_parts(described)
        if whole is not None or not of_parts:
            return whole
        first = await self._source.first_part_bytes(self._meta.key)
        if first is None:
            return None
        told = next(sums_of_parts(described, self._target.dialect, *first), None)
        # Parts that the store copies by itself show nothing but a CRC.
        is_seen = told is None or told.part_bytes is None or not self._may_be_inside
        return told if is_seen else None

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
        if (inside := await self._copy_part_inside(begun, number, byte_range)) is not None:
            return inside
        download = await self._read_part(begun, byte_range)
        return await self._write_part(begun, number, byte_range, download.body)

    async def _read_part(self, begun: BegunUpload, byte_range: ByteRange) -> Download:
        meta, told = self._meta, begun.source_sum
        try:
            download = await self._source.get(
                meta.key,
                if_match=meta.etag,
                byte_range=byte_range,
                checksum=self._target.dialect.checksum,
                also=None if told is None else told.algorithm,
            )
        except errors.IntegrityError:
            await self._describe()  # stores that know no If-Match show a change by a wrong length
            raise
        except errors.StoreError as error:
            if isinstance(error, errors.PreconditionFailed) or error.status == _TOO_SHORT:
                raise SourceChangedError(str(error)) from error
            raise
        _check_version(self._dated(begun), download.stored.meta)
        return download

    async def _write_part(
        self, begun: BegunUpload, number: int, byte_range: ByteRange, body: Body
    ) -> Part:
        told = begun.source_sum
        try:
            part = await self._target.put_part(self._key, begun.upload_id, number, body)
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error
        return part if told is None else await _with_sums(part, body, told, byte_range)

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
            await self._copier.confirm_unchanged(self._meta)
            shortcut.doubt(error)
            return None
        self._has_copied_inside = self._has_copied_inside or part is not None
        return part and self._with_own_sum(part, begun.source_sum, byte_range)

    def _with_own_sum(self, part: Part, told: SourceSum | None, byte_range: ByteRange) -> Part:
        """The part with the checksum that the store tells of its copy, if it is of that kind."""
        if told is None or not part.checksum or told.algorithm != self._target.dialect.checksum:
            return part
        is_one_piece = len(told.cut(byte_range)) == 1
        return replace(part, source_sums=(part.checksum,)) if is_one_piece else part

    async def _complete(self) -> Outcome | None:
        """Complete the upload if this task may, and every part is there."""
        begun, done = self._begun, self._task.done
        assert begun is not None  # noqa: S101 - `_work` has seen to it
        if done is None or len(done) + len(self._parts) < self._plan(begun).count:
            return None
        parts = sorted((*done, *self._parts.values()), key=_number)
        if begun.source_sum is not None:
            parts = await self._compare_with_told(begun, begun.source_sum, parts)
        if self._may_hold_other_version(begun):
            # Parts copied inside do not tell their version.
            await self._repeat(functools.partial(self._check_unchanged, begun))
        if not self._target.dialect.conditional_completion:
            existing = await self._find_existing(parts)
            if existing is not None:
                return existing
        try:
            await self._repeat(functools.partial(self._join, begun, parts))
        except errors.PreconditionFailed:
            return await self._copier.already_there(self._meta)
        self._begun = None
        return Transferred(self._meta.size)

    async def _compare_with_told(
        self, begun: BegunUpload, told: SourceSum, parts: list[Part]
    ) -> list[Part]:
        """Compare the checksum of the parts with the source's, unless nobody has seen some parts.

        Returns the parts to complete the upload of.

        Raises:
            PartsDisagreeError: the bytes of some part differ.
        """
        seen = told.of(parts)
        is_of_etags = told.algorithm is Algorithm.MD5
        if is_of_etags and seen not in (None, told.value):
            last = await self._written_again(begun, parts[-1])
            if last is None:
                return parts  # the target's ETags are no MD5s
            parts = [*parts[:-1], last]
            seen = told.of(parts)
        if seen is None:
            return parts
        if seen == told.value:
            if is_of_etags:
                self._etags.of_parts_are_md5s = True
            return parts
        self._seen = seen
        error = PartsDisagreeError(
            f"the parts read make an object with x-amz-checksum-{told.algorithm} {seen}, the "
            f"source announces {told.value}",
            seen,
        )
        came_twice = seen == self._task.upload.seen
        if not (came_twice and is_of_etags) or await self._etags_of_parts_are_md5s():
            raise error
        _log.warning("an ETag is not made of the parts' MD5s", key=self._key, error=str(error))
        return parts

    async def _etags_of_parts_are_md5s(self) -> bool:
        return await self._etags.of_parts_must_be_md5s(
            self._source, self._task.prefix, self._meta.key
        )

    async def _written_again(self, begun: BegunUpload, part: Part) -> Part | None:
        """Copy a part once more, if its ETag is not the MD5 of its bytes.

        None: its ETag is no MD5 then either, so ETags of the target tell nothing.
        """
        byte_range = self._plan(begun).byte_range(part.number)
        size = len(byte_range)
        await self._budget.acquire(size)
        try:
            download = await self._repeat(functools.partial(self._read_part, begun, byte_range))
            md5 = (await download.body.computed(Algorithm.MD5),)
            if part.source_sums != md5:
                write = functools.partial(
                    self._write_part, begun, part.number, byte_range, download.body
                )
                part = await self._repeat(write)
        finally:
            self._budget.release(size)
        return part if part.source_sums == md5 else None

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
            except _GONE:
                raise
            except errors.SlurperError as error:
                passing = error.retryable and not error.blocks_job
                doubtful = isinstance(error, LEARNED_LATE) and attempt == 1
                if not (passing or doubtful) or attempt >= self._copier.max_attempts:
                    raise
            await asyncio.sleep(pause_before(attempt + 1))
            attempt += 1
            self._attempts += 1


def _number(part: Part) -> int:
    return part.number


async def _with_sums(part: Part, body: Body, told: SourceSum, byte_range: ByteRange) -> Part:
    """The part with its share of the source's checksum. MD5s are those of the target."""
    if told.algorithm is Algorithm.MD5:
        md5 = md5_of_etag(part.etag)
        return replace(part, source_sums=(md5,) if md5 else ())
    if told.part_bytes is not None:
        return replace(part, source_sums=(await body.computed(told.algorithm),))
    return replace(part, source_sums=body.sums(told.algorithm, told.cut(byte_range)))


def _check_version(wanted: ObjectMeta, got: ObjectMeta) -> None:
    """Refuse another version, of which a store that knows no If-Match may send or copy a part.

    Raises:
        SourceChangedError: it is another.
    """
    is_other = wanted.etag and got.etag and not entity_tags.same(wanted.etag, got.etag)
    dates = (wanted.last_modified, got.last_modified)
    is_dated_otherwise = None not in dates and dates[0] != dates[1]
    if is_other or is_dated_otherwise or wanted.size != got.size:
        raise SourceChangedError("there is another version than HEAD showed at first")
