"""Whether the ETags of a source are MD5s of its objects.

In S3, the ETag of an object that was written in one request is the MD5 of its bytes. It travels
with the copy as Content-MD5: the target compares the bytes with it, and nothing is computed here.
But stores do not promise that. Objects that are encrypted with a key of KMS or of the customer have
other ETags, and mostly the store's answers show it. Some stores make all their ETags in another
way. So when bytes and ETag first disagree, `Reader` finds out whether the ETags are MD5s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from slurper import errors
from slurper.objectstore import verification
from slurper.objectstore.base import (
    Body,
    ObjectHeaders,
    ObjectStore,
    SourceMd5,
    StoredObject,
)
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect

_LOOKED_THROUGH = 100
_COMPARED = 3
_SMALL_BYTES = 1 << 20
_LARGE_BYTES = 64 << 20


class SourceEtags:
    """What is known of the ETags of one source. If they are no MD5s, the job remembers it."""

    __slots__ = ("are_md5s", "asking", "of_parts_are_md5s")

    def __init__(self, dialect: Dialect) -> None:
        self.are_md5s = None if dialect.etags_are_md5s else False
        """None: no object has shown it yet."""
        self.of_parts_are_md5s = None if dialect.etags_of_parts_are_md5s else False
        """Whether ETags of objects that were uploaded in parts are made of the parts' MD5s."""
        self.asking = asyncio.Lock()
        """Held by the task that looks into a disagreement; the others wait and use its result."""

    def noted_in(self, dialect: Dialect) -> Dialect:
        """The dialect of the source, with what its objects have shown."""
        return replace(
            dialect,
            etags_are_md5s=self.are_md5s is not False,
            etags_of_parts_are_md5s=self.of_parts_are_md5s is not False,
        )

    def use(self, verified: bool | None) -> SourceMd5:
        """How ETags are used. `verified`: whether the target is known to verify MD5s."""
        if self.are_md5s is False:
            return SourceMd5.UNUSED
        return SourceMd5.INSTEAD if verified else SourceMd5.BESIDE

    async def of_parts_must_be_md5s(self, source: ObjectStore, prefix: str, besides: str) -> bool:
        """Whether ETags of objects in parts are made of MD5s. That of `besides` seems not to be.

        If no other object of the prefix shows that they are, the answer stays no.
        """
        if self.of_parts_are_md5s is None:
            self.of_parts_are_md5s = await some_of_parts_are_md5s(source, prefix, besides)
        return self.of_parts_are_md5s


async def some_are_md5s(source: ObjectStore, prefix: str, besides: str) -> bool:
    """Whether an object of a prefix, except `besides`, has the MD5 of its bytes for an ETag.

    A few small objects whose ETags look like MD5s are read. An unreadable one shows nothing.
    """
    others = _others(
        source, prefix, besides, lambda it: verification.md5_of(it) != "", _SMALL_BYTES
    )
    async for stored, body in others:
        if await body.computed(Algorithm.MD5) == verification.md5_of(stored):
            return True
    return False


async def some_of_parts_are_md5s(source: ObjectStore, prefix: str, besides: str) -> bool:
    """The same for objects that were uploaded in parts, whose ETags may be made of MD5s."""

    def looks_so(stored: StoredObject) -> bool:
        return verification.etag_of_parts(stored) is not None

    async for stored, body in _others(source, prefix, besides, looks_so, _LARGE_BYTES):
        told = verification.etag_of_parts(stored)
        try:
            first = await source.first_part_bytes(stored.meta.key)
            if told is not None and first is not None:
                await verification.compare_with_parts(told, body, *first)
                return True
        except errors.SlurperError:
            continue
    return False


async def _others(
    source: ObjectStore,
    prefix: str,
    besides: str,
    looks_so: Callable[[StoredObject], bool],
    max_bytes: int,
) -> AsyncIterator[tuple[StoredObject, Body]]:
    """A few objects whose ETags tell something, with their bytes. `besides` is left out.

    Empty ones show nothing.
    """
    try:
        page = await source.list_page(prefix=prefix, max_keys=_LOOKED_THROUGH)
    except errors.SlurperError:
        return
    read = 0
    for meta in page.objects:
        is_small = 0 < meta.size <= max_bytes and meta.key != besides
        if not (is_small and looks_so(StoredObject(meta, ObjectHeaders()))):
            continue
        try:
            found = await source.get(
                meta.key, if_match=meta.etag, max_bytes=meta.size, compares=False
            )
        except errors.SlurperError:
            continue
        if looks_so(found.stored):
            yield found.stored, found.body
            read += 1
        if read == _COMPARED:
            return
