"""Writes an object in parts: multipart uploads of the XML API."""

from __future__ import annotations

import json
from collections.abc import Sequence

from typing_extensions import override

from slurper import errors
from slurper.http.messages import Request
from slurper.objectstore import checksums, documents, verification
from slurper.objectstore.base import Body, CreatedUpload, ObjectHeaders, Part
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.gcs import resources
from slurper.objectstore.gcs.client import GcsClient
from slurper.objectstore.gcs.resources import Resource
from slurper.objectstore.texts import cleaned


class Uploads(GcsClient):
    """Requests of multipart uploads."""

    @override
    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        sent = resources.to_xml_headers(headers)
        target = self._xml_target(key, ("uploads", ""))
        request = Request("POST", target, sent, idempotent=False)
        response = await self._send("CreateMultipartUpload", request, key)
        upload_id = documents.element(documents.text_of(response), "UploadId")
        if not upload_id:
            raise self._unusable(response, "CreateMultipartUpload", key, "no upload id")
        return CreatedUpload(upload_id)

    @override
    async def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        crc32c = body.checksum(Algorithm.CRC32C)
        target = self._xml_target(key, ("partNumber", str(number)), ("uploadId", upload_id))
        request = Request("PUT", target, {"x-goog-hash": f"crc32c={crc32c}"}, body.chunks)
        response = await self._send("UploadPart", request, key)
        etag = response.headers.get("etag", "")
        if not etag:
            raise self._unusable(response, "UploadPart", key, "no ETag")
        await verification.compare_with_google(response.headers, body)
        return Part(number, body.length, etag, crc32c)

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
        if if_absent and await self._present(key) is not None:
            raise errors.PreconditionFailed(
                "CompleteMultipartUpload",
                status=412,
                detail="there is an object of this key",
                bucket=self._bucket,
                key=key,
            )
        ordered = sorted(parts, key=lambda part: part.number)
        request = Request(
            "POST",
            self._xml_target(key, ("uploadId", upload_id)),
            {"content-type": "application/xml"},
            (documents.complete_upload((part.number, part.etag, "", "") for part in ordered),),
        )
        size = sum(part.size for part in ordered)
        crc32c = checksums.combine(
            Algorithm.CRC32C, ((part.checksum, part.size) for part in ordered)
        )
        try:
            response = await self._send("CompleteMultipartUpload", request, key)
            if documents.holds_error(response):
                raise self._error(response, "CompleteMultipartUpload", key)
            made = await self._resource(key)
        except errors.NotFound:
            found = await self._present(key)  # an earlier send of the completion may have made it
            if found is None or (found.get("crc32c"), int(found["size"])) != (crc32c, size):
                raise
            made = found
        if made.get("crc32c") != crc32c:
            raise errors.IntegrityError(
                f"the parts make an object with CRC32C {crc32c}, the store has one with "
                f"{cleaned(str(made.get('crc32c')))}"
            )
        await self._unpack_metadata(key, made)
        return resources.etag_of(made.get("generation"))

    @override
    async def abort_upload(self, key: str, upload_id: str) -> None:
        request = Request("DELETE", self._xml_target(key, ("uploadId", upload_id)), {})
        try:
            await self._send("AbortMultipartUpload", request, key)
        except errors.NotFound:
            return

    async def _unpack_metadata(self, key: str, made: Resource) -> None:
        """If an object made of parts has packed metadata, unpack it."""
        packed = resources.unpacked(made)
        if packed is None:
            return
        version = made.get("generation")
        condition = {"ifGenerationMatch": str(version)} if version else {}
        target = self._resource_target(key, **condition, fields=resources.FIELDS)
        body = json.dumps({"metadata": {**packed, resources.PACKED: None}}).encode()
        request = Request("PATCH", target, {"content-type": "application/json"}, (body,))
        response = await self._send("objects.patch", request, key)
        self._remembered.add([resources.read_object(b"".join(response.body))])

    async def _present(self, key: str) -> Resource | None:
        try:
            return await self._resource(key)
        except errors.NotFound:
            return None
