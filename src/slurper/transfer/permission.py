"""Is one object denied to us, or everything?

An object may be denied for a reason of its own: an access list, a policy for some folder, a lock.
Credentials that lost their permission for the whole bucket get the very same answer, and then the
job must pause (design rule 7). So when a store says AccessDenied, something else is asked of the
same side, and one yes is enough:

    side    what is asked for
    source  one byte of the object read last; of up to `SAMPLE` of the task's explicit keys; of as
            many of the first keys that the source lists
    target  to begin an upload, aborted at once, for the object written last; for a key of nobody's

What that costs: one or two requests for each object that is denied, and `SAMPLE` once, when nothing
has been read yet. What it takes for everything though it is not: a source whose first `SAMPLE` keys
are all denied, met before anything else was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Sequence

from slurper import errors
from slurper.objectstore.base import ByteRange, ObjectHeaders, ObjectStore

SAMPLE = 20
"""So many objects beside the denied one are tried before the source is given up."""

_READS = frozenset({"GetObject", "HeadObject"})
"""The operations of the source; the others that can be denied to a copy are the target's."""
_FIRST_BYTE = ByteRange(0, 1)


class PermissionLostError(errors.SlurperError):
    """Nothing can be read from the source, or nothing be written to the target."""

    advice = "give these credentials the permission back, then resume: nothing was left out"
    blocks_job = True


class Permission:
    """What may be done at both sides of one task."""

    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        *,
        prefix: str,
        target_prefix: str,
        keys: Sequence[str] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._prefix = prefix
        self._keys = keys or ()
        self._unused_key = f"{target_prefix}.slurper-permission-{secrets.token_hex(16)}"
        self._read_last: str | None = None
        self._written_last: str | None = None

    def used(self, key: str, target_key: str) -> None:
        """Take note that an object could be read and written."""
        self._read_last, self._written_last = key, target_key

    async def check(self, key: str, denial: errors.AccessDenied) -> None:
        """Pass when something else is allowed, so that only this object is denied.

        Raises:
            PermissionLostError: nothing is.
            SlurperError: the side cannot be asked, for whatever stops the whole job.
        """
        if denial.operation in _READS:
            if not await self._may_read(beside=key):
                raise PermissionLostError(f"no object of the source can be read any more: {denial}")
        elif not await self._may_write():
            raise PermissionLostError(f"nothing can be written to the target any more: {denial}")

    async def _may_read(self, *, beside: str) -> bool:
        last = () if self._read_last is None else (self._read_last,)
        for key in (*last, *self._keys[:SAMPLE]):
            if key != beside and await self._may_read_one(key):
                return True
        for key in await self._first_listed():
            if key != beside and await self._may_read_one(key):
                return True
        return False

    async def _may_read_one(self, key: str) -> bool:
        return await _allowed(self._source.get(key, byte_range=_FIRST_BYTE))

    async def _first_listed(self) -> list[str]:
        try:
            page = await self._source.list_page(prefix=self._prefix, max_keys=SAMPLE + 1)
        except errors.AccessDenied:  # explicit keys need no permission to list
            return []
        return [meta.key for meta in page.objects]

    async def _may_write(self) -> bool:
        last = self._written_last
        if last is not None and await _allowed(self._begin_upload(last)):
            return True
        return await _allowed(self._begin_upload(self._unused_key))

    async def _begin_upload(self, key: str) -> None:
        upload_id = await self._target.create_upload(key, ObjectHeaders())
        # Shielded: what was begun only to ask must not stay, even when the task is cancelled.
        await asyncio.shield(self._abort(key, upload_id))

    async def _abort(self, key: str, upload_id: str) -> None:
        with contextlib.suppress(errors.SlurperError):
            await self._target.abort_upload(key, upload_id)


async def _allowed(request: Awaitable[object]) -> bool:
    """Whether a store does what it is asked, or has another reason not to than permission."""
    try:
        await request
    except errors.AccessDenied:
        return False
    except errors.IntegrityError:
        return True
    except errors.StoreError as error:
        if error.blocks_job or error.retryable:
            raise
    return True
