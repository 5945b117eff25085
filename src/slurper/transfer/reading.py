"""Reads whole objects, and finds out which bytes are right when a checksum disagrees.

An object whose bytes disagree with what its source tells is read again. If other bytes come, the
first ones were damaged on their way. If the same bytes come, they are copied only if something else
shows that they are right (decision 0020).
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from slurper import errors
from slurper.objectstore import verification
from slurper.objectstore.base import Body, Download, ObjectMeta
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.texts import cleaned
from slurper.transfer.attempts import Attempts, SourceChangedError
from slurper.transfer.etags import SourceEtags, some_are_md5s
from slurper.transfer.route import Route


@dataclass(frozen=True, slots=True)
class Doubt:
    """The bytes that were read do not have the MD5 that the source tells."""

    told: str
    seen: str

    def __str__(self) -> str:
        return f"the bytes read have MD5 {self.seen}, the source tells {cleaned(self.told)}"


class Reader:
    """Reads the objects of one task."""

    def __init__(self, route: Route, etags: SourceEtags, attempts: Attempts) -> None:
        self._source = route.source
        self._prefix = route.prefix
        self._checksum = route.target.dialect.checksum
        self._verifies_md5 = route.target.dialect.verifies_md5
        self._etags = etags
        self._attempts = attempts

    def ask(self, meta: ObjectMeta, *, compares: bool = True) -> Awaitable[Download]:
        """Ask for an object. Its quick checksums are compared, unless told otherwise."""
        etags = self._etags
        return self._source.get(
            meta.key,
            if_match=meta.etag,
            max_bytes=meta.size,
            checksum=self._checksum,
            md5=etags.use(self._verifies_md5),
            etag_of_parts=etags.of_parts_are_md5s is not False,
            compares=compares,
        )

    async def read_disagreeing(self, meta: ObjectMeta, seen: str) -> Download:
        """Read an object again that has `seen` instead of the checksum that its source tells.

        Raises:
            ChecksumDisagrees: nothing shows that the bytes are right.
        """
        self._attempts.again += 1
        if "-" in seen:
            return await self._read_in_doubt_of_parts(meta, seen)
        return await self._read_disputed(meta, seen)

    async def doubt(self, refusal: errors.SlurperError, body: Body) -> Doubt:
        """Find out whether a write was refused because the source's MD5 is not that of the bytes.

        Raises:
            SlurperError: the refusal, if it has another reason.
        """
        told = body.source_md5
        if not (told and may_mean_the_bytes(refusal)):
            raise refusal
        seen = await body.computed(Algorithm.MD5)
        if seen == told:
            raise refusal  # they were damaged after the read, or the refusal means something else
        return Doubt(told, seen)

    async def read_doubted(self, meta: ObjectMeta, doubt: Doubt) -> Download:
        """Read an object again that does not have the MD5 that its source tells.

        If the same bytes come again, either they are damaged at the source, or the source's ETags
        are no MD5s. Which of the two is found out once.

        Raises:
            IntegrityError: the bytes are damaged, as far as we can know.
        """
        self._attempts.again += 1
        async with self._etags.asking:
            again = await self._read(meta)
            body = again.body
            if not body.source_md5:
                return again  # another task has found it out meanwhile
            seen = await body.computed(Algorithm.MD5)
            if seen == body.source_md5:
                return again
            if seen != doubt.seen:
                raise errors.IntegrityError(str(doubt))
            if not await self._is_not_told_by_etag(again):
                raise errors.ChecksumDisagrees(f"{doubt}, and the same bytes came twice", seen)
            body.source_md5 = ""
            return again

    async def _read(self, meta: ObjectMeta) -> Download:
        """Read an object and compare the quick checksums that its source tells."""
        try:
            return await self._read_again(meta)
        except errors.ChecksumDisagrees as error:
            seen = error.seen
        return await self.read_disagreeing(meta, seen)

    async def _read_again(self, meta: ObjectMeta, *, compares: bool = True) -> Download:
        """Read an object; raise the error if its checksum disagrees."""
        try:
            return whole(meta, await self.ask(meta, compares=compares))
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error

    async def _read_disputed(self, meta: ObjectMeta, seen: str) -> Download:
        """Read an object again that does not have the checksum that its source declares.

        If the same bytes come again and the ETag is their MD5, the declared checksum is wrong. Some
        stores keep a wrong one when they have copied the object themselves.
        """
        again = await self._read_again(meta, compares=False)
        told = again.stored.told
        if told is None:
            return again
        body = again.body
        seen_again = await body.computed(told.algorithm)
        if seen_again == told.value:
            return again
        is_vouched = seen_again == seen and body.source_md5 != ""
        if is_vouched and await body.computed(Algorithm.MD5) == body.source_md5:
            return again
        raise verification.disagreement(told, seen_again)

    async def _read_in_doubt_of_parts(self, meta: ObjectMeta, seen: str) -> Download:
        """Read an object again that disagrees with the checksum that its source made of parts."""
        try:
            return await self._read_again(meta)
        except errors.ChecksumDisagrees as error:
            if error.seen != seen or error.algorithm != Algorithm.MD5:
                raise
            disagreement = error.with_traceback(None)  # a traceback keeps the body in memory
        if await self._etags.of_parts_must_be_md5s(self._source, self._prefix, meta.key):
            raise disagreement
        return await self._read_again(meta)

    async def _is_not_told_by_etag(self, download: Download) -> bool:
        """Whether these bytes are right although they lack the MD5 that the source tells."""
        told, meta, etags = download.stored.told, download.stored.meta, self._etags
        if told is not None and await download.body.computed(told.algorithm) != told.value:
            return False
        if etags.are_md5s is None:
            etags.are_md5s = await some_are_md5s(self._source, self._prefix, meta.key)
        return told is not None or not etags.are_md5s


def whole(meta: ObjectMeta, download: Download) -> Download:
    """Return the download if it is as long as the object was listed; else raise IntegrityError."""
    if download.body.length != meta.size:
        raise errors.IntegrityError(
            f"read {download.body.length} bytes of an object listed with {meta.size}"
        )
    return download


def may_mean_the_bytes(error: errors.SlurperError) -> bool:
    """Whether a write may have been refused because the bytes do not have its Content-MD5.

    Not every store uses the usual code for that.
    """
    if isinstance(error, errors.StoreError):
        return error.status == 400 and not error.blocks_job
    return True
