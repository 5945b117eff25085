"""Describes and reads objects."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from slurper import errors
from slurper.http.messages import Request, Response
from slurper.objectstore import checksums, documents, verification
from slurper.objectstore.base import (
    Body,
    ByteRange,
    Download,
    ObjectHeaders,
    ObjectMeta,
    SourceMd5,
    StoredObject,
)
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.gcs import resources
from slurper.objectstore.gcs.client import GcsClient
from slurper.objectstore.texts import cleaned


class TranscodedError(errors.IntegrityError):
    """Google sends an object with another coding than it is stored with."""

    retryable = False
    advice = (
        "Google unzips an object with Content-Encoding gzip whose content type is itself "
        "compressed; add no-transform to its Cache-Control at Google, or correct its "
        "Content-Encoding, then copy it by key"
    )


class Reading(GcsClient):
    """Requests that describe and read objects."""

    @override
    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:
        return resources.to_stored(await self._resource(key))

    @override
    async def first_part_bytes(self, key: str) -> tuple[int, int] | None:
        """Not needed: Google tells a checksum of every whole object."""
        return None

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
        """For a range, the headers are those remembered of this version, or empty."""
        if byte_range is not None:
            return await self._get_range(key, if_match, byte_range, (checksum, also))
        resource = self._remembered.find(key, if_match) or await self._resource(key, if_match)
        limit = None if max_bytes is None else max(max_bytes, documents.MAX_ANSWER_BYTES)
        generation = resources.etag_of(resource.get("generation"))
        request = self._media_request(key, generation, {})
        request.awaited_bytes = max_bytes or 0
        request.digest = lambda _: checksums.running((Algorithm.CRC32C, checksum))
        response = await self._media(key, request, limit)
        if response.status != 200:
            raise self._unusable(response, "objects.get", key, "it answers with a part")
        body = Body.received(response)
        if compares:
            await verification.compare_with_google(response.headers, body)
        if not compares or (checksum is Algorithm.MD5 and md5 is not SourceMd5.UNUSED):
            told = verification.told_by_google(response.headers)
            body.source_md5 = told.get(Algorithm.MD5, "")
        told_generation = response.headers.get("x-goog-metageneration")
        if told_generation is None or told_generation != str(resource.get("metageneration")):
            resource = await self._resource(key, generation)
        stored = resources.to_stored(resource)
        stored.meta = stored.meta._replace(size=body.length)
        return Download(stored, body)

    async def _get_range(
        self,
        key: str,
        if_match: str | None,
        wanted: ByteRange,
        algorithms: Sequence[Algorithm | None],
    ) -> Download:
        asked = {"range": f"bytes={wanted.start}-{wanted.end - 1}"}
        request = self._media_request(key, if_match, asked)
        request.awaited_bytes = len(wanted)
        request.digest = lambda _: checksums.running(algorithms)
        response = await self._media(key, request, max(len(wanted), documents.MAX_ANSWER_BYTES))
        body = Body.received(response)
        size = verification.whole_size(response, body, wanted)
        etag = resources.etag_of(response.headers.get("x-goog-generation", ""))
        resource = self._remembered.find(key, etag)
        if resource is not None:
            return Download(resources.to_stored(resource), body)
        storage_class = response.headers.get("x-goog-storage-class", "")
        meta = ObjectMeta(key, size, etag, None, storage_class)
        return Download(StoredObject(meta, ObjectHeaders()), body)

    def _media_request(self, key: str, if_match: str | None, headers: dict[str, str]) -> Request:
        parameters = {"alt": "media"}
        if if_match:
            parameters["ifGenerationMatch"] = resources.generation_of(if_match)
        headers["accept-encoding"] = "gzip"
        return Request("GET", self._resource_target(key, **parameters), headers)

    async def _media(self, key: str, request: Request, limit: int | None) -> Response:
        response = await self._send("objects.get", request, key, max_body_bytes=limit)
        self._witness.read_last = request.target
        stored = response.headers.get("x-goog-stored-content-encoding")
        if stored is not None and _is_transcoded(response, stored):
            sent = response.headers.get("content-encoding", "none")
            raise TranscodedError(
                f"objects.get: the object is stored with the coding {cleaned(stored)} and was sent "
                f"with {cleaned(sent)}: these are not its bytes"
            )
        return response


def _is_transcoded(response: Response, stored: str) -> bool:
    """Whether Google has unzipped or zipped the object on its way.

    `stored` is the coding that is kept with it. People write it as `gzip`, `x-gzip`, `gzip,gzip` or
    `GZIP`. So this counts how often each of the two names gzip.
    """
    sent = response.headers.get("content-encoding", "")
    if stored.lower().count("gzip") == sent.lower().count("gzip"):
        return False
    # Another name for the coding of the same bytes does no harm. Ranges are always of stored bytes.
    length = response.headers.get("x-goog-stored-content-length")
    return response.status != 206 and length != str(response.length)
