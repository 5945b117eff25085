"""Is an object at the target this job's own, or somebody else's (design rule 4)?

Its key was absent when the slice was planned. If it now holds what we would write, then we have
written it: the answer to our request was lost, or the report of the task was.
"""

from __future__ import annotations

from slurper import errors
from slurper.objectstore import verification
from slurper.objectstore.base import ByteRange, ObjectMeta
from slurper.settings import MIB
from slurper.transfer.attempts import SourceChangedError, TargetChangedError
from slurper.transfer.ledger import Outcome, Skipped, Transferred
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.route import Route
from slurper.transfer.versions import Versions

COMPARED_BYTES = 4 * MIB
"""An object found at the target is compared with its source in pieces of this size."""


class Ownership:
    """Compares objects found at the target of a task with those of its source."""

    def __init__(
        self, route: Route, versions: Versions, budget: ByteBudget, pacer: Pacer | None
    ) -> None:
        self._route = route
        self._versions = versions
        self._budget = budget
        self._pacer = pacer

    async def decide(self, meta: ObjectMeta) -> Outcome:
        """Compare the target's object with this one: transferred if it is ours, else skipped.

        Raises:
            TargetChangedError: the target has no such object any more.
        """
        found = await self.decide_by_descriptions(meta)
        return await self.decide_by_bytes(meta) if isinstance(found, ObjectMeta) else found

    async def decide_by_descriptions(self, meta: ObjectMeta) -> Outcome | ObjectMeta:
        """Decide by what the stores say of both objects.

        Returns the target's object if only the bytes can tell.
        """
        target, key = self._route.target, self._route.target_key(meta.key)
        try:
            theirs = await target.head(key, with_checksums=True)
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error
        except errors.AccessDenied:
            return Skipped()  # we may not look: it counts as somebody else's
        if theirs.meta.size != meta.size:
            return Skipped()
        if verification.same_bytes(meta.etag, theirs.meta.etag):
            return Transferred(meta.size)
        if theirs.told is None and not theirs.crc32c:
            return theirs.meta
        ours = await self._versions.head(meta, with_checksums=True)
        if theirs.crc32c and ours.crc32c:
            return Transferred(meta.size) if ours.crc32c == theirs.crc32c else Skipped()
        # A difference proves nothing: some sources keep a checksum of other bytes.
        is_same = theirs.told is not None and theirs.told == ours.told
        return Transferred(meta.size) if is_same else theirs.meta

    async def decide_by_bytes(self, meta: ObjectMeta) -> Outcome:
        """Decide by reading both objects."""
        for start in range(0, meta.size, COMPARED_BYTES):
            piece = ByteRange(start, min(start + COMPARED_BYTES, meta.size))
            if self._pacer is not None:
                self._pacer.spend(size=len(piece), requests=2)
            await self._budget.acquire(2 * len(piece))
            try:
                if not await self._is_same(meta, piece):
                    return Skipped()
            finally:
                self._budget.release(2 * len(piece))
        return Transferred(meta.size)

    async def _is_same(self, meta: ObjectMeta, piece: ByteRange) -> bool:
        source, target = self._route.source, self._route.target
        try:
            ours = await source.get(meta.key, if_match=meta.etag, byte_range=piece)
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error
        try:
            theirs = await target.get(self._route.target_key(meta.key), byte_range=piece)
        except errors.AccessDenied:
            return False  # we may not look, as above
        return bytes(ours.body) == bytes(theirs.body)
