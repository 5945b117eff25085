"""What the ETags of a source are found to be: MD5s of its objects, or not.

S3 makes the ETag of what was written in one request from the MD5 of its bytes. It travels with the
copy as Content-MD5, so that the target compares its bytes with what the source says of them, and
nothing is computed here. But nobody promises it: objects that are encrypted with a key of KMS or
the customer's own have other ETags, which their answers mostly show, and there are stores that make
all of theirs otherwise. So a disagreement is looked into once, by `Copier`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

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

_LOOKED_THROUGH = 100
_COMPARED = 3
_SMALL_BYTES = 1 << 20
_LARGE_BYTES = 64 << 20


class SourceEtags:
    """What is known of the ETags of one source, for as long as a process has it open."""

    __slots__ = ("are_md5s", "asking", "of_parts_are_md5s")

    def __init__(self) -> None:
        self.are_md5s: bool | None = None
        """None: no object has shown it yet."""
        self.of_parts_are_md5s: bool | None = None
        """The same of objects that were uploaded in parts: made of the MD5s of those."""
        self.asking = asyncio.Lock()
        """Whoever looks into a disagreement holds it; who waits learns from what was found."""

    def use(self, verified: bool | None) -> SourceMd5:
        """What becomes of an ETag at a target that is known to have MD5s `verified`, or is not."""
        if self.are_md5s is False:
            return SourceMd5.UNUSED
        return SourceMd5.INSTEAD if verified else SourceMd5.BESIDE

    async def of_parts_must_be_md5s(self, source: ObjectStore, prefix: str, but: str) -> bool:
        """Whether ETags of parts are made of MD5s, now that one object's, `but`, seems not to be.

        If no object of the prefix shows it, they are taken for something else from now on.
        """
        if self.of_parts_are_md5s is None:
            self.of_parts_are_md5s = await some_of_parts_are_md5s(source, prefix, but)
        return self.of_parts_are_md5s


async def some_are_md5s(source: ObjectStore, prefix: str, but: str) -> bool:
    """Whether an object of a prefix, other than `but`, has the MD5 of its bytes for an ETag.

    A few small ones that look so are read. What cannot be read shows nothing.
    """
    others = _others(source, prefix, but, lambda it: verification.md5_of(it) != "", _SMALL_BYTES)
    async for stored, body in others:
        if await body.computed(Algorithm.MD5) == verification.md5_of(stored):
            return True
    return False


async def some_of_parts_are_md5s(source: ObjectStore, prefix: str, but: str) -> bool:
    """The same of objects that were uploaded in parts, whose ETags may be made of their MD5s."""

    def looks_so(stored: StoredObject) -> bool:
        return verification.etag_of_parts(stored) is not None

    async for stored, body in _others(source, prefix, but, looks_so, _LARGE_BYTES):
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
    but: str,
    looks_so: Callable[[StoredObject], bool],
    most_bytes: int,
) -> AsyncIterator[tuple[StoredObject, Body]]:
    """A few objects that tell something by their ETags, other than `but`, with their bytes.

    Empty ones show nothing.
    """
    try:
        page = await source.list_page(prefix=prefix, max_keys=_LOOKED_THROUGH)
    except errors.SlurperError:
        return
    read = 0
    for meta in page.objects:
        is_small = 0 < meta.size <= most_bytes and meta.key != but
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
