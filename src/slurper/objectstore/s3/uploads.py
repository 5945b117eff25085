"""Writes an object in parts: multipart uploads."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

from typing_extensions import override

from slurper import errors
from slurper.http.messages import Request, Response
from slurper.objectstore import (
    checksums,
    documents,
    entity_tags,
    listing_xml,
    listings,
    verification,
)
from slurper.objectstore.base import Body, CreatedUpload, ObjectHeaders, Part
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.s3.trailing import Trailed
from slurper.objectstore.s3.writing import NO_TAG, Writing
from slurper.objectstore.streamed import StreamedPart


class Uploads(Writing):
    """Requests of multipart uploads."""

    @override
    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        sent = self._new_object_headers(key, headers)
        algorithm = self._part_algorithm
        if algorithm is not None:
            sent["x-amz-checksum-algorithm"] = algorithm.upper()
            if self._dialect.full_object_checksum:
                sent["x-amz-checksum-type"] = "FULL_OBJECT"
        request = Request("POST", self._target(key, ("uploads", "")), sent, idempotent=False)
        response = await self._send("CreateMultipartUpload", request, key)
        upload_id = documents.element(documents.text_of(response), "UploadId")
        if not upload_id:
            raise self._unanswered(response, "CreateMultipartUpload", key, "no upload id")
        promised = response.headers.get("x-amz-checksum-type", "").upper()
        return CreatedUpload(upload_id, whole_checked=promised == "FULL_OBJECT")

    @override
    async def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        sent: dict[str, str] = {}
        await self._add_checksums(sent, body)
        request = Request("PUT", self._part_target(key, upload_id, number), sent, body.chunks)
        response = await self._send_body("UploadPart", request, key, body)
        etag = await self._part_etag(response, key, upload_id, number, body.length)
        part_algorithm = self._part_algorithm
        checksum = "" if part_algorithm is None else await body.computed(part_algorithm)
        return Part(number, body.length, etag, checksum)

    async def put_part_stream(
        self, key: str, upload_id: str, number: int, part: StreamedPart
    ) -> Part:
        """Write a part, see `StreamingStore`."""
        request = Request("PUT", self._part_target(key, upload_id, number), {}, feed=part)
        request.retried = False  # each send reads the part again
        if part.trailing is not None:
            request.feed = trailed = Trailed(part, part.trailing)
            request.headers = trailed.headers
        response = await self._send("UploadPart", request, key)
        if not part.has_passed:
            raise errors.IntegrityError("the store answered before it had all bytes of the part")
        if part.trailing is not None:
            self._compare_with_sent(response, {checksums.header_of(part.trailing): part.checksum})
        etag = await self._part_etag(response, key, upload_id, number, part.length)
        return Part(number, part.length, etag, part.checksum, part.source_sums)

    def _part_target(self, key: str, upload_id: str, number: int) -> str:
        return self._target(key, ("partNumber", str(number)), ("uploadId", upload_id))

    async def _part_etag(
        self, response: Response, key: str, upload_id: str, number: int, size: int
    ) -> str:
        etag = response.headers.get("etag", "")
        if len(etag) > NO_TAG:
            return etag
        lack = self._unanswered(response, "UploadPart", key, "no ETag")
        return await self._listed_part(lack, key, upload_id, number, size)

    async def _listed_part(
        self, lack: errors.SlurperError, key: str, upload_id: str, number: int, size: int
    ) -> str:
        """Find the ETag of a part in a listing, because the answer to its write had none.

        Raises `lack` if the part is not listed. All parts of this upload belong to this object, so
        an equal size is proof enough.
        """
        if not isinstance(lack, errors.TransportError):  # the answer is an error
            raise lack
        asked = {"max-parts": "1", "part-number-marker": str(number - 1), "uploadId": upload_id}
        request = Request("GET", self._target(key, *asked.items()), {})
        shared = self._options.answers_others
        limit = listings.most_bytes(None, answers_others=shared)  # some stores list all parts
        try:
            response = await self._send("ListParts", request, key, max_body_bytes=limit)
        except errors.StoreError as error:
            raise lack from error
        document = listing_xml.unpacked(response, most=limit)
        parse = functools.partial(documents.parts, document)
        found = await listings.read(parse, len(document), answers_others=shared)
        listed = found.get(number)
        if listed is None or listed[1] != size or not entity_tags.opaque(listed[0]):
            raise lack
        return listed[0]

    @override
    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        whole_checked: bool = False,
    ) -> str:
        whole = None
        if self._dialect.full_object_checksum:
            whole = verification.whole_checksum(parts)
        sent = self._whole_object_headers(parts, whole if whole_checked else None)
        if if_absent and self._dialect.conditional_completion:
            sent["if-none-match"] = "*"
        request = Request(
            "POST",
            self._target(key, ("uploadId", upload_id)),
            {"content-type": "application/xml", **sent},
            (documents.complete_upload(self._part_rows(parts)),),
        )
        try:
            response = await self._send("CompleteMultipartUpload", request, key)
            answer = documents.text_of(response)
            etag = documents.element(answer, "ETag")
            if not etag.strip('"'):
                etag = await self._completed_without_etag(response, key, parts)
        except (errors.NotFound, errors.PreconditionFailed) as error:
            completed = await self._completed_before(key, parts, error)
            if completed is None:
                raise
            etag, answer = completed, ""
            if isinstance(error, errors.PreconditionFailed):
                # It may come from an earlier upload of the same parts. Then this upload is still
                # open.
                with contextlib.suppress(errors.SlurperError):
                    await self.abort_upload(key, upload_id)
        if whole is not None:
            verification.compare_whole(answer, whole)
        return etag

    @override
    async def abort_upload(self, key: str, upload_id: str) -> None:
        request = Request("DELETE", self._target(key, ("uploadId", upload_id)), {})
        try:
            await self._send("AbortMultipartUpload", request, key)
        except errors.NotFound:
            return

    @property
    def _part_algorithm(self) -> Algorithm | None:
        """The checksum that is declared for an upload. MD5 only goes with each part."""
        algorithm = self._dialect.checksum
        return None if algorithm is Algorithm.MD5 else algorithm

    def _whole_object_headers(self, parts: Sequence[Part], whole: str | None) -> dict[str, str]:
        sent: dict[str, str] = {}
        if whole is not None:
            sent[checksums.header_of(Algorithm.CRC64NVME)] = whole
            sent["x-amz-checksum-type"] = "FULL_OBJECT"
        if self._dialect.verifies_upload_size:
            sent["x-amz-mp-object-size"] = str(sum(part.size for part in parts))
        return sent

    def _part_rows(self, parts: Sequence[Part]) -> Iterator[tuple[int, str, str, str]]:
        algorithm = self._part_algorithm
        name = f"Checksum{algorithm.upper()}" if algorithm is not None else ""
        for part in parts:
            yield (
                part.number,
                entity_tags.strong(part.etag),
                name if part.checksum else "",
                part.checksum,
            )

    async def _completed_without_etag(
        self, response: Response, key: str, parts: Sequence[Part]
    ) -> str:
        """Find the object's ETag after a completion that did not tell it, as at Ceph 16.

        HEAD must show an object of the right size. If the answer is not even the result of a
        completion, the object must have the ETag that these parts make.
        """
        unanswered = self._unanswered(response, "CompleteMultipartUpload", key, "no ETag")
        if documents.holds_error(response):
            raise unanswered
        try:
            meta = (await self.head(key)).meta
        except errors.NotFound:
            raise unanswered from None
        is_result = "CompleteMultipartUploadResult" in documents.text_of(response)
        is_made_of_these = meta.etag.strip('"') == verification.multipart_etag(parts)
        if meta.size != sum(part.size for part in parts) or not (is_result or is_made_of_these):
            raise unanswered
        return meta.etag

    async def _completed_before(
        self, key: str, parts: Sequence[Part], refusal: errors.StoreError
    ) -> str | None:
        """The object's ETag, if an earlier send of this completion made it and the answer was lost.

        An ETag made of the MD5s of the parts proves that. If the store makes ETags in another way,
        the right size and number of parts count as proof, but only if this request was repeated.
        """
        try:
            meta = (await self.head(key)).meta
        except errors.NotFound:
            return None
        if meta.size != sum(part.size for part in parts):
            return None
        expected = verification.multipart_etag(parts)
        if expected is not None:
            return meta.etag if entity_tags.same(meta.etag, expected) else None
        repeated = refusal.retries > 0 and entity_tags.opaque(meta.etag).endswith(f"-{len(parts)}")
        return meta.etag if repeated else None
