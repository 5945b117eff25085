"""Stores that hold no bytes: one makes its objects up, one drops what it is given."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import takewhile

from typing_extensions import override

from slurper import errors
from slurper.objectstore.base import ListingPage, ObjectHeaders, ObjectMeta, StoredObject
from slurper.objectstore.dialects import GENERIC, Dialect
from tests.memory.faults import Faults, raise_if
from tests.memory.store import Entry, MemoryStore


class SyntheticStore(MemoryStore):
    """A read-only store of any number of objects. Each is made only when it is asked for.

    Keys are numbered with leading zeros, so a listing computes them and stores none.
    """

    def __init__(
        self,
        count: int,
        *,
        object_bytes: int = 0,
        prefix: str = "object-",
        dialect: Dialect = GENERIC,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(dialect=dialect, bucket="synthetic", faults=faults)
        self._count = count
        self._size = object_bytes
        self._prefix = prefix
        self._width = len(str(count))
        self._moment = self._now()

    def key_at(self, index: int) -> str:
        """The key of object `index`, from 0."""
        return f"{self._prefix}{index:0{self._width}d}"

    @override
    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        lost = await self.faults.begin("list_page")
        everything = range(self._count)
        begin = bisect_left(everything, prefix, key=self.key_at)
        if start_after is not None:
            begin = max(begin, bisect_right(everything, start_after, key=self.key_at))
        keys = map(self.key_at, range(begin, min(begin + max_keys + 1, self._count)))
        found = list(takewhile(lambda key: key.startswith(prefix), keys))
        raise_if(lost)
        objects = [self._meta(key) for key in found[:max_keys]]
        return ListingPage(objects=objects, finished=len(found) <= max_keys, is_placed=True)

    @override
    def _find(self, operation: str, key: str) -> Entry:
        digits = key.removeprefix(self._prefix)
        if not (
            digits.isdecimal() and int(digits) < self._count and key == self.key_at(int(digits))
        ):
            raise self._refusal(errors.NotFound, operation, 404, key, code="NoSuchKey")
        pattern = key.encode()
        body = (pattern * (self._size // len(pattern) + 1))[: self._size]
        return Entry(StoredObject(self._meta(key), ObjectHeaders()), body)

    def _meta(self, key: str) -> ObjectMeta:
        return ObjectMeta(key, self._size, f'"{key}"', self._moment, "STANDARD")

    @override
    def _admit(
        self,
        operation: str,
        key: str,
        headers: ObjectHeaders,
        *,
        size: int | None = None,
    ) -> None:
        raise self._refusal(errors.AccessDenied, operation, 403, key)


class DiscardingStore(MemoryStore):
    """A store that accepts every object, counts it, and keeps nothing."""

    def __init__(self, *, dialect: Dialect = GENERIC, faults: Faults | None = None) -> None:
        super().__init__(dialect=dialect, bucket="discarding", faults=faults)
        self.objects = 0
        self.bytes = 0

    @override
    def _keep(
        self,
        key: str,
        body: bytes,
        headers: ObjectHeaders,
        etag: str,
        storage_class: str,
    ) -> ObjectMeta:
        self.objects += 1
        self.bytes += len(body)
        return ObjectMeta(key, len(body), etag, self._now(), storage_class)
