"""The last step of a large object: verify that every part is right, and complete the upload."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from operator import attrgetter

from slurper import errors
from slurper.objectstore.base import Part, StoredObject
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import PartCopy
from slurper.objectstore.texts import cleaned
from slurper.planning.parts import SourceSum
from slurper.transfer.attempts import PartsDisagreeError, TargetChangedError
from slurper.transfer.etags import SourceEtags
from slurper.transfer.large_object import LargeObject
from slurper.transfer.ledger import Outcome, Transferred
from slurper.transfer.task import BegunUpload
from slurper.transfer.upload_parts import UploadParts

_DAMAGED = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
"""The store does not have the parts that it has confirmed before."""


class UploadComplete:
    """Completes the upload of one object."""

    def __init__(self, large: LargeObject, parts: UploadParts, etags: SourceEtags) -> None:
        self._large = large
        self._parts = parts
        self._etags = etags
        self.seen = ""
        """The checksum that the parts gave, if it is not the one that the source tells."""
        self.is_over = False
        """The upload is completed. There is nothing to abort."""

    async def complete(self, begun: BegunUpload) -> Outcome | None:
        """Complete the upload if this task may, and every part is there."""
        large, done, finished = self._large, self._large.task.done, self._parts.finished
        if done is None or len(done) + len(finished) < large.plan(begun).count:
            return None
        parts = sorted((*done, *finished.values()), key=attrgetter("number"))
        if begun.source_sum is not None:
            parts = await self._compare_with_told(begun, begun.source_sum, parts)
        if self._may_hold_other_version(begun):
            # Parts that the store copied itself do not show their version.
            await large.attempts.repeat(functools.partial(self._check_unchanged, begun))
        if not large.target.dialect.conditional_completion:
            existing = await large.outcome_at_target(parts)
            if existing is not None:
                return existing
        try:
            await large.attempts.repeat(functools.partial(self._join, begun, parts))
        except errors.PreconditionFailed:
            return await large.copier.ownership.decide(large.meta)
        self.is_over = True
        return Transferred(large.meta.size)

    async def _compare_with_told(
        self, begun: BegunUpload, told: SourceSum, parts: list[Part]
    ) -> list[Part]:
        """Compare the checksum of the parts with the source's, if all parts have been seen.

        Returns the parts with which to complete the upload.

        Raises:
            PartsDisagreeError: the bytes of some part differ.
        """
        seen = told.of(parts)
        is_of_etags = told.algorithm is Algorithm.MD5
        if is_of_etags and seen not in (None, told.value):
            last = await self._parts.written_again(begun, parts[-1])
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
        self.seen = seen
        came_twice = seen == self._large.task.upload.seen
        if not (came_twice and is_of_etags) or await self._etags_of_parts_are_md5s():
            raise PartsDisagreeError(
                f"the parts read make an object with x-amz-checksum-{told.algorithm} {seen}, the "
                f"source announces {cleaned(told.value)}",
                seen,
            )
        return parts

    async def _etags_of_parts_are_md5s(self) -> bool:
        large = self._large
        return await self._etags.of_parts_must_be_md5s(
            large.source, large.task.prefix, large.meta.key
        )

    def _may_hold_other_version(self, begun: BegunUpload) -> bool:
        """Whether the store may have copied a part itself, in this task or those before it.

        We do not record how parts from earlier tasks were copied. A part that we read ourselves is
        of the right version: it came under If-Match, or showed its version.
        """
        large = self._large
        if large.copies_any_version and begun.last_modified is None:
            return False  # then the store copies no part itself
        may_earlier = large.may_be_copied_inside and bool(large.task.done)
        return self._parts.has_copied_inside or may_earlier

    async def _check_unchanged(self, begun: BegunUpload) -> None:
        """Raise SourceChangedError if the source has another version than at the beginning.

        Raises:
            NotFound: it is gone, and the store is not known to have copied under a condition.
        """
        large = self._large
        try:
            described = await large.versions.describe(large.meta)
        except errors.NotFound:
            dialect = large.target.dialect
            if dialect.part_copy is PartCopy.CONDITIONAL and not dialect.assumed:
                return
            raise
        if isinstance(described, StoredObject):
            large.check_version(begun, described.meta)

    async def _join(self, begun: BegunUpload, parts: Sequence[Part]) -> None:
        large = self._large
        try:
            await large.target.complete_upload(
                large.target_key,
                begun.upload_id,
                parts,
                if_absent=not large.task.overwrite,
                whole_checked=begun.whole_checked,
            )
        except (errors.NotFound, errors.IntegrityError) as error:
            raise TargetChangedError(str(error)) from error
        except errors.StoreError as error:
            if error.code in _DAMAGED:
                raise TargetChangedError(str(error)) from error
            raise
