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
from slurper.objectstore import checksums, verification
from slurper.objectstore.base import (
    Body,
    ObjectHeaders,
    ObjectMeta,
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
        self.of_parts_are_md5s = False
        """Some object that was uploaded in parts has had the MD5 of their MD5s for its ETag."""
        self.asking = asyncio.Lock()
        """Whoever looks into a disagreement holds it; who waits learns from what was found."""

    def use(self, *, verified: bool | None) -> SourceMd5:
        """What becomes of an ETag at a target that is known to have MD5s `verified`, or is not."""
        if self.are_md5s is False:
            return SourceMd5.UNUSED
        return SourceMd5.INSTEAD if verified else SourceMd5.BESIDE


async def some_are_md5s(source: ObjectStore, prefix: str, but: str) -> bool:
    """Whether an object of a prefix, other than `but`, has the MD5 of its bytes for an ETag.

    A few small ones that look so are read. What cannot be read shows nothing.
    """
    async for stored, body in _others(source, prefix, but, verification.md5_of, _SMALL_BYTES):
        if await body.computed(Algorithm.MD5) == verification.md5_of(stored):
            return True
    return False


async def some_of_parts_are_md5s(source: ObjectStore, prefix: str, but: str) -> bool:
    """The same of objects that were uploaded in parts, whose ETags may be made of their MD5s."""
    others = _others(source, prefix, but, verification.md5_of_parts, _LARGE_BYTES)
    async for stored, body in others:
        told = verification.md5_of_parts(stored)
        first = await _first_part_bytes(source, stored.meta)
        if first == 0 or not told.endswith(f"-{-(-body.length // first)}"):
            continue
        sizes = [min(first, body.length - start) for start in range(0, body.length, first)]
        md5s = await asyncio.to_thread(body.sums, Algorithm.MD5, sizes)
        if checksums.composite(Algorithm.MD5, md5s) == told:
            return True
    return False


async def _first_part_bytes(source: ObjectStore, meta: ObjectMeta) -> int:
    """How long the parts of an object are; 0 if nobody says."""
    try:
        first = await source.first_part_bytes(meta.key)
    except errors.SlurperError:
        return 0
    return 0 if first is None else first[0]


async def _others(
    source: ObjectStore,
    prefix: str,
    but: str,
    told: Callable[[StoredObject], str],
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
        looks_so = told(StoredObject(meta, ObjectHeaders())) != "" and meta.key != but
        if not (looks_so and 0 < meta.size <= most_bytes):
            continue
        try:
            found = await source.get(
                meta.key, if_match=meta.etag, max_bytes=meta.size, compares=False
            )
        except errors.SlurperError:
            continue
        if told(found.stored):
            yield found.stored, found.body
            read += 1
        if read == _COMPARED:
            return
