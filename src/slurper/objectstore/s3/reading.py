"""Describes and reads objects: HEAD and GET, whole or in ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from slurper import errors
from slurper.http.dates import http_date
from slurper.http.messages import Request, Response
from slurper.objectstore import checksums, documents, entity_tags, object_headers, verification
from slurper.objectstore.base import Body, ByteRange, Download, SourceMd5, StoredObject
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.s3.client import NOT_KNOWN, BucketClient
from slurper.objectstore.texts import cleaned

_FOLLOWED_BYTES = 64 << 10
"""Checksums of shorter bodies are computed afterwards: the bytes are still in the CPU's caches."""

WITH_CHECKSUMS = {"x-amz-checksum-mode": "ENABLED"}

_NO_SUCH_RANGE = 416


class Reading(BucketClient):
    """Requests that describe and read objects."""

    @override
    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:
        asked = dict(WITH_CHECKSUMS) if with_checksums else {}
        request = Request("HEAD", self._target(key), asked)
        try:
            response = await self._send("HeadObject", request, key)
        except errors.StoreError as error:
            if error.status in NOT_KNOWN or error.status in (400, 403):
                # The answer to a HEAD cannot say why it was refused. A GET says it, or succeeds.
                return await self._describe_by_reading(key)
            if error.status == 404:
                await self._presence.confirm()  # HEAD does not say whether key or bucket is absent
            raise
        self._witness.read_last = request.target
        size = documents.count_of(response.headers.get("content-length", ""))
        if size is None:
            size = await self._size_by_reading(key)
        stored = self._described(response, "HeadObject", key, size)
        stored.served_at = http_date(response.headers.get("date", ""))
        return stored

    @override
    async def first_part_bytes(self, key: str) -> tuple[int, int] | None:
        request = Request("HEAD", self._target(key, ("partNumber", "1")), {})
        try:
            response = await self._send("HeadObject", request, key)
        except errors.StoreError:
            return None
        size = documents.count_of(response.headers.get("content-length", ""))
        count = documents.count_of(response.headers.get("x-amz-mp-parts-count", ""))
        return None if size is None or count is None else (size, count)

    async def _read_byte(self, key: str) -> Response:
        request = Request("GET", self._target(key), {"range": "bytes=0-0"})
        return await self._send("GetObject", request, key)

    async def _describe_by_reading(self, key: str) -> StoredObject:
        """Describe an object by a GET, because HEAD was refused."""
        try:
            response = await self._read_byte(key)
        except errors.StoreError as error:
            if error.status != _NO_SUCH_RANGE:
                raise
            response = await self._send("GetObject", Request("GET", self._target(key), {}), key)
        size = verification.told_size(response)
        if size is None:
            raise self._unusable(response, "GetObject", key, "it announces no size")
        return self._described(response, "GetObject", key, size)

    async def _size_by_reading(self, key: str) -> int:
        """Read one byte. Its Content-Range tells the size, which HEAD did not tell."""
        try:
            response = await self._read_byte(key)
        except errors.StoreError as error:
            if error.status == _NO_SUCH_RANGE:  # the object is empty
                return 0
            raise
        size = verification.told_size(response)
        if size is None:
            raise self._unusable(response, "HeadObject", key, "it announces no size")
        return size

    @override
    async def get(
        self,
        key: str,
        *,
        if_match: str | None = None,
        byte_range: ByteRange | None = None,
        max_bytes: int | None = None,
        checksum: Algorithm | None = None,
        also: Algorithm | None = None,
        md5: SourceMd5 = SourceMd5.UNUSED,
        etag_of_parts: bool = False,
        compares: bool = True,
    ) -> Download:
        if byte_range is not None:
            return await self._get_range(key, if_match, byte_range, (checksum, also))
        request = Request("GET", self._target(key), dict(WITH_CHECKSUMS))
        request.awaited_bytes = max_bytes or 0
        if max_bytes is None or max_bytes > _FOLLOWED_BYTES:
            request.digest = verification.follower(of_headers, checksum, md5)
        limit = None if max_bytes is None else max(max_bytes, documents.MAX_ANSWER_BYTES)
        response = await self._read(request, key, if_match, limit)
        if response.status != 200 and not verification.is_whole(response):
            raise self._unusable(response, "GetObject", key, "it answers with a part")
        self._witness.read_last = request.target
        body = Body.received(response)
        if max_bytes is not None and body.length != max_bytes:
            verification.refuse_compressed(response.headers, body, max_bytes)
        stored = self._described(response, "GetObject", key, body.length)
        if verification.tells_something(stored):  # a quick test, false for many objects
            uses_md5 = md5 is not SourceMd5.UNUSED
            body.source_md5 = verification.md5_of(stored) if uses_md5 else ""
            if compares and (stored.told is not None or not body.source_md5):
                await self._compare(key, stored, body, etag_counts=etag_of_parts)
                if checksum is Algorithm.MD5 and uses_md5:
                    body.source_md5 = verification.md5_of(stored)  # the write needs an MD5 anyway
        return Download(stored, body)

    async def _compare(
        self, key: str, stored: StoredObject, body: Body, *, etag_counts: bool
    ) -> None:
        """Compare a body with the checksums that the store tells. Raises ChecksumDisagrees.

        If the target will compare an MD5, slow checksums and those of parts are skipped.
        """
        if await verification.compare_with_told(stored, body):
            body.source_md5 = ""  # it was compared already
        elif not body.source_md5:
            await self._compare_with_parts(key, stored, body, etag_counts=etag_counts)

    async def _compare_with_parts(
        self, key: str, stored: StoredObject, body: Body, *, etag_counts: bool
    ) -> None:
        """Compare a body with a checksum that the store made of the checksums of its parts.

        Raises ChecksumDisagrees.
        """
        told = stored.told_of_parts
        if told is None and etag_counts:
            told = verification.etag_of_parts(stored)
        if told is None:
            return
        if told.value.endswith("-1"):
            first: tuple[int, int] | None = (body.length, 1)
        else:
            first = await self.first_part_bytes(key)
        if first is not None:
            await verification.compare_with_parts(told, body, *first)

    async def _get_range(
        self,
        key: str,
        if_match: str | None,
        wanted: ByteRange,
        algorithms: Sequence[Algorithm | None],
    ) -> Download:
        headers = {"range": f"bytes={wanted.start}-{wanted.end - 1}"}
        request = Request("GET", self._target(key), headers)
        request.awaited_bytes = len(wanted)
        request.digest = lambda _: checksums.running(algorithms)
        limit = max(len(wanted), documents.MAX_ANSWER_BYTES)
        response = await self._read(request, key, if_match, limit)
        body = Body.received(response)
        size = verification.whole_size(response, body, wanted)
        return Download(self._described(response, "GetObject", key, size), body)

    async def _read(
        self, request: Request, key: str, if_match: str | None, limit: int | None
    ) -> Response:
        """Read one version. Without a working If-Match, the answer's ETag is compared."""
        condition = entity_tags.condition(if_match) if if_match else ""
        if condition and self._dialect.obeys_if_match:
            request.headers["if-match"] = condition
            try:
                return await self._send("GetObject", request, key, max_body_bytes=limit)
            except errors.PreconditionFailed as refusal:
                await self._confirm_refused(key, condition, refusal)
            del request.headers["if-match"]
        response = await self._send("GetObject", request, key, max_body_bytes=limit)
        try:
            self._require_version(response, key, condition)
        except errors.PreconditionFailed:
            if response.stream is not None:
                response.stream.close()
            raise
        return response

    def _require_version(self, response: Response, key: str, etag: str) -> None:
        """Compare the ETag of an answer with `etag`, if both exist. Raises PreconditionFailed."""
        got = response.headers.get("etag", "")
        if etag and got and not entity_tags.same(got, etag):
            raise self._other_version(response, key, f"the object has the ETag {cleaned(got)}")

    def _other_version(
        self, response: Response, key: str, detail: str
    ) -> errors.PreconditionFailed:
        return errors.PreconditionFailed(
            "GetObject", status=response.status, detail=detail, bucket=self._bucket, key=key
        )

    async def _confirm_refused(
        self, key: str, condition: str, refusal: errors.PreconditionFailed
    ) -> None:
        """Stop sending If-Match if the store refused one that holds; otherwise raise `refusal`.

        Some stores compare it with another spelling of the tag, or with a weak one.
        """
        try:
            stored = await self.head(key)
        except errors.SlurperError:
            raise refusal from None
        if not entity_tags.same(stored.meta.etag, condition):
            raise refusal
        self._dialect = replace(self._dialect, obeys_if_match=False)

    def _described(self, response: Response, operation: str, key: str, size: int) -> StoredObject:
        missing = response.headers.get("x-amz-missing-meta", "0")
        if missing != "0":
            raise self._unusable(
                response, operation, key, f"{missing} of its metadata fit into no HTTP header"
            )
        return object_headers.from_response(key, size, response.headers)


def of_headers(headers: Mapping[str, str]) -> StoredObject:
    """What the head of an answer says, without key and size."""
    return object_headers.from_response("", 0, headers)
