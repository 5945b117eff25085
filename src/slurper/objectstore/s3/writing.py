"""Writes an object in one request."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

from typing_extensions import override

from slurper import errors
from slurper.http.messages import Request, Response
from slurper.objectstore import (
    checksums,
    documents,
    entity_tags,
    error_answers,
    object_headers,
    storable,
    verification,
)
from slurper.objectstore.base import Body, ByteRange, ObjectHeaders
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.s3.client import BucketClient
from slurper.objectstore.texts import cleaned
from slurper.settings import MIB

_MD5_HEADER = checksums.header_of(Algorithm.MD5)

NO_TAG = len('""')
"""An ETag that is no longer than this is empty."""

COMPARED_BYTES = 4 * MIB
"""How much is read at once of an object that is compared byte by byte."""


class Writing(BucketClient):
    """What every write needs: headers, checksums, and a second try with Content-MD5."""

    @override
    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        sent = self._new_object_headers(key, headers, size=body.length)
        is_compared_there = not body.source_md5 or self._dialect.verifies_md5
        if if_absent and not is_compared_there:
            # If the object was found to be wrong after this write, it could not be replaced.
            await verification.compare_with_source_md5(body)
            is_compared_there = True
        await self._add_checksums(sent, body)
        if if_absent and self._dialect.conditional_put:
            sent["if-none-match"] = "*"
        request = Request("PUT", self._target(key), sent, body.chunks)
        response = await self._send_body("PutObject", request, key, body)
        self._witness.written_last = request.target
        etag = response.headers.get("etag", "")
        if len(etag) <= NO_TAG:
            etag = await self._find_written(response, key, body)
        if not is_compared_there:
            await verification.compare_written(body, etag, response.headers)
        return etag

    async def _send_body(self, operation: str, request: Request, key: str, body: Body) -> Response:
        """Send a body. If the store refuses it because it has no MD5, send it again with one."""
        if self._dialect.wants_md5:
            await _add_md5(request, body)
        try:
            response = await self._send(operation, request, key)
        except errors.StoreError as refusal:
            if _MD5_HEADER in request.headers or not error_answers.wants_md5(refusal):
                raise
            self._dialect = replace(self._dialect, wants_md5=True)
            await _add_md5(request, body)
            response = await self._send(operation, request, key)
        self._compare_with_sent(response, request.headers)
        return response

    def _compare_with_sent(self, response: Response, sent: dict[str, str]) -> None:
        """If the store repeats the checksum of what it stored, check that it is ours."""
        algorithm = self._dialect.checksum
        if algorithm is None:
            return
        name = checksums.header_of(algorithm)
        stored = response.headers.get(name)
        if stored is not None and stored != sent.get(name, stored):
            text = f"the store holds {name} {cleaned(stored)}, sent was {sent[name]}"
            raise errors.IntegrityError(text)

    async def _find_written(self, response: Response, key: str, body: Body) -> str:
        """The ETag of an object whose write was answered without an ETag, if the object is there.

        Raises:
            SlurperError: it is not there, or has other bytes, or that cannot be found out.
        """
        lack = self._unanswered(response, "PutObject", key, "no ETag")
        if documents.holds_error(response):
            raise lack
        try:
            meta = (await self.head(key)).meta
            if meta.size == body.length and await self._has_bytes(key, meta.etag, body):
                return meta.etag
        except (errors.NotFound, errors.AccessDenied) as error:
            raise lack from error
        raise lack

    async def _has_bytes(self, key: str, etag: str, body: Body) -> bool:
        """Whether an object has these bytes.

        An ETag that is their MD5 is proof. Another ETag may be no MD5, so then the object is read.
        """
        md5 = base64.b64decode(await body.computed(Algorithm.MD5)).hex()
        if entity_tags.opaque(etag).lower() == md5:
            return True
        start = 0
        for expected in _pieces(body):
            found = await self.get(key, byte_range=ByteRange(start, start + len(expected)))
            if bytes(found.body) != expected:
                return False
            start += len(expected)
        return True

    async def _add_checksums(self, sent: dict[str, str], body: Body) -> None:
        """Send the MD5 that the source tells, and also the usual checksum if it is needed."""
        algorithm = self._dialect.checksum
        if body.source_md5 and (verifies_md5 := self._dialect.verifies_md5) is not False:
            sent[_MD5_HEADER] = body.source_md5
            if verifies_md5 or algorithm is Algorithm.MD5:
                return
        if algorithm is not None:
            sent[checksums.header_of(algorithm)] = await body.computed(algorithm)

    def _new_object_headers(
        self, key: str, headers: ObjectHeaders, *, size: int | None = None
    ) -> dict[str, str]:
        storable.check(key, headers, self._dialect, size=size)
        return object_headers.to_request(headers, as_words=self._dialect.decodes_metadata)


async def _add_md5(request: Request, body: Body) -> None:
    if _MD5_HEADER not in request.headers:
        request.headers[_MD5_HEADER] = await body.computed(Algorithm.MD5)


def _pieces(body: Body) -> Iterator[bytes]:
    """The bytes of a body, in pieces of `COMPARED_BYTES`."""
    piece = bytearray()
    for chunk in body.chunks:
        for at in range(0, len(chunk), COMPARED_BYTES):
            piece += memoryview(chunk)[at : at + COMPARED_BYTES]
            while len(piece) >= COMPARED_BYTES:
                yield bytes(piece[:COMPARED_BYTES])
                del piece[:COMPARED_BYTES]
    if piece:
        yield bytes(piece)
