"""What the ETags of a source are found to be: MD5s of its objects, or not.

S3 makes the ETag of what was written in one request from the MD5 of its bytes. It travels with the
copy as Content-MD5, so that the target compares its bytes with what the source says of them, and
nothing is computed here. But nobody promises it: objects that are encrypted with a key of KMS or
the customer's own have other ETags, which their answers mostly show, and there are stores that make
all of theirs otherwise. So a disagreement is looked into once, by `Copier`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from slurper import errors
from slurper.objectstore import verification
from slurper.objectstore.base import (
    ObjectHeaders,
    ObjectMeta,
    ObjectStore,
    SourceMd5,
    StoredObject,
)
from slurper.objectstore.checksums import Algorithm

_LOOKED_THROUGH = 100
_COMPARED = 3
_MOST_BYTES = 1 << 20


class SourceEtags:
    """What is known of the ETags of one source, for as long as a process has it open."""

    __slots__ = ("are_md5s", "asking")

    def __init__(self) -> None:
        self.are_md5s: bool | None = None
        """None: no object has shown it yet."""
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
    async for meta in _candidates(source, prefix, but):
        try:
            found = await source.get(
                meta.key,
                if_match=meta.etag,
                max_bytes=meta.size,
                md5=SourceMd5.BESIDE,
                compares=False,
            )
        except errors.SlurperError:
            continue
        told = found.body.source_md5
        if told and await found.body.computed(Algorithm.MD5) == told:
            return True
    return False


async def _candidates(source: ObjectStore, prefix: str, but: str) -> AsyncIterator[ObjectMeta]:
    """A few objects that were written in one request. Empty ones show nothing."""
    try:
        page = await source.list_page(prefix=prefix, max_keys=_LOOKED_THROUGH)
    except errors.SlurperError:
        return
    found = 0
    for meta in page.objects:
        looks_so = verification.md5_of(StoredObject(meta, ObjectHeaders())) != ""
        if looks_so and 0 < meta.size <= _MOST_BYTES and meta.key != but:
            yield meta
            found += 1
        if found == _COMPARED:
            return
