"""The S3 REST interface over our own HTTP client: pages and parts, byte-exact keys.

One S3 is one bucket. What differs between providers comes from the `Dialect`; what the answers mean
is told by `failures`, `listing`, `documents` and `object_headers`, and how requests are sent by
`sending`, so that here stand the requests.
"""

from __future__ import annotations

import contextlib
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.messages import Request, Response
from slurper.objectstore import (
    checksums,
    dialects,
    documents,
    failures,
    limits,
    listing,
    object_headers,
    verification,
)
from slurper.objectstore.base import (
    Body,
    ByteRange,
    Download,
    ListingPage,
    ObjectHeaders,
    ObjectMeta,
    Part,
    StoreAddress,
    StoredObject,
    UploadMeta,
)
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import PartCopy
from slurper.objectstore.echoes import Asked, OtherBucketError
from slurper.objectstore.presence import BucketPresence
from slurper.objectstore.sending import MAX_ANSWER_BYTES, BucketClient, path_of
from slurper.objectstore.signing import canonical_query

_ONLY_VERSION = "x-amz-copy-source-if-match"

_RESTORES = {"x-amz-optional-object-attributes": "RestoreStatus"}

_NOT_KNOWN = frozenset({405, 501})


_MOST_EMPTY_PAGES = 1000
"""In a row; a store that shows no key on so many will not show one."""

_AGAIN = {"cache-control": "no-cache"}
"""Goes with the second question for a page: a cache may have mixed up the first answer."""


class S3ObjectStore(BucketClient):
    """One bucket of an S3-compatible store."""

    def __init__(
        self,
        address: StoreAddress,
        options: TransportOptions,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a store; no request is sent yet. `clock` gives Unix time, for signatures."""
        super().__init__(address, options, clock=clock)
        self._presence = BucketPresence(lambda: self.list_page(max_keys=1))
        self._list_version = self._dialect.list_version
        self._listed_as = self._bucket
        self._is_named = False
        """Whether a listing has been read."""
        self._tells_place = False
        """Whether one has repeated after which key it begins."""
        self._whole_checked: set[str] = set()
        """Uploads for which the store has promised to check the whole object."""

    # Listing

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        """List the keys of `prefix` that come after `start_after`. Raises ListingError."""
        if self._dialect.normalises_keys:
            prefix = unicodedata.normalize("NFC", prefix)
        asked = Asked(prefix, start_after, max_keys)
        page = await self._page(asked)
        tokens = {""}
        while not (page.objects or page.finished):
            if page.token in tokens or len(tokens) > _MOST_EMPTY_PAGES:
                raise errors.ListingError(
                    f"the listing after {start_after!r} says that there is more, but shows no key"
                )
            tokens.add(page.token)
            page = await self._page(replace(asked, token=page.token))
        return page

    async def _page(self, asked: Asked) -> ListingPage:
        """Ask for one page, and once more for one that cannot be it."""
        others: list[str] = []

        async def ask(again: bool) -> ListingPage:
            named = replace(asked, bucket=self._listed_as)
            try:
                return await self._list(named, _AGAIN if again else {})
            except OtherBucketError as error:
                # Said of every page it is a name of the bucket's own, as behind a proxy.
                if not self._is_named and error.name in others:
                    self._listed_as = error.name
                others.append(error.name)
                raise

        page = await listing.asked_again(ask)
        self._is_named = True
        if asked.start_after is not None:
            self._tells_place |= page.is_placed
        else:  # where nothing is to be repeated, a store that does so at other times shows it
            page.is_placed |= self._tells_place
        return page

    async def _list(self, asked: Asked, headers: dict[str, str]) -> ListingPage:
        try:
            response = await self._ask_for_page(asked, headers)
        except errors.StoreError as error:
            if self._list_version == 1 or error.code not in failures.NOT_UNDERSTOOD:
                raise
            return await self._list_by_first_version(asked, error)
        first_version = "it answers ListObjectsV2 as ListObjects, and would begin anew each time"
        try:
            page = self._read_page(response, asked)
            if page.is_placed or asked.start_after is None or not self._is_old(response):
                return page
            raise errors.ListingError(first_version)
        except errors.ListingError as error:
            if not self._is_old(response):
                raise
            return await self._list_by_first_version(asked, error)

    def _is_old(self, response: Response) -> bool:
        is_second = self._list_version == 2
        return is_second and listing.is_of_first_version(b"".join(response.body))

    async def _list_by_first_version(self, asked: Asked, cause: errors.SlurperError) -> ListingPage:
        """Try ListObjects, and stay with it when it works; else the error that led here counts."""
        self._list_version = 1
        try:
            return self._read_page(await self._ask_for_page(asked, {}), asked)
        except (errors.StoreError, errors.ListingError):
            self._list_version = 2
            raise cause from None

    async def _ask_for_page(self, asked: Asked, headers: dict[str, str]) -> Response:
        first = self._list_version == 1
        wishes = _RESTORES if self._dialect.lists_restores else {}
        query = canonical_query(self._listing_parameters(asked, first=first))
        request = Request("GET", f"{self._bucket_path}?{query}", wishes | headers)
        operation = "ListObjects" if first else "ListObjectsV2"
        try:
            response = await self._send(
                operation, request, None, max_body_bytes=listing.MAX_DOCUMENT_BYTES
            )
        except errors.IntegrityError as error:
            raise errors.ListingError(f"the listing is too large to be one: {error}") from error
        if documents.holds_error(response):
            raise self._error(response, operation, None)
        return response

    def _listing_parameters(self, asked: Asked, *, first: bool) -> list[tuple[str, str]]:
        parameters = [("max-keys", str(asked.max_keys))]
        if not first:
            parameters.append(("list-type", "2"))
        if self._dialect.encoding_type_url:
            parameters.append(("encoding-type", "url"))
        if asked.prefix:
            parameters.append(("prefix", asked.prefix))
        if asked.token and first:
            parameters.append(("marker", asked.token))
        elif asked.start_after:
            parameters.append(("marker" if first else "start-after", asked.start_after))
        if asked.token and not first:
            parameters.append(("continuation-token", asked.token))
        return parameters

    def _read_page(self, response: Response, asked: Asked) -> ListingPage:
        return listing.parse_page(
            b"".join(response.body),
            asked,
            order=dialects.key_order(response.headers.get("server", "")),
            served_at=object_headers.http_date(response.headers.get("date", "")),
            normalised=self._dialect.normalises_keys,
            list_version=self._list_version,
        )

    async def list_uploads(self, *, prefix: str = "") -> list[UploadMeta]:
        """List the multipart uploads under way for keys of `prefix`, whoever began them."""
        return await listing.every_upload(self._uploads_page, prefix)

    async def _uploads_page(self, parameters: Sequence[tuple[str, str]]) -> listing.UploadsPage:
        request = Request("GET", f"{self._bucket_path}?{canonical_query(parameters)}", {})
        limit = listing.MAX_DOCUMENT_BYTES
        response = await self._send("ListMultipartUploads", request, None, max_body_bytes=limit)
        served_at = object_headers.http_date(response.headers.get("date", ""))
        now = served_at or datetime.fromtimestamp(self._clock(), UTC)
        return listing.parse_uploads(b"".join(response.body), now=now)

    # Reading

    async def head(self, key: str) -> StoredObject:
        """Describe an object. Raises NotFound."""
        try:
            response = await self._send("HeadObject", Request("HEAD", self._target(key), {}), key)
        except errors.StoreError as error:
            if error.status in (400, 403):
                await self._raise_reason(key)
            elif error.status == 404:
                await self._presence.confirm()  # HEAD does not say which of the two is absent
            raise
        length = response.headers.get("content-length", "")
        if not length.isdigit():
            raise self._unusable(response, "HeadObject", key, "it announces no size")
        stored = self._described(response, "HeadObject", key, int(length))
        stored.served_at = object_headers.http_date(response.headers.get("date", ""))
        return stored

    async def _raise_reason(self, key: str) -> None:
        """Read a byte: refused like a HEAD before, a GET says why, and whether all would be."""
        request = Request("GET", self._target(key), {"range": "bytes=0-0"})
        await self._send("GetObject", request, key)

    async def get(
        self,
        key: str,
        *,
        if_match: str | None = None,
        byte_range: ByteRange | None = None,
        max_bytes: int | None = None,
        checksum: Algorithm | None = None,
    ) -> Download:
        """Read an object, or a range of it. Raises NotFound, PreconditionFailed and others."""
        headers = {"if-match": if_match} if if_match else {}
        if byte_range is not None:
            return await self._get_range(key, headers, byte_range, checksum)
        headers["x-amz-checksum-mode"] = "ENABLED"
        request = Request("GET", self._target(key), headers)
        request.awaited_bytes, request.digest = max_bytes or 0, checksums.running(checksum)
        limit = None if max_bytes is None else max(max_bytes, MAX_ANSWER_BYTES)
        response = await self._send("GetObject", request, key, max_body_bytes=limit)
        if response.status != 200:
            raise self._unusable(response, "GetObject", key, "it answers with a part")
        body = Body.received(response)
        verification.compare_with_announced(response.headers, body)
        return Download(self._described(response, "GetObject", key, body.length), body)

    async def _get_range(
        self, key: str, headers: dict[str, str], wanted: ByteRange, checksum: Algorithm | None
    ) -> Download:
        headers["range"] = f"bytes={wanted.start}-{wanted.end - 1}"
        request = Request("GET", self._target(key), headers)
        request.awaited_bytes, request.digest = len(wanted), checksums.running(checksum)
        limit = max(len(wanted), MAX_ANSWER_BYTES)
        response = await self._send("GetObject", request, key, max_body_bytes=limit)
        body = Body.received(response)
        size = verification.whole_size(response, body, wanted)
        return Download(self._described(response, "GetObject", key, size), body)

    def _described(self, response: Response, operation: str, key: str, size: int) -> StoredObject:
        missing = response.headers.get("x-amz-missing-meta", "0")
        if missing != "0":
            raise self._unusable(
                response, operation, key, f"{missing} of its metadata fit into no HTTP header"
            )
        return object_headers.from_response(key, size, response.headers)

    # Writing

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        """Write an object in one request, with the dialect's checksum; return its ETag."""
        sent = self._new_object_headers(key, headers, size=body.length)
        algorithm = self._dialect.checksum
        if algorithm is not None:
            sent[checksums.header_of(algorithm)] = body.checksum(algorithm)
        if if_absent and self._dialect.conditional_put:
            sent["if-none-match"] = "*"
        request = Request("PUT", self._target(key), sent, body.chunks)
        response = await self._send("PutObject", request, key)
        etag = self._etag_of(response, "PutObject", key)
        self._compare_with_sent(response, sent)
        return etag

    async def create_upload(self, key: str, headers: ObjectHeaders) -> str:
        """Begin a multipart upload; return its id."""
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
        if response.headers.get("x-amz-checksum-type", "").upper() == "FULL_OBJECT":
            self._whole_checked.add(upload_id)
        return upload_id

    async def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        """Write part `number` (from 1) with the dialect's checksum."""
        sent: dict[str, str] = {}
        algorithm = self._dialect.checksum
        if algorithm is not None:
            sent[checksums.header_of(algorithm)] = body.checksum(algorithm)
        target = self._target(key, ("partNumber", str(number)), ("uploadId", upload_id))
        response = await self._send("UploadPart", Request("PUT", target, sent, body.chunks), key)
        etag = self._etag_of(response, "UploadPart", key)
        self._compare_with_sent(response, sent)
        part_algorithm = self._part_algorithm
        checksum = body.checksum(part_algorithm) if part_algorithm is not None else ""
        return Part(number, body.length, etag, checksum)

    def checks_whole(self, upload_id: str) -> bool:
        """Whether the store promised so to this process, when it began the upload."""
        return upload_id in self._whole_checked

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        whole_checked: bool | None = None,
    ) -> str:
        """Join the parts into the object; return its ETag. An error inside a 200 is an error."""
        whole = None
        if self._dialect.full_object_checksum:
            whole = verification.whole_checksum(parts)
        promised = self.checks_whole(upload_id) if whole_checked is None else whole_checked
        sent = self._whole_object_headers(parts, whole if promised else None)
        if if_absent and self._dialect.conditional_put:
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
            if not etag:
                raise self._unanswered(response, "CompleteMultipartUpload", key, "no ETag")
        except (errors.NotFound, errors.PreconditionFailed) as error:
            completed = await self._completed_before(key, parts, error)
            if completed is None:
                raise
            etag, answer = completed, ""
            if isinstance(error, errors.PreconditionFailed):
                # It may come from an earlier upload of the same parts; then this one is left.
                with contextlib.suppress(errors.SlurperError):
                    await self.abort_upload(key, upload_id)
        self._whole_checked.discard(upload_id)
        if whole is not None:
            verification.compare_whole(answer, whole)
        return etag

    async def copy_object(
        self, key: str, bucket: str, source: StoredObject, *, if_absent: bool = False
    ) -> str:
        """Let the store itself copy an object of `bucket`; return the copy's ETag."""
        meta = source.meta
        # The headers are written, not taken over: what HEAD shows is what every other copy gets,
        # and a store that keeps `aws-chunked` by mistake would take that over as well.
        sent = self._new_object_headers(key, source.headers, size=meta.size)
        sent |= _copied_from(bucket, meta.key)
        if meta.etag:
            sent[_ONLY_VERSION] = meta.etag
        sent["x-amz-metadata-directive"] = "REPLACE"
        if if_absent and self._dialect.conditional_copy:
            sent["if-none-match"] = "*"
        request = Request("PUT", self._target(key), sent)
        response, _, etag = await self._send_copy("CopyObject", request, key)
        if not verification.proves_copy(meta.etag, etag, response.headers):
            size = (await self.head(key)).meta.size
            if size != meta.size:
                raise errors.IntegrityError(f"the copy has {size} bytes, its source {meta.size}")
        return etag

    async def copy_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        bucket: str,
        source: ObjectMeta,
        byte_range: ByteRange,
    ) -> Part:
        """Let the store itself copy a range of an object of `bucket` into a part."""
        sent = _copied_from(bucket, source.key)
        if source.etag and self._dialect.part_copy is PartCopy.CONDITIONAL:
            sent[_ONLY_VERSION] = source.etag
        sent["x-amz-copy-source-range"] = f"bytes={byte_range.start}-{byte_range.end - 1}"
        target = self._target(key, ("partNumber", str(number)), ("uploadId", upload_id))
        request = Request("PUT", target, sent)
        _, answer, etag = await self._send_copy("UploadPartCopy", request, key)
        algorithm = self._part_algorithm
        checksum = documents.element(answer, f"Checksum{algorithm.upper()}") if algorithm else ""
        return Part(number, len(byte_range), etag, checksum)

    async def _send_copy(
        self, operation: str, request: Request, key: str
    ) -> tuple[Response, str, str]:
        """Return the response, its text and the ETag in that."""
        response = await self._send(operation, request, key)
        answer = documents.text_of(response)
        etag = documents.element(answer, "ETag")
        if not etag:
            raise self._unanswered(response, operation, key, "no ETag")
        return response, answer, etag

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts. An upload that is already gone is no error."""
        self._whole_checked.discard(upload_id)
        request = Request("DELETE", self._target(key, ("uploadId", upload_id)), {})
        try:
            await self._send("AbortMultipartUpload", request, key)
        except errors.NotFound:
            return

    async def keeps_versions(self) -> bool:
        """Whether something stays of an object that is deleted: a version, or a marker."""
        target = f"{self._bucket_path}?{canonical_query([('versioning', '')])}"
        try:
            response = await self._send("GetBucketVersioning", Request("GET", target, {}), None)
        except errors.StoreError as error:
            if error.status not in _NOT_KNOWN and error.code not in failures.NOT_UNDERSTOOD:
                raise
            return False
        return documents.element(documents.text_of(response), "Status") != ""

    async def delete(self, key: str) -> None:
        """Delete an object. One that does not exist is no error."""
        try:
            await self._send("DeleteObject", Request("DELETE", self._target(key), {}), key)
        except errors.NotFound:
            return

    def _new_object_headers(
        self, key: str, headers: ObjectHeaders, *, size: int | None = None
    ) -> dict[str, str]:
        limits.check(key, headers, self._dialect, size=size)
        return object_headers.to_request(headers, as_words=self._dialect.decodes_metadata)

    @property
    def _part_algorithm(self) -> Algorithm | None:
        """The checksum that is declared for an upload; MD5 only travels with each part."""
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
            yield part.number, part.etag, name if part.checksum else "", part.checksum

    async def _completed_before(
        self, key: str, parts: Sequence[Part], refusal: errors.StoreError
    ) -> str | None:
        """The object's ETag, if an earlier send of this completion made it; its answer was lost.

        An ETag made of the parts' own MD5s proves it. Where a store makes ETags otherwise, a
        repeated request whose object has the right size and number of parts is taken for proof.
        """
        try:
            meta = (await self.head(key)).meta
        except errors.NotFound:
            return None
        if meta.size != sum(part.size for part in parts):
            return None
        expected = verification.multipart_etag(parts)
        if expected is not None:
            return meta.etag if meta.etag.strip('"') == expected else None
        repeated = refusal.retries > 0 and meta.etag.strip('"').endswith(f"-{len(parts)}")
        return meta.etag if repeated else None


def _copied_from(bucket: str, key: str) -> dict[str, str]:
    return {"x-amz-copy-source": path_of(bucket, key)}
