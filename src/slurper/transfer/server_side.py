"""Copies that a store makes by itself, where one store holds both buckets.

No byte of such an object passes through the worker. We find out whether this works only by trying
it: the target's credentials may not be allowed to read the source, and not every store that speaks
S3 knows CopyObject. If a store refuses, this process does not ask it again. Its objects are copied
the ordinary way, and none fails because of that. Some stores refuse to copy an object because of
its ETag, although they show that ETag themselves. Then we look at the object in the source again.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from slurper import errors
from slurper.objectstore.base import (
    ByteRange,
    ObjectMeta,
    ObjectStore,
    Part,
    StoreAddress,
    StoredObject,
)
from slurper.objectstore.dialects import PartCopy
from slurper.secrets import S3Credentials
from slurper.transfer.task import CopyTask, PartsTask

MAX_UNFOUNDED = 3
"""After so many such objects in a row (see `Shortcut.doubt`), the store is not asked any more."""

MAX_SHORTCUTS = 1024

Answer = TypeVar("Answer")

_FOR_THE_CALLER = (
    errors.PreconditionFailed,
    errors.TooManyOpenFiles,
    errors.NotStorable,
    errors.RequiresRetrieval,
    errors.Throttled,
)


class Shortcut:
    """The way from one bucket to another inside their store."""

    def __init__(self, bucket: str, max_bytes: int) -> None:
        self.bucket = bucket
        """The source's bucket."""
        self._max_bytes = max_bytes
        self._is_narrowed = False
        self._works = False
        self._unfounded = 0
        self.is_closed = False

    def takes(self, size: int) -> bool:
        """Whether a whole object of so many bytes goes this way. Larger ones go in parts."""
        return not self.is_closed and size <= self._max_bytes

    async def copy_object(
        self, target: ObjectStore, key: str, source: StoredObject, *, if_absent: bool
    ) -> str | None:
        """Have an object copied and return the copy's ETag; None: copy it the ordinary way.

        Raises:
            PreconditionFailed: as the store's own `copy_object` says.
            NotStorable, RequiresRetrieval, Throttled: the ordinary way would get these too.
        """
        asked = target.copy_object(key, self.bucket, source, if_absent=if_absent)
        return await self._await(asked, source.meta.size)

    async def copy_part(
        self,
        target: ObjectStore,
        key: str,
        upload_id: str,
        number: int,
        source: ObjectMeta,
        byte_range: ByteRange,
    ) -> Part | None:
        """Have a range copied into a part; None: copy it the ordinary way. Raises as above.

        A store that knows no condition on the source may copy another version, and its answer does
        not show it. So look at the source before the first part, and again before the parts are
        joined.
        """
        asked = target.copy_part(key, upload_id, number, self.bucket, source, byte_range)
        return await self._await(asked, len(byte_range))

    async def _await(self, answer: Awaitable[Answer], size: int) -> Answer | None:
        try:
            found = await answer
        except _FOR_THE_CALLER:
            raise
        except errors.CopyUnfinished:
            self._narrow(size)
            return None
        except errors.SlurperError as error:
            self._note(error)
            return None
        self._works = True
        self._unfounded = 0
        return found

    def doubt(self) -> None:
        """Take note that an object could not go this way, though nothing is wrong with it.

        There are two cases. The copy was refused for its ETag although the source has that ETag:
        some stores compare two spellings of one ETag, or the ETag of the bytes with that of a list
        of parts. Or HEAD does not describe the object. After a few such objects in a row the store
        is not asked any more.
        """
        self._unfounded += 1
        if self._unfounded >= MAX_UNFOUNDED:
            self.is_closed = True

    def _note(self, error: errors.SlurperError) -> None:
        """Close this way, unless the error is the object's own or may pass.

        If an object is refused while others are copied, it goes the ordinary way. That way also
        finds out whether everything is refused.
        """
        its_own_fault = isinstance(error, errors.NotFound)
        by_chance = self._works and (error.retryable or isinstance(error, errors.Refused))
        if not (its_own_fault or by_chance):
            self.is_closed = True

    def _narrow(self, size: int) -> None:
        """Take no more objects this large: one was not copied in time and held up its lane.

        From the second time on, the limit becomes half of this size. Otherwise many objects could
        be late, each a little smaller than the one before.
        """
        if size > self._max_bytes:
            return  # begun before the limit became smaller
        self._max_bytes = size // 2 if self._is_narrowed else size - 1
        self._is_narrowed = True


class Shortcuts:
    """The shortcuts of a process: the newest `MAX_SHORTCUTS`, for as long as it lives."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._known: dict[tuple[_Side, _Side], Shortcut] = {}

    def of(self, task: CopyTask) -> Shortcut | None:
        """The shortcut between a task's buckets, if there can be one."""
        source, target = task.source, task.target
        if not (self._allowed and may_exist(task) and _share_names(source, target)):
            return None
        pair = (_side(source), _side(target))
        known = self._known.pop(pair, None)
        if known is None:
            known = Shortcut(source.bucket, target.dialect.max_copy_bytes)
        self._known[pair] = known  # it is the newest now
        if len(self._known) > MAX_SHORTCUTS:
            del self._known[next(iter(self._known))]
        return known


_Side = tuple[str, str, str]


def _side(address: StoreAddress) -> _Side:
    """Where a bucket is, and who asks for it.

    No secret is part of it: this is kept for longer than the credentials. Nor is the dialect, which
    changes with what we learn about a store. That is no reason to ask again.
    """
    credentials = address.credentials
    asks = (
        credentials.access_key_id
        if isinstance(credentials, S3Credentials)
        else credentials.client_email
    )
    return address.origin, address.bucket, asks


def may_exist(task: CopyTask) -> bool:
    """Whether there may be a shortcut for a task, or may have been for the tasks before it.

    The answer stays the same for as long as a job lasts. So it does not depend on the settings of a
    process, or on the credentials, which a resume may replace.
    """
    dialect = task.target.dialect
    keeps_promises = task.overwrite or dialect.conditional_copy
    has_a_way = not isinstance(task, PartsTask) or dialect.part_copy is not PartCopy.NONE
    is_known = dialect.server_side_copy and task.source.origin == task.target.origin
    return task.options.server_side_copy and is_known and keeps_promises and has_a_way


def _share_names(source: StoreAddress, target: StoreAddress) -> bool:
    """Whether a bucket's name means the same to the credentials of both sides."""
    return target.dialect.global_bucket_names or _key_id(source) == _key_id(target)


def _key_id(address: StoreAddress) -> str | None:
    credentials = address.credentials
    return credentials.access_key_id if isinstance(credentials, S3Credentials) else None
