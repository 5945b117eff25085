"""Reads and writes whole objects whose bytes are passed on while they come in."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from slurper import errors
from slurper.http.messages import Request, Response
from slurper.http.streams import BodyStream, StreamDeclined
from slurper.objectstore import checksums, documents, entity_tags, verification
from slurper.objectstore.base import ByteRange, ObjectHeaders
from slurper.objectstore.checksums import Algorithm, Told
from slurper.objectstore.s3.reading import WITH_CHECKSUMS, Reading, of_headers
from slurper.objectstore.s3.writing import NO_TAG, Writing
from slurper.objectstore.streamed import (
    StreamedBody,
    StreamedBytes,
    StreamedDownload,
    StreamedRange,
)
from slurper.objectstore.texts import cleaned


class Streaming(Reading, Writing):
    """The requests of a `StreamingStore`."""

    async def get_stream(
        self, key: str, *, if_match: str, size: int, algorithms: Collection[Algorithm]
    ) -> StreamedDownload:
        """Begin to read an object, see `StreamingStore`."""

        def told_in(headers: Mapping[str, str]) -> Told | None:
            return verification.told_as(of_headers(headers), algorithms)

        async def read_from(start: int) -> BodyStream:
            if start:
                return await self._read_rest(key, if_match, ByteRange(start, size), size, "")
            response = await self._begin_read(key, if_match, None, size, lambda _: True)
            # A short body comes together with its head.
            stream = response.stream or BodyStream.complete(response.body)
            with _closed_on_error(stream):
                self._require_version(response, key, if_match)
                if response.status != 200:
                    raise errors.IntegrityError("it answers with a part")
                verification.check_length(response.headers, size)
                if told_in(response.headers) != told:
                    raise errors.IntegrityError("the object now tells another checksum")
            return stream

        def may_stream(headers: Mapping[str, str]) -> bool:
            return told_in(headers) is not None

        response = await self._begin_read(key, if_match, None, size, may_stream)
        stream, told = response.stream, told_in(response.headers)
        if stream is None:
            raise StreamDeclined("the answer came as a whole")
        with _closed_on_error(stream):
            if response.status != 200 or told is None:
                raise StreamDeclined("it answers with a part")
            verification.check_length(response.headers, size)
            stored = self._described(response, "GetObject", key, size)
        self._witness.read_last = self._target(key)
        return StreamedDownload(stored, StreamedBody(size, told, stream, read_from))

    async def get_range_stream(
        self, key: str, byte_range: ByteRange, *, if_match: str, size: int
    ) -> StreamedRange:
        """Begin to read a range of an object, see `StreamingStore`."""

        async def read_from(start: int) -> BodyStream:
            rest = ByteRange(byte_range.start + start, byte_range.end)
            return await self._read_rest(key, if_match, rest, size, modified)

        def may_stream(headers: Mapping[str, str]) -> bool:
            return verification.announces_range(headers, byte_range, size)

        response = await self._begin_read(key, if_match, byte_range, size, may_stream)
        stream, modified = response.stream, response.headers.get("last-modified", "")
        if stream is None:
            raise StreamDeclined("the answer came as a whole")
        with _closed_on_error(stream):
            if not (modified or response.headers.get("etag")):
                raise StreamDeclined("the answer does not show which version it is of")
            stored = self._described(response, "GetObject", key, size)
        return StreamedRange(stored, StreamedBytes(len(byte_range), stream, read_from))

    async def _read_rest(
        self, key: str, if_match: str, rest: ByteRange, size: int, modified: str
    ) -> BodyStream:
        """Read a range of the same version once more, or the end of it.

        Some stores show the version only by the time at which it was `modified`.
        """
        response = await self._begin_read(key, if_match, rest, size, lambda _: True)
        # A short rest comes together with its head.
        stream = response.stream or BodyStream.complete(response.body)
        with _closed_on_error(stream):
            self._require_version(response, key, if_match)
            if modified and response.headers.get("last-modified", modified) != modified:
                raise self._other_version(response, key, "the object was modified")
            if not verification.announces_range(response.headers, rest, size):
                raise errors.IntegrityError(
                    f"asked for the bytes from {rest.start} on, got HTTP {response.status} with "
                    f"{cleaned(response.headers.get('content-range', 'no content-range'))}"
                )
        return stream

    async def _begin_read(
        self,
        key: str,
        if_match: str,
        wanted: ByteRange | None,
        size: int,
        may_stream: verification.HeadTest,
    ) -> Response:
        if wanted is None:
            headers, awaited = dict(WITH_CHECKSUMS), size
        else:
            headers, awaited = {"range": f"bytes={wanted.start}-{wanted.end - 1}"}, len(wanted)
        request = Request("GET", self._target(key), headers)
        request.awaited_bytes = awaited
        request.may_stream = may_stream
        return await self._read(request, key, if_match, max(awaited, documents.MAX_ANSWER_BYTES))

    async def put_stream(
        self, key: str, body: StreamedBody, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        """Write an object, see `StreamingStore`."""
        sent = self._new_object_headers(key, headers, size=body.length)
        sent[checksums.header_of(body.told.algorithm)] = body.told.value
        if if_absent and self._dialect.conditional_put:
            sent["if-none-match"] = "*"
        request = Request("PUT", self._target(key), sent, feed=body)
        response = await self._send("PutObject", request, key)
        self._compare_with_sent(response, sent)
        self._witness.written_last = request.target
        etag = response.headers.get("etag", "")
        return etag if len(etag) > NO_TAG else await self._etag_of_written(response, key, body.told)

    async def _etag_of_written(self, response: Response, key: str, told: Told) -> str:
        """The ETag of an object whose write was answered without one.

        Raises:
            SlurperError: it is not there, or its ETag is not the MD5 that was sent.
        """
        lack = self._unanswered(response, "PutObject", key, "no ETag")
        if documents.holds_error(response) or told.algorithm is not Algorithm.MD5:
            raise lack
        try:
            etag = (await self.head(key)).meta.etag
        except (errors.NotFound, errors.AccessDenied) as error:
            raise lack from error
        if entity_tags.opaque(etag).lower() != base64.b64decode(told.value).hex():
            raise lack
        return etag


@contextmanager
def _closed_on_error(stream: BodyStream) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stream.close()
        raise
