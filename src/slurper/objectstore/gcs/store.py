"""Google Cloud Storage over our own HTTP client: its JSON API, and its XML API for large objects.

One store is one bucket. What Google documents, and what follows from it here:

- The answer to a download tells no custom metadata and makes up content headers that were never
  set. The object's resource tells what is kept beside the bytes. The listing (and HEAD) brings it
  along. It is remembered for a while, and used if the download has the same generation and
  metageneration. So an object costs one request, or two if they differ.
- Without `Accept-Encoding: gzip` a gzip-stored object would be unzipped on its way. One whose type
  is itself compressed (an image, a zip file) is unzipped all the same, unless its Cache-Control
  says `no-transform` (https://cloud.google.com/storage/docs/transcoding): that object cannot be
  read as it is stored, fails alone, and says what helps.
- A generation names one version of the bytes: it is the identity token (`ObjectMeta.etag`).
- Copies within Google are made by Google: `rewrite` takes a condition on either side, tells the
  CRC32C of what it has made, and gives the copy what the request says and nothing else.
- Uploads in parts written side by side exist in the XML API only, and know no preconditions:
  whether the key is free is looked up right before an upload is completed, which leaves a moment
  in which somebody else's object can be replaced. Single uploads are exact.
- Objects made of parts have a CRC32C of the whole, which is compared with that of the parts.
- Metadata that no header can hold is packed into one that can, and unpacked when an object made of
  parts is complete, by whichever process that does.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.dates import http_date
from slurper.http.messages import Request, Response
from slurper.objectstore import checksums, documents, listing_xml, listings, verification
from slurper.objectstore.base import (
    UNKNOWN_SIZE,
    Body,
    ByteRange,
    CreatedUpload,
    Download,
    ListingPage,
    ObjectHeaders,
    ObjectMeta,
    Part,
    SourceMd5,
    StoreAddress,
    StoredObject,
    UploadMeta,
)
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.gcs import resources
from slurper.objectstore.gcs.client import GcsClient
from slurper.objectstore.gcs.resources import Resource
from slurper.objectstore.gcs.tokens import Accounts
from slurper.objectstore.urls import canonical_query

_REMEMBERED = 4096
"""Resources kept from listings: what the tasks of a process list ahead of their copying."""

COPY_SECONDS = 30.0
"""No further piece of an object is asked for when Google has been copying it for so long."""

_TYPE_OF_NONE = "application/octet-stream"
"""What Google says itself of an object that was written without a type."""

_MAX_KEYS = 1000


class TranscodedError(errors.IntegrityError):
    """Google sends an object with another coding than it is stored with."""

    retryable = False
    advice = (
        "Google unzips an object with Content-Encoding gzip whose content type is itself "
        "compressed; add no-transform to its Cache-Control at Google, or correct its "
        "Content-Encoding, then copy it by key"
    )


class GcsObjectStore(GcsClient):
    """One bucket of Google Cloud Storage."""

    def __init__(
        self,
        address: StoreAddress,
        options: TransportOptions,
        *,
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a store; no request is sent yet. What it takes says `GcsClient`."""
        super().__init__(address, options, accounts=accounts, clock=clock)
        self._remembered: OrderedDict[str, Resource] = OrderedDict()

    async def keeps_versions(self) -> bool:
        """Soft delete, which is on unless somebody has turned it off, keeps what is deleted."""
        return True

    async def delete(self, key: str) -> None:
        """Delete an object. One that does not exist is no error."""
        try:
            await self._send(
                "objects.delete", Request("DELETE", self._resource_target(key), {}), key
            )
        except errors.NotFound:
            return

    # Listing

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        """List the keys of `prefix` that come after `start_after`. Raises ListingError."""
        return await listings.asked_again(lambda _: self._page(prefix, start_after, max_keys))

    async def list_on(self, *, prefix: str = "", token: str = "") -> ListingPage:
        """List the page of `prefix` that goes on with a token. Raises ListingError."""
        parameters = {"maxResults": str(_MAX_KEYS)}
        parameters["fields"] = f"nextPageToken,items({resources.FIELDS})"
        if prefix:
            parameters["prefix"] = prefix
        response = await self._listed(parameters, token)
        items, following = resources.read_page(b"".join(response.body))
        objects = self._remember(items)
        listings.check_keys([meta.key for meta in objects], prefix, None)
        return ListingPage(
            objects=objects,
            finished=not following,
            served_at=http_date(response.headers.get("date", "")),
            token=following,
            lacks_sizes=any(meta.size == UNKNOWN_SIZE for meta in objects),
        )

    async def _page(self, prefix: str, start_after: str | None, max_keys: int) -> ListingPage:
        # startOffset is inclusive, so the key itself may come first, and must not count.
        asked = min(max_keys + (start_after is not None), _MAX_KEYS)
        parameters = {"maxResults": str(asked)}
        parameters["fields"] = f"nextPageToken,items({resources.FIELDS})"
        if prefix:
            parameters["prefix"] = prefix
        if start_after:
            parameters["startOffset"] = start_after
        token, objects, is_placed = "", list[ObjectMeta](), False
        while True:
            response = await self._listed(parameters, token)
            items, following = resources.read_page(b"".join(response.body))
            if start_after and items and items[0].get("name") == start_after:
                is_placed = True
                del items[0]
            objects = self._remember(items)
            if objects or not following:
                break
            if following == token:
                raise errors.ListingError("the listing goes on with the same page token")
            token = following
        listings.check_keys([meta.key for meta in objects], prefix, start_after)
        return ListingPage(
            objects=objects[:max_keys],
            finished=not following and len(objects) <= max_keys,
            served_at=http_date(response.headers.get("date", "")),
            is_placed=is_placed,
            lacks_sizes=any(meta.size == UNKNOWN_SIZE for meta in objects),
        )

    async def _listed(self, parameters: dict[str, str], token: str) -> Response:
        asked = {**parameters, "pageToken": token} if token else parameters
        request = Request("GET", f"{self._listing_path}?{canonical_query(asked.items())}", {})
        try:
            return await self._send(
                "objects.list", request, None, max_body_bytes=listings.MAX_DOCUMENT_BYTES
            )
        except errors.IntegrityError as error:
            raise errors.ListingError(f"the listing is too large to be one: {error}") from error

    def _remember(self, items: Iterable[Resource]) -> list[ObjectMeta]:
        try:
            items = list(items)
            objects = [resources.to_meta(item) for item in items]
        except (ValueError, TypeError, LookupError) as error:
            raise errors.ListingError(f"the listing holds what is no object: {error}") from error
        for item in items:
            self._remembered[item["name"]] = item
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return objects

    async def list_uploads(self, *, prefix: str = "") -> list[UploadMeta]:
        """List the multipart uploads under way for keys of `prefix`, whoever began them."""
        return await listings.every_upload(self._uploads_page, prefix)

    async def _uploads_page(self, parameters: Sequence[tuple[str, str]]) -> listings.UploadsPage:
        request = Request("GET", f"{self._xml_path}?{canonical_query(parameters)}", {})
        response = await self._send(
            "ListMultipartUploads", request, None, max_body_bytes=listings.MAX_DOCUMENT_BYTES
        )
        served_at = http_date(response.headers.get("date", ""))
        now = served_at or datetime.fromtimestamp(self._clock(), UTC)
        return listing_xml.parse_uploads(b"".join(response.body), now=now)

    # Reading

    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:  # noqa: ARG002
        """Describe an object, and always its checksum. Raises NotFound."""
        return resources.to_stored(await self._resource(key))

    async def first_part_bytes(self, key: str) -> tuple[int, int] | None:  # noqa: ARG002 - protocol
        """Nobody needs to know: of everything Google tells a checksum of the whole."""
        return None

    async def _resource(self, key: str, if_match: str | None = None) -> Resource:
        parameters = {"fields": resources.FIELDS}
        if if_match:
            parameters["ifGenerationMatch"] = resources.generation_of(if_match)
        request = Request("GET", self._resource_target(key, **parameters), {})
        response = await self._send("objects.get", request, key)
        resource = resources.read_object(b"".join(response.body))
        self._remember([resource])
        return resource

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
        etag_of_parts: bool = False,  # noqa: ARG002 - it tells better
        compares: bool = True,
    ) -> Download:
        """Read an object, or a range of it. Raises NotFound, PreconditionFailed and others.

        The headers of a range are those that are remembered of this version, if any.
        """
        if byte_range is not None:
            return await self._get_range(key, if_match, byte_range, (checksum, also))
        resource = self._recall(key, if_match) or await self._resource(key, if_match)
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
            verification.compare_with_google(response.headers, body)
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
        resource = self._recall(key, etag)
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
                f"objects.get: the object is stored with the coding {stored} and was sent with "
                f"{sent}: these are not its bytes"
            )
        return response

    def _recall(self, key: str, etag: str | None) -> Resource | None:
        resource = self._remembered.get(key)
        if resource is None or not etag:
            return None  # without a version to insist on, what is there now counts
        return resource if resources.etag_of(resource.get("generation")) == etag else None

    # Writing

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        """Write an object in one request, with its CRC32C; return its identity token.

        Google compares the MD5 that the source tells as well, and tells its own.
        """
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
            stored = made.get("crc32c")
            raise errors.IntegrityError(f"the store holds CRC32C {stored}, sent was {crc32c}")
        if body.source_md5 and made.get("md5Hash") != body.source_md5:
            await verification.compare_with_source_md5(body)
        return resources.etag_of(made.get("generation"))

    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        """Begin a multipart upload; return its id."""
        sent = resources.to_xml_headers(headers)
        target = self._xml_target(key, ("uploads", ""))
        request = Request("POST", target, sent, idempotent=False)
        response = await self._send("CreateMultipartUpload", request, key)
        upload_id = documents.element(documents.text_of(response), "UploadId")
        if not upload_id:
            raise self._unusable(response, "CreateMultipartUpload", key, "no upload id")
        return CreatedUpload(upload_id)

    async def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        """Write part `number` (from 1) with its CRC32C."""
        crc32c = body.checksum(Algorithm.CRC32C)
        target = self._xml_target(key, ("partNumber", str(number)), ("uploadId", upload_id))
        request = Request("PUT", target, {"x-goog-hash": f"crc32c={crc32c}"}, body.chunks)
        response = await self._send("UploadPart", request, key)
        etag = response.headers.get("etag", "")
        if not etag:
            raise self._unusable(response, "UploadPart", key, "no ETag")
        verification.compare_with_google(response.headers, body)
        return Part(number, body.length, etag, crc32c)

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        whole_checked: bool = False,  # noqa: ARG002 - Google promises nothing
    ) -> str:
        """Join the parts into the object; return its identity token."""
        if if_absent:
            await self._raise_if_present(key)
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
            found = await self._completed_before(key)
            if found is None or (found.get("crc32c"), int(found["size"])) != (crc32c, size):
                raise
            made = found
        if made.get("crc32c") != crc32c:
            raise errors.IntegrityError(
                f"the parts make an object with CRC32C {crc32c}, the store has one with "
                f"{made.get('crc32c')}"
            )
        await self._unpack_metadata(key, made)
        return resources.etag_of(made.get("generation"))

    async def _unpack_metadata(self, key: str, made: Resource) -> None:
        """Give an object that was made of parts the metadata that came along packed, if it has."""
        packed = resources.unpacked(made)
        if packed is None:
            return
        version = made.get("generation")
        condition = {"ifGenerationMatch": str(version)} if version else {}
        target = self._resource_target(key, **condition, fields=resources.FIELDS)
        body = json.dumps({"metadata": {**packed, resources.PACKED: None}}).encode()
        request = Request("PATCH", target, {"content-type": "application/json"}, (body,))
        response = await self._send("objects.patch", request, key)
        self._remember([resources.read_object(b"".join(response.body))])

    async def _raise_if_present(self, key: str) -> None:
        try:
            await self._resource(key)
        except errors.NotFound:
            return
        raise errors.PreconditionFailed(
            "CompleteMultipartUpload",
            status=412,
            detail="there is an object of this key",
            bucket=self._bucket,
            key=key,
        )

    async def _completed_before(self, key: str) -> Resource | None:
        """The object that an earlier send of a completion, whose answer was lost, may have made."""
        try:
            return await self._resource(key)
        except errors.NotFound:
            return None

    async def copy_object(
        self, key: str, bucket: str, source: StoredObject, *, if_absent: bool = False
    ) -> str:
        """Let Google itself copy an object of `bucket`; return the copy's identity token.

        Within a location and storage class one request does it, whatever the size; else each copies
        a piece (https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite).
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
                f"the copy has {copied.meta.size} bytes with CRC32C {copied.crc32c}, its source "
                f"{wanted.meta.size} with {wanted.crc32c}"
            )
        return copied.meta.etag

    async def _rewrite(
        self, key: str, bucket: str, source: StoredObject, asked: dict[str, str]
    ) -> tuple[Resource | None, str]:
        """Copy a piece: return the object, or the token to go on by."""
        fields = f"done,rewriteToken,resource({resources.FIELDS})"
        target = self._rewrite_target(key, bucket, source.meta.key, fields=fields, **asked)
        # What is sent is all that the copy gets. Without a type it has been seen to be refused.
        described = {"contentType": _TYPE_OF_NONE, **resources.from_headers(source.headers)}
        body = json.dumps(described).encode()
        request = Request("POST", target, {"content-type": "application/json"}, (body,))
        response = await self._send("objects.rewrite", request, key)
        return resources.read_rewrite(b"".join(response.body))

    async def copy_part(self, key: str, *_: object, **__: object) -> Part:
        """Refuse: Google knows no such request, as the dialect says."""
        raise errors.StoreError(
            "UploadPartCopy", status=501, code="NotImplemented", bucket=self._bucket, key=key
        )

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts. An upload that is already gone is no error."""
        request = Request("DELETE", self._xml_target(key, ("uploadId", upload_id)), {})
        try:
            await self._send("AbortMultipartUpload", request, key)
        except errors.NotFound:
            return


def _is_transcoded(response: Response, stored: str) -> bool:
    """Whether Google has unzipped or zipped the object on its way.

    `stored` is the coding that is kept with it. People write it as `gzip`, `x-gzip`, `gzip,gzip` or
    `GZIP`. So this counts how often each of the two names gzip.
    """
    sent = response.headers.get("content-encoding", "")
    if stored.lower().count("gzip") == sent.lower().count("gzip"):
        return False
    # The same bytes under another name are no harm, and ranges exist of stored bytes only.
    length = response.headers.get("x-goog-stored-content-length")
    return response.status != 206 and length != str(response.length)


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
