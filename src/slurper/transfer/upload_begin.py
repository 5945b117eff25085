"""The first step of a large object: begin its upload, unless it gets its outcome without one."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

from slurper import errors
from slurper.objectstore import error_answers
from slurper.objectstore.base import CreatedUpload, ObjectHeaders, StoredObject
from slurper.objectstore.verification import etag_of_parts
from slurper.planning.parts import SourceSum, plan_parts, sum_of_whole, sums_of_parts
from slurper.transfer.attempts import SourceChangedError
from slurper.transfer.copy import CopyMeans
from slurper.transfer.large_object import LargeObject
from slurper.transfer.ledger import Failed, Large, Outcome, Skipped
from slurper.transfer.task import BegunUpload

_RESTED = timedelta(seconds=5)
"""Once a version is this old, every later version gets a later date. Dates are whole seconds, and
the clocks of a store's machines nearly agree."""


class UploadBegin:
    """Begins the upload of one object, or copies the object whole."""

    def __init__(self, large: LargeObject, means: CopyMeans) -> None:
        self._large = large
        self._part_bytes = means.settings.part_bytes
        self._max_whole_bytes = means.budget.limit
        self.is_unanswered = False
        """The store may have begun an upload whose id we do not know."""

    async def begin(self) -> BegunUpload | Outcome:
        """Begin the upload, unless the object gets its outcome without one."""
        large = self._large
        if (existing := await large.outcome_at_target()) is not None:
            return existing
        describe = functools.partial(large.versions.describe, large.meta, with_checksums=True)
        described = await large.attempts.repeat(describe)
        if isinstance(described, Skipped):
            return described
        told = await large.attempts.repeat(functools.partial(self._sum_told, described))
        part_size = None if told is None else told.part_bytes
        if part_size is None:
            plan = plan_parts(large.meta.size, large.target.dialect, part_bytes=self._part_bytes)
            part_size = plan.part_size
        try:
            create = functools.partial(self._create, described.headers)
            created = await large.attempts.repeat(create)
        except errors.StoreError as error:
            if not error_answers.lacks_uploads(error):
                raise
            self.is_unanswered = False
            return await self._copy_in_one(error)
        return BegunUpload(
            upload_id=created.upload_id,
            part_size=part_size,
            whole_checked=created.whole_checked,
            begun_at=datetime.now(UTC),
            last_modified=self._telling_date(described),
            source_sum=told,
        )

    async def copy_whole(self) -> Outcome:
        """Copy an object in one request: it is not large, or the target takes no parts."""
        existing = await self._large.outcome_at_target()
        outcome = existing or await self._large.copier.copy(self._large.meta)
        if isinstance(outcome, Large):
            raise SourceChangedError("the object has become large again")
        return outcome

    async def _copy_in_one(self, refusal: errors.StoreError) -> Outcome:
        """Write the object in one request, because the target knows no uploads in parts."""
        size = self._large.meta.size
        max_bytes = min(self._large.target.dialect.max_put_bytes, self._max_whole_bytes)
        if size > max_bytes:
            return Failed(
                f"{refusal}; the target knows no uploads in parts, and {size} bytes are "
                f"too many for one request, which may have {max_bytes}: raise "
                "SLURPER_IN_FLIGHT_BYTES, which bounds it, or copy the object by hand"
            )
        self._large.copier.take_whole(max_bytes)
        return await self.copy_whole()

    async def _create(self, headers: ObjectHeaders) -> CreatedUpload:
        large = self._large
        was_unanswered, self.is_unanswered = self.is_unanswered, True
        created = await large.target.create_upload(large.target_key, headers)
        self.is_unanswered = was_unanswered
        return created

    async def _sum_told(self, described: StoredObject) -> SourceSum | None:
        """The checksum that the source tells, if the parts can give it again."""
        large = self._large
        of_whole = sum_of_whole(described)
        of_parts = described.told_of_parts or etag_of_parts(described)
        if of_whole is not None or not of_parts:
            return of_whole
        first = await large.source.first_part_bytes(large.meta.key)
        if first is None:
            return None
        told = next(sums_of_parts(described, large.target.dialect, *first), None)
        # Of parts that the store copies itself, we see only a CRC.
        is_seen = told is None or told.part_bytes is None or not large.may_be_copied_inside
        return told if is_seen else None

    def _telling_date(self, described: StoredObject) -> datetime | None:
        """The date of the version; None if the next version might have the same date.

        A store may copy parts itself without a condition on the version. Then we look at the source
        before the first part and after the last. In between, the object may have been replaced, and
        then replaced again by one with the first ETag. Only its date shows that.
        """
        date, served_at = described.meta.last_modified, described.served_at
        if not self._large.copies_any_version or date is None:
            return date
        return date if served_at is not None and served_at - date >= _RESTED else None
