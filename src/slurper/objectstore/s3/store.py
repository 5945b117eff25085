"""The S3 REST interface over our own HTTP client: pages and parts, byte-exact keys.

One S3 is one bucket. What differs between providers comes from the `Dialect`; what the answers mean
is told by `failures`, `pages`, `documents` and `object_headers`, and how requests are sent by
`client`, so that here stand the requests.
"""

from __future__ import annotations

import contextlib
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.dates import http_date
from slurper.http.messages import Request, Response
from slurper.objectstore import (
    checksums,
    dialects,
    documents,
    entity_tags,
    failures,
    listing_xml,
    listings,
    object_headers,
    storable,
    urls,
    verification,
    written,
)
from slurper.objectstore.base import (
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
from slurper.objectstore.dialects import KeyOrder, PartCopy
from slurper.objectstore.presence import BucketPresence
from slurper.objectstore.s3 import pages
from slurper.objectstore.s3.client import BucketClient
from slurper.objectstore.s3.echoes import Asked, OtherBucketError
from slurper.objectstore.urls import canonical_query

_ONLY_VERSION = "x-amz-copy-source-if-match"

_FOLLOWED_BYTES = 64 << 10
"""Checksums of shorter bodies are computed afterwards: they are still in the caches."""

_WITH_CHECKSUMS = {"x-amz-checksum-mode": "ENABLED"}

_RESTORES = {"x-amz-optional-object-attributes": "RestoreStatus"}

_NOT_KNOWN = frozenset({405, 501})

_NO_SUCH_RANGE = 416

_MD5_HEADER = checksums.header_of(Algorithm.MD5)

_NO_TAG = len('""')
"""An ETag of no more characters says nothing."""


_PAGE_KEYS = 1000

_MOST_EMPTY_PAGES = 1000
"""In a row. A store that shows no key on so many pages will not show one."""

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
        self._listed_as = self._bucket
        self._is_named = False
        """Whether a listing has been read."""
        self._tells_place = False
        """Whether one has repeated after which key it begins."""

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

    async def list_on(self, *, prefix: str = "", token: str = "") -> ListingPage:
        """List the page of `prefix` that goes on with a token. Raises ListingError."""
        if self._dialect.normalises_keys:
            prefix = unicodedata.normalize("NFC", prefix)
        page = await self._page(Asked(prefix, None, _PAGE_KEYS, token))
        if not (page.finished or page.token):
            if not page.objects:
                raise errors.ListingError("the listing says that there is more, but not how")
            page.token = page.objects[-1].key  # in version 1 that is the marker
        return page

    async def _page(self, asked: Asked) -> ListingPage:
        """Ask for one page, and again if the answer is a bad page."""
        others: list[str] = []

        async def ask(again: bool) -> ListingPage:
            version = self._dialect.list_version
            named = replace(asked, bucket=self._listed_as, version=version)
            try:
                return await self._list(named, _AGAIN if again else {})
            except OtherBucketError as error:
                # If every page says it, it is another name of the bucket, as behind a proxy.
                if not self._is_named and error.name in others:
                    self._listed_as = error.name
                others.append(error.name)
                raise

        page = await listings.asked_again(ask)
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
            is_told = asked.token or asked.version == 1  # a token means nothing to version 1
            if is_told or error.code not in failures.NOT_UNDERSTOOD:
                raise
            return await self._list_by_first_version(asked, error)
        first_version = "it answers ListObjectsV2 as ListObjects, and would begin anew each time"
        try:
            page = self._read_page(response, asked)
            begins = asked.start_after is None and not asked.token
            if page.is_placed or begins or not _is_old(response, asked):
                return page
            raise errors.ListingError(first_version)
        except errors.ListingError as error:
            if not _is_old(response, asked):
                raise
            return await self._list_by_first_version(asked, error)

    async def _list_by_first_version(self, asked: Asked, cause: errors.SlurperError) -> ListingPage:
        """Try ListObjects, and stay with it when it works; else the error that led here counts."""
        first = replace(asked, version=1)
        try:
            page = self._read_page(await self._ask_for_page(first, {}), first)
        except (errors.StoreError, errors.ListingError):
            raise cause from None
        self._dialect = replace(self._dialect, list_version=1)
        return page

    async def _ask_for_page(self, asked: Asked, headers: dict[str, str]) -> Response:
        wishes = _RESTORES if self._dialect.lists_restores else {}
        query = canonical_query(self._listing_parameters(asked))
        request = Request("GET", f"{self._bucket_path}?{query}", wishes | headers)
        operation = "ListObjects" if asked.version == 1 else "ListObjectsV2"
        try:
            response = await self._send(
                operation, request, None, max_body_bytes=listings.MAX_DOCUMENT_BYTES
            )
        except errors.IntegrityError as error:
            raise errors.ListingError(f"the listing is too large to be one: {error}") from error
        if documents.holds_error(response):
            raise self._error(response, operation, None)
        return response

    def _listing_parameters(self, asked: Asked) -> list[tuple[str, str]]:
        first = asked.version == 1
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
        document = b"".join(response.body)
        listing_xml.refuse_coded(document, response.headers.get("content-encoding", ""))
        return pages.parse_page(
            document,
            asked,
            order=self._order_of(response),
            served_at=http_date(response.headers.get("date", "")),
            normalised=self._dialect.normalises_keys,
            list_version=asked.version,
        )

    def _order_of(self, response: Response) -> KeyOrder:
        if self._dialect.own_order:
            return KeyOrder.NONE if self._dialect.no_order else KeyOrder.OWN
        return dialects.key_order(response.headers.get("server", ""))

    async def list_uploads(self, *, prefix: str = "") -> list[UploadMeta]:
        """List the multipart uploads under way for keys of `prefix`, whoever began them."""
        return await listings.every_upload(self._uploads_page, prefix)

    async def _uploads_page(self, parameters: Sequence[tuple[str, str]]) -> listings.UploadsPage:
        request = Request("GET", f"{self._bucket_path}?{canonical_query(parameters)}", {})
        limit = listings.MAX_DOCUMENT_BYTES
        response = await self._send("ListMultipartUploads", request, None, max_body_bytes=limit)
        served_at = http_date(response.headers.get("date", ""))
        now = served_at or datetime.fromtimestamp(self._clock(), UTC)
        return listing_xml.parse_uploads(_document(response), now=now)

    # Reading

    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:
        """Describe an object, and its checksums too if asked. Raises NotFound."""
        asked = dict(_WITH_CHECKSUMS) if with_checksums else {}
        request = Request("HEAD", self._target(key), asked)
        try:
            response = await self._send("HeadObject", request, key)
        except errors.StoreError as error:
            if error.status in _NOT_KNOWN or error.status in (400, 403):
                # What a HEAD was refused for, its answer cannot say; a GET says it, or is allowed.
                return await self._describe_by_reading(key)
            if error.status == 404:
                await self._presence.confirm()  # HEAD does not say which of the two is absent
            raise
        self._witness.read_last = request.target
        size = documents.count_of(response.headers.get("content-length", ""))
        if size is None:
            size = await self._size_by_reading(key)
        stored = self._described(response, "HeadObject", key, size)
        stored.served_at = http_date(response.headers.get("date", ""))
        return stored

    async def first_part_bytes(self, key: str) -> tuple[int, int] | None:
        """How long the first part of an object is, and of how many it was made; None: not told."""
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
        """What HEAD would say, for a store that knows no HEAD."""
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
        """Read a byte, whose Content-Range tells the size that a HEAD has not told."""
        try:
            response = await self._read_byte(key)
        except errors.StoreError as error:
            if error.status == _NO_SUCH_RANGE:  # not even a first byte
                return 0
            raise
        size = verification.told_size(response)
        if size is None:
            raise self._unusable(response, "HeadObject", key, "it announces no size")
        return size

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
        """Read an object, or a range of it. Raises NotFound, PreconditionFailed and others."""
        if byte_range is not None:
            return await self._get_range(key, if_match, byte_range, (checksum, also))
        request = Request("GET", self._target(key), dict(_WITH_CHECKSUMS))
        request.awaited_bytes = max_bytes or 0
        if max_bytes is None or max_bytes > _FOLLOWED_BYTES:
            request.digest = verification.follower(_described, checksum, md5)
        limit = None if max_bytes is None else max(max_bytes, documents.MAX_ANSWER_BYTES)
        response = await self._read(request, key, if_match, limit)
        if response.status != 200 and not verification.is_whole(response):
            raise self._unusable(response, "GetObject", key, "it answers with a part")
        self._witness.read_last = request.target
        body = Body.received(response)
        if max_bytes is not None and body.length != max_bytes:
            verification.refuse_compressed(response.headers, body, max_bytes)
        stored = self._described(response, "GetObject", key, body.length)
        if verification.tells_something(stored):  # asked of every object, and false of many
            uses_md5 = md5 is not SourceMd5.UNUSED
            body.source_md5 = verification.md5_of(stored) if uses_md5 else ""
            if compares and (stored.told is not None or not body.source_md5):
                await self._compare(key, stored, body, etag_counts=etag_of_parts)
                if checksum is Algorithm.MD5 and uses_md5:
                    body.source_md5 = verification.md5_of(stored)  # the write wants one anyway
        return Download(stored, body)

    async def _compare(
        self, key: str, stored: StoredObject, body: Body, *, etag_counts: bool
    ) -> None:
        """Compare with what the store tells, except an MD5. Raises ChecksumDisagrees."""
        if await verification.compare_with_told(stored, body):
            body.source_md5 = ""  # it was compared already
        elif not body.source_md5:
            await self._compare_with_parts(key, stored, body, etag_counts=etag_counts)

    async def _compare_with_parts(
        self, key: str, stored: StoredObject, body: Body, *, etag_counts: bool
    ) -> None:
        """Compare with what the store has made of the object's parts. Raises ChecksumDisagrees."""
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
        """Read one version: under If-Match, or where that is refused, by the answer's ETag."""
        condition = entity_tags.condition(if_match) if if_match else ""
        if condition and self._dialect.obeys_if_match:
            request.headers["if-match"] = condition
            try:
                return await self._send("GetObject", request, key, max_body_bytes=limit)
            except errors.PreconditionFailed as refusal:
                await self._confirm_refused(key, condition, refusal)
            del request.headers["if-match"]
        response = await self._send("GetObject", request, key, max_body_bytes=limit)
        got = response.headers.get("etag", "")
        if condition and got and not entity_tags.same(got, condition):
            raise errors.PreconditionFailed(
                "GetObject",
                status=response.status,
                detail=f"the object has the ETag {got}",
                bucket=self._bucket,
                key=key,
            )
        return response

    async def _confirm_refused(
        self, key: str, condition: str, refusal: errors.PreconditionFailed
    ) -> None:
        """Return when If-Match was refused although it holds; it is not sent any more then.

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

    # Writing

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        """Write an object in one request, with the dialect's checksum; return its ETag."""
        sent = self._new_object_headers(key, headers, size=body.length)
        is_compared_there = not body.source_md5 or self._dialect.verifies_md5
        if if_absent and not is_compared_there:
            # A wrong object that is found only after the write could not be replaced.
            await verification.compare_with_source_md5(body)
            is_compared_there = True
        self._add_checksums(sent, body)
        if if_absent and self._dialect.conditional_put:
            sent["if-none-match"] = "*"
        request = Request("PUT", self._target(key), sent, body.chunks)
        if self._dialect.wants_md5:
            _add_md5(request, body)
        try:
            response = await self._send("PutObject", request, key)
        except errors.StoreError as error:
            response = await self._write_with_md5(error, request, key, body)
        self._compare_with_sent(response, sent)
        self._witness.written_last = request.target
        etag = response.headers.get("etag", "")
        if len(etag) <= _NO_TAG:
            etag = await self._find_written(response, key, body)
        if not is_compared_there:
            await verification.compare_written(body, etag, response.headers)
        return etag

    async def _write_with_md5(
        self, refusal: errors.StoreError, request: Request, key: str, body: Body
    ) -> Response:
        """Send a body again, if it was refused because it had no Content-MD5; else raise."""
        if _MD5_HEADER in request.headers or not failures.wants_md5(refusal):
            raise refusal
        self._dialect = replace(self._dialect, wants_md5=True)
        _add_md5(request, body)
        return await self._send(refusal.operation, request, key)

    async def _find_written(self, response: Response, key: str, body: Body) -> str:
        """The ETag of an object whose write was answered without an ETag, if the object is there.

        Raises:
            SlurperError: it is not there, or has other bytes, or that cannot be found out.
        """
        lack = self._unanswered(response, "PutObject", key, "no ETag")
        if documents.holds_error(response):
            raise lack
        try:
            stored = await written.find(self, key, body)
        except (errors.NotFound, errors.AccessDenied) as error:
            raise lack from error
        if stored is None:
            raise lack
        return stored.meta.etag

    def _add_checksums(self, sent: dict[str, str], body: Body) -> None:
        """Send the MD5 that the source tells, and also the usual checksum if it is needed."""
        algorithm = self._dialect.checksum
        if body.source_md5 and (verifies_md5 := self._dialect.verifies_md5) is not False:
            sent[_MD5_HEADER] = body.source_md5
            if verifies_md5 or algorithm is Algorithm.MD5:
                return
        if algorithm is not None:
            sent[checksums.header_of(algorithm)] = body.checksum(algorithm)

    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
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
        promised = response.headers.get("x-amz-checksum-type", "").upper()
        return CreatedUpload(upload_id, whole_checked=promised == "FULL_OBJECT")

    async def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        """Write part `number` (from 1) with the dialect's checksum."""
        sent: dict[str, str] = {}
        self._add_checksums(sent, body)
        target = self._target(key, ("partNumber", str(number)), ("uploadId", upload_id))
        request = Request("PUT", target, sent, body.chunks)
        if self._dialect.wants_md5:
            _add_md5(request, body)
        try:
            response = await self._send("UploadPart", request, key)
        except errors.StoreError as error:
            response = await self._write_with_md5(error, request, key, body)
        self._compare_with_sent(response, sent)
        etag = response.headers.get("etag", "")
        if len(etag) <= _NO_TAG:
            lack = self._unanswered(response, "UploadPart", key, "no ETag")
            etag = await self._listed_part(lack, key, upload_id, number, body.length)
        part_algorithm = self._part_algorithm
        checksum = body.checksum(part_algorithm) if part_algorithm is not None else ""
        return Part(number, body.length, etag, checksum)

    async def _listed_part(
        self, lack: errors.SlurperError, key: str, upload_id: str, number: int, size: int
    ) -> str:
        """The ETag of a part whose write was answered without an ETag; raise `lack` without a part.

        The parts of this upload are of this object only, so an equal size is proof enough.
        """
        if not isinstance(lack, errors.TransportError):  # the answer is an error
            raise lack
        asked = {"max-parts": "1", "part-number-marker": str(number - 1), "uploadId": upload_id}
        request = Request("GET", self._target(key, *asked.items()), {})
        limit = listings.MAX_DOCUMENT_BYTES  # some stores list all parts
        try:
            response = await self._send("ListParts", request, key, max_body_bytes=limit)
        except errors.StoreError as error:
            raise lack from error
        listed = documents.parts(_document(response)).get(number)
        if listed is None or listed[1] != size or not entity_tags.opaque(listed[0]):
            raise lack
        return listed[0]

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        whole_checked: bool = False,
    ) -> str:
        """Join the parts into the object; return its ETag. An error inside a 200 is an error."""
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
                # It may come from an earlier upload of the same parts; then this one is left.
                with contextlib.suppress(errors.SlurperError):
                    await self.abort_upload(key, upload_id)
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

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts. An upload that is already gone is no error."""
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
        storable.check(key, headers, self._dialect, size=size)
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
            yield (
                part.number,
                entity_tags.strong(part.etag),
                name if part.checksum else "",
                part.checksum,
            )

    async def _completed_without_etag(
        self, response: Response, key: str, parts: Sequence[Part]
    ) -> str:
        """The object's ETag, if a completion succeeded without telling one, as at Ceph 16.

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
            return meta.etag if entity_tags.same(meta.etag, expected) else None
        repeated = refusal.retries > 0 and entity_tags.opaque(meta.etag).endswith(f"-{len(parts)}")
        return meta.etag if repeated else None


def _document(response: Response) -> bytes:
    """A listing, unzipped if need be: at Google's S3 interface requests accept gzip."""
    document = documents.unpacked(response, most=listings.MAX_DOCUMENT_BYTES)
    listing_xml.refuse_coded(document, response.headers.get("content-encoding", ""))
    return document


def _is_old(response: Response, asked: Asked) -> bool:
    """Whether what was asked in the second version of ListObjects is answered in the first."""
    return asked.version == 2 and pages.is_of_first_version(_document(response))


def _add_md5(request: Request, body: Body) -> None:
    request.headers.setdefault(_MD5_HEADER, body.checksum(Algorithm.MD5))


def _described(headers: Mapping[str, str]) -> StoredObject:
    return object_headers.from_response("", 0, headers)


def _copied_from(bucket: str, key: str) -> dict[str, str]:
    return {"x-amz-copy-source": urls.object_path(bucket, key)}
