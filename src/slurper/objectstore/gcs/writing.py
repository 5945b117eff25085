"""Writes an object in one request, or lets Google copy one."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence

from typing_extensions import override

from slurper import errors
from slurper.http.messages import Request
from slurper.objectstore import verification
from slurper.objectstore.base import Body, ObjectHeaders, Part, StoredObject
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.gcs import resources
from slurper.objectstore.gcs.client import GcsClient
from slurper.objectstore.gcs.resources import Resource
from slurper.objectstore.texts import cleaned
from slurper.objectstore.urls import canonical_query

COPY_SECONDS = 30.0
"""After this long, no further piece of a copy is asked for."""

_TYPE_OF_NONE = "application/octet-stream"
"""The type that Google itself gives to an object that was written without one."""


class Writing(GcsClient):
    """Requests of the JSON API that make an object."""

    @override
    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        """Google also compares the MD5 that the source tells, and returns its own MD5."""
        crc32c = body.checksum(Algorithm.CRC32C)
        described = {**resources.from_headers(headers), "name": key, "crc32c": crc32c}
        if body.source_md5:
            described["md5Hash"] = body.source_md5
        parameters = {"uploadType": "multipart", "fields": resources.FIELDS}
        if if_absent:
            parameters["ifGenerationMatch"] = "0"
        boundary = secrets.token_hex(16)
        request = Request(
            "POST",
            f"{self._upload_path}?{canonical_query(parameters.items())}",
            {"content-type": f"multipart/related; boundary={boundary}"},
            tuple(_related(boundary, described, body.chunks)),
        )
        response = await self._send("objects.insert", request, key)
        made = resources.read_object(b"".join(response.body))
        if made.get("crc32c") != crc32c:
            stored = cleaned(str(made.get("crc32c")))
            raise errors.IntegrityError(f"the store holds CRC32C {stored}, sent was {crc32c}")
        if body.source_md5 and made.get("md5Hash") != body.source_md5:
            await verification.compare_with_source_md5(body)
        return resources.etag_of(made.get("generation"))

    @override
    async def copy_object(
        self, key: str, bucket: str, source: StoredObject, *, if_absent: bool = False
    ) -> str:
        """Within a location and storage class one request copies an object of any size.

        Otherwise each request copies a piece of it.
        https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
        """
        give_up_at = time.monotonic() + COPY_SECONDS
        asked = {"ifSourceGenerationMatch": resources.generation_of(source.meta.etag)}
        if if_absent:
            asked["ifGenerationMatch"] = "0"
        made, token = await self._rewrite(key, bucket, source, asked)
        while made is None:
            if time.monotonic() >= give_up_at:
                raise errors.CopyUnfinished(f"Google needs more than {COPY_SECONDS:g} s to copy it")
            made, token = await self._rewrite(key, bucket, source, {**asked, "rewriteToken": token})
        copied, wanted = resources.to_stored(made), source
        if (copied.meta.size, copied.crc32c) != (wanted.meta.size, wanted.crc32c):
            raise errors.IntegrityError(
                f"the copy has {copied.meta.size} bytes with CRC32C {cleaned(str(copied.crc32c))}, "
                f"its source {wanted.meta.size} with {cleaned(str(wanted.crc32c))}"
            )
        return copied.meta.etag

    async def _rewrite(
        self, key: str, bucket: str, source: StoredObject, asked: dict[str, str]
    ) -> tuple[Resource | None, str]:
        """Copy a piece. Return the finished object, or the token for the next piece."""
        fields = f"done,rewriteToken,resource({resources.FIELDS})"
        target = self._rewrite_target(key, bucket, source.meta.key, fields=fields, **asked)
        # The copy gets only what is sent here. Google has refused requests without a type.
        described = {"contentType": _TYPE_OF_NONE, **resources.from_headers(source.headers)}
        body = json.dumps(described).encode()
        request = Request("POST", target, {"content-type": "application/json"}, (body,))
        response = await self._send("objects.rewrite", request, key)
        return resources.read_rewrite(b"".join(response.body))

    @override
    async def copy_part(self, key: str, *_: object, **__: object) -> Part:
        """Google has no such request, as the dialect says."""
        raise errors.StoreError(
            "UploadPartCopy", status=501, code="NotImplemented", bucket=self._bucket, key=key
        )


def _related(boundary: str, described: Resource, chunks: Sequence[bytes]) -> Iterator[bytes]:
    """A multipart/related body: what the object is, and its bytes."""
    kind = described.get("contentType", _TYPE_OF_NONE)
    text = json.dumps(described)
    yield (
        f"--{boundary}\r\ncontent-type: application/json; charset=utf-8\r\n\r\n{text}\r\n"
        f"--{boundary}\r\ncontent-type: {kind}\r\n\r\n"
    ).encode()
    yield from chunks
    yield f"\r\n--{boundary}--\r\n".encode()
