"""Copies that the store makes by itself, of objects and of parts."""

from __future__ import annotations

from typing_extensions import override

from slurper import errors
from slurper.http.messages import Request
from slurper.objectstore import documents, entity_tags, urls, verification
from slurper.objectstore.base import ByteRange, ObjectMeta, Part, StoredObject
from slurper.objectstore.dialects import PartCopy
from slurper.objectstore.s3.uploads import Uploads

_ONLY_VERSION = "x-amz-copy-source-if-match"


class Copying(Uploads):
    """Requests that name a source in place of a body."""

    @override
    async def copy_object(
        self, key: str, bucket: str, source: StoredObject, *, if_absent: bool = False
    ) -> str:
        meta = source.meta
        # The headers are sent, and not copied by the store: so this copy gets what HEAD shows, like
        # every other copy. A store that keeps `aws-chunked` by mistake would copy that too.
        sent = self._new_object_headers(key, source.headers, size=meta.size)
        sent |= _copied_from(bucket, meta.key)
        if (condition := entity_tags.condition(meta.etag)) != "":
            sent[_ONLY_VERSION] = condition
        sent["x-amz-metadata-directive"] = "REPLACE"
        if if_absent and self._dialect.conditional_copy:
            sent["if-none-match"] = "*"
        request = Request("PUT", self._target(key), sent)
        response = await self._send("CopyObject", request, key)
        answer = documents.text_of(response)
        etag = documents.element(answer, "ETag")
        if not entity_tags.opaque(etag) and not documents.has_root(answer, "CopyObjectResult"):
            raise self._unanswered(response, "CopyObject", key, "no ETag")
        if verification.proves_copy(source, etag, response.headers):
            return etag
        copy = (await self.head(key)).meta
        if copy.size != meta.size:
            raise errors.IntegrityError(f"the copy has {copy.size} bytes, its source {meta.size}")
        verification.proves_copy(source, copy.etag, response.headers)
        return copy.etag

    @override
    async def copy_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        bucket: str,
        source: ObjectMeta,
        byte_range: ByteRange,
    ) -> Part:
        sent = _copied_from(bucket, source.key)
        condition = entity_tags.condition(source.etag)
        if condition and self._dialect.part_copy is PartCopy.CONDITIONAL:
            sent[_ONLY_VERSION] = condition
        sent["x-amz-copy-source-range"] = f"bytes={byte_range.start}-{byte_range.end - 1}"
        target = self._target(key, ("partNumber", str(number)), ("uploadId", upload_id))
        request = Request("PUT", target, sent)
        response = await self._send("UploadPartCopy", request, key)
        answer = documents.text_of(response)
        etag = documents.element(answer, "ETag")
        if not entity_tags.opaque(etag):
            lack = self._unanswered(response, "UploadPartCopy", key, "no ETag")
            etag = await self._listed_part(lack, key, upload_id, number, len(byte_range))
        algorithm = self._part_algorithm
        checksum = documents.element(answer, f"Checksum{algorithm.upper()}") if algorithm else ""
        return Part(number, len(byte_range), etag, checksum)


def _copied_from(bucket: str, key: str) -> dict[str, str]:
    return {"x-amz-copy-source": urls.object_path(bucket, key)}
