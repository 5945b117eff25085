"""The S3 REST interface over our own HTTP client: pages and parts, byte-exact keys.

One S3 is one bucket. What differs between providers comes from the `Dialect`; what the answers mean
is told by `failures`, `listing`, `documents` and `object_headers`, so that here stand the requests.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote_from_bytes, urlsplit

from slurper import errors
from slurper.http.client import ClientStatistics, HttpClient, TransportOptions
from slurper.http.messages import Request, Response
from slurper.objectstore import (
    checksums,
    dialects,
    documents,
    failures,
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
    Part,
    StoreAddress,
    StoredObject,
)
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.signing import Signer, canonical_query
from slurper.secrets import S3Credentials

_KEY_SAFE = "-_.~/"
_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,40}")

_SKEW_TOLERATED_SECONDS = 60.0
_SKEW_REFUSED_SECONDS = 300.0
"""Stores refuse requests whose date is some minutes off; 15 at AWS."""

_BUCKET_SEEN_SECONDS = 30.0
"""For so long an absent key is not taken for an absent bucket again."""

_LATE_ERROR_BYTES = 64 * 1024
_SECRET_CHARACTERS = 8
"""Shorter secrets, of tests and toys, would turn ordinary words into asterisks."""
_MAX_ANSWER_BYTES = 1 << 20
"""No answer but a listing or an object is longer."""


class S3ObjectStore:
    """One bucket of an S3-compatible store."""

    def __init__(
        self,
        address: StoreAddress,
        options: TransportOptions,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a store; no request is sent yet. `clock` gives Unix time, for signatures."""
        if not isinstance(address.credentials, S3Credentials):
            raise errors.ConfigurationError("an S3 store needs an access key id and a secret")
        self._bucket = address.bucket
        self._dialect = address.dialect
        self._credentials = address.credentials
        self._trusted = address.trusted
        self._options = options
        self._clock = clock
        self._origin = address.origin
        self._retired: list[HttpClient] = []
        self._taught_clock: Response | None = None
        self._bucket_seen_at = -math.inf
        self._whole_checked: set[str] = set()
        """Uploads for which the store has promised to check the whole object."""
        self._connect(address.origin, address.region)

    def _connect(self, origin: str, region: str) -> None:
        parts = urlsplit(origin)
        authority, bucket = parts.netloc, _quote(self._bucket)
        named = re.search("[A-Za-z]", (parts.hostname or "").rpartition(".")[2]) is not None
        if self._dialect.virtual_hosted and named and _DNS_LABEL.fullmatch(self._bucket):
            authority, self._bucket_path, self._key_path = f"{bucket}.{authority}", "/", "/"
        else:
            self._bucket_path, self._key_path = f"/{bucket}", f"/{bucket}/"
        self._origin = origin
        self._signer = Signer(self._credentials, host=authority, region=region, clock=self._clock)
        self._client = HttpClient(
            f"{parts.scheme}://{authority}",
            self._options,
            sign=self._signer,
            trusted=self._trusted,
            should_retry=self._should_retry,
        )

    @property
    def dialect(self) -> Dialect:
        """Limits and quirks of this store."""
        return self._dialect

    @property
    def statistics(self) -> ClientStatistics:
        """What has been sent so far."""
        return self._client.statistics

    async def close(self) -> None:
        """Close every connection."""
        for client in (*self._retired, self._client):
            await client.close()

    # Listing

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        """List the keys of `prefix` that come after `start_after`. Raises ListingError."""
        parameters = [("list-type", "2"), ("max-keys", str(max_keys))]
        if self._dialect.encoding_type_url:
            parameters.append(("encoding-type", "url"))
        if prefix:
            parameters.append(("prefix", prefix))
        if start_after:
            parameters.append(("start-after", start_after))
        request = Request("GET", f"{self._bucket_path}?{canonical_query(parameters)}", {})
        try:
            response = await self._send(
                "ListObjectsV2", request, None, max_body_bytes=listing.MAX_DOCUMENT_BYTES
            )
        except errors.IntegrityError as error:
            raise errors.ListingError(f"the listing is too large to be one: {error}") from error
        if documents.holds_error(response):
            raise self._error(response, "ListObjectsV2", None)
        return listing.parse_page(
            b"".join(response.body),
            prefix=prefix,
            start_after=start_after,
            order=dialects.key_order(response.headers.get("server", "")),
        )

    # Reading

    async def head(self, key: str) -> StoredObject:
        """Describe an object. Raises NotFound."""
        try:
            response = await self._send("HeadObject", Request("HEAD", self._target(key), {}), key)
        except errors.StoreError as error:
            if error.status in (400, 403):
                await self._raise_reason(key)
            elif error.status == 404:
                await self._raise_if_bucket_is_gone()
            raise
        length = response.headers.get("content-length", "")
        if not length.isdigit():
            raise self._unusable(response, "HeadObject", key, "it announces no size")
        return self._described(response, "HeadObject", key, int(length))

    async def _raise_reason(self, key: str) -> None:
        """Read a byte: refused like a HEAD before, a GET says why, and whether all would be."""
        request = Request("GET", self._target(key), {"range": "bytes=0-0"})
        await self._send("GetObject", request, key)

    async def _raise_if_bucket_is_gone(self) -> None:
        """Tell an absent bucket from an absent key, which a HEAD does not; now and then only."""
        now = time.monotonic()
        if now < self._bucket_seen_at + _BUCKET_SEEN_SECONDS:
            return
        self._bucket_seen_at = now
        try:
            await self.list_page(max_keys=1)
        except errors.NoSuchBucket:
            raise
        except errors.SlurperError:
            return  # that the bucket cannot be listed says nothing about this key

    async def get(
        self,
        key: str,
        *,
        if_match: str | None = None,
        byte_range: ByteRange | None = None,
        max_bytes: int | None = None,
    ) -> Download:
        """Read an object, or a range of it. Raises NotFound, PreconditionFailed and others."""
        headers = {"if-match": if_match} if if_match else {}
        if byte_range is not None:
            return await self._get_range(key, headers, byte_range)
        headers["x-amz-checksum-mode"] = "ENABLED"
        request = Request("GET", self._target(key), headers)
        limit = None if max_bytes is None else max(max_bytes, _MAX_ANSWER_BYTES)
        response = await self._send("GetObject", request, key, max_body_bytes=limit)
        if response.status != 200:
            raise self._unusable(response, "GetObject", key, "it answers with a part")
        body = Body(response.body)
        verification.compare_with_announced(response.headers, body)
        return Download(self._described(response, "GetObject", key, body.length), body)

    async def _get_range(self, key: str, headers: dict[str, str], wanted: ByteRange) -> Download:
        headers["range"] = f"bytes={wanted.start}-{wanted.end - 1}"
        request = Request("GET", self._target(key), headers)
        limit = max(len(wanted), _MAX_ANSWER_BYTES)
        response = await self._send("GetObject", request, key, max_body_bytes=limit)
        body = Body(response.body)
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
        sent = object_headers.to_request(headers)
        algorithm = self._dialect.checksum
        if algorithm is not None:
            sent[checksums.header_of(algorithm)] = body.checksum(algorithm)
        if if_absent and self._dialect.conditional_put:
            sent["if-none-match"] = "*"
        request = Request("PUT", self._target(key), sent, body.chunks)
        response = await self._send("PutObject", request, key)
        self._compare_with_sent(response, sent)
        return response.headers.get("etag", "")

    async def create_upload(self, key: str, headers: ObjectHeaders) -> str:
        """Begin a multipart upload; return its id."""
        sent = object_headers.to_request(headers)
        algorithm = self._part_algorithm
        if algorithm is not None:
            sent["x-amz-checksum-algorithm"] = algorithm.upper()
            if self._dialect.full_object_checksum:
                sent["x-amz-checksum-type"] = "FULL_OBJECT"
        request = Request("POST", self._target(key, ("uploads", "")), sent, idempotent=False)
        response = await self._send("CreateMultipartUpload", request, key)
        upload_id = documents.element(documents.text_of(response), "UploadId")
        if not upload_id:
            raise self._unusable(response, "CreateMultipartUpload", key, "it names no upload id")
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
        self._compare_with_sent(response, sent)
        part_algorithm = self._part_algorithm
        checksum = body.checksum(part_algorithm) if part_algorithm is not None else ""
        return Part(number, body.length, response.headers.get("etag", ""), checksum)

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> str:
        """Join the parts into the object; return its ETag. An error inside a 200 is an error."""
        whole = self._whole_checksum(parts)
        sent = self._whole_object_headers(upload_id, parts, whole)
        if if_absent and self._dialect.conditional_put:
            sent["if-none-match"] = "*"
        request = Request(
            "POST",
            self._target(key, ("uploadId", upload_id)),
            {"content-type": "application/xml", **sent},
            (self._parts_document(parts),),
        )
        try:
            response = await self._send("CompleteMultipartUpload", request, key)
            if documents.holds_error(response):
                raise self._error(response, "CompleteMultipartUpload", key)
        except (errors.NotFound, errors.PreconditionFailed) as error:
            etag = await self._completed_before(key, parts, error)
            if etag is None:
                raise
            return etag
        self._whole_checked.discard(upload_id)
        answer = documents.text_of(response)
        if whole is not None:
            verification.compare_whole(answer, whole)
        return documents.element(answer, "ETag")

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts. An upload that is already gone is no error."""
        self._whole_checked.discard(upload_id)
        request = Request("DELETE", self._target(key, ("uploadId", upload_id)), {})
        try:
            await self._send("AbortMultipartUpload", request, key)
        except errors.NotFound:
            return

    @property
    def _part_algorithm(self) -> Algorithm | None:
        """The checksum that is declared for an upload; MD5 only travels with each part."""
        algorithm = self._dialect.checksum
        return None if algorithm is Algorithm.MD5 else algorithm

    def _whole_checksum(self, parts: Sequence[Part]) -> str | None:
        """CRC64NVME of the object, where the dialect has it and every part brings its own."""
        if not self._dialect.full_object_checksum or not all(part.checksum for part in parts):
            return None
        return checksums.combine_crc64nvme((part.checksum, part.size) for part in parts)

    def _whole_object_headers(
        self, upload_id: str, parts: Sequence[Part], whole: str | None
    ) -> dict[str, str]:
        sent: dict[str, str] = {}
        if whole is not None and upload_id in self._whole_checked:
            sent[checksums.header_of(Algorithm.CRC64NVME)] = whole
            sent["x-amz-checksum-type"] = "FULL_OBJECT"
        if self._dialect.verifies_upload_size:
            sent["x-amz-mp-object-size"] = str(sum(part.size for part in parts))
        return sent

    def _parts_document(self, parts: Sequence[Part]) -> bytes:
        algorithm = self._part_algorithm
        name = f"Checksum{algorithm.upper()}" if algorithm is not None else ""
        return documents.complete_upload(
            (part.number, part.etag, name if part.checksum else "", part.checksum) for part in parts
        )

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

    # Sending

    def _target(self, key: str, *parameters: tuple[str, str]) -> str:
        if not key:
            raise errors.ConfigurationError("an object's key cannot be empty")
        path = self._key_path + _quote(key)
        return f"{path}?{canonical_query(parameters)}" if parameters else path

    async def _send(
        self,
        operation: str,
        request: Request,
        key: str | None,
        *,
        max_body_bytes: int | None = _MAX_ANSWER_BYTES,
    ) -> Response:
        region = self._signer.region
        response = await self._client.send(request, max_body_bytes=max_body_bytes)
        if not 200 <= response.status < 300 and self._follow_region(response, region):
            response = await self._client.send(request, max_body_bytes=max_body_bytes)
        if not 200 <= response.status < 300:
            raise self._error(response, operation, key)
        return response

    def _error(self, response: Response, operation: str, key: str | None) -> errors.SlurperError:
        secret, token = self._credentials.secret_access_key, self._credentials.session_token
        return failures.to_error(
            response,
            operation,
            bucket=self._bucket,
            key=key,
            hidden=[text for text in (secret, token) if text and len(text) >= _SECRET_CHARACTERS],
        )

    def _unusable(
        self, response: Response, operation: str, key: str, detail: str
    ) -> errors.StoreError:
        return errors.StoreError(
            operation, status=response.status, detail=detail, bucket=self._bucket, key=key
        )

    def _compare_with_sent(self, response: Response, sent: dict[str, str]) -> None:
        """Where the store repeats the checksum of what it stored, it must be ours."""
        algorithm = self._dialect.checksum
        if algorithm is None:
            return
        name = checksums.header_of(algorithm)
        stored = response.headers.get(name)
        if stored is not None and stored != sent[name]:
            raise errors.IntegrityError(f"the store holds {name} {stored}, sent was {sent[name]}")

    # Second chances

    def _should_retry(self, response: Response) -> bool:
        """What the usual statuses do not tell: see `HttpClient`."""
        status = response.status
        if status == 200:
            return self._failed_late(response)
        if status not in (400, 403, 409):
            return False
        code = failures.read_failure(response).code
        return code in failures.REPEATABLE or (
            status == 403 and self._corrected_clock(response, code)
        )

    def _failed_late(self, response: Response) -> bool:
        """Whether a 200 holds an error that may pass; objects, which hold anything, have ETags."""
        headers = response.headers
        return (
            0 < response.length <= _LATE_ERROR_BYTES
            and "etag" not in headers
            and "last-modified" not in headers
            and documents.holds_error(response)
            and failures.to_error(response, "", bucket="", key="").retryable
        )

    def _corrected_clock(self, response: Response, code: str) -> bool:
        """Follow the store's clock from now on, if ours is why the request was refused.

        HEAD says nothing but 403, so there only a difference that no store tolerates counts. The
        answer may be judged more than once, and is judged the same.
        """
        if response is self._taught_clock:
            return True
        skew = failures.skew_seconds(response, self._clock())
        if skew is None:
            return False
        if code != "RequestTimeTooSkewed":
            already = abs(skew - self._signer.skew_seconds) < _SKEW_TOLERATED_SECONDS
            if code or already or abs(skew) < _SKEW_REFUSED_SECONDS:
                return False
        elif abs(skew) < _SKEW_TOLERATED_SECONDS:
            return False
        self._signer.skew_seconds = skew
        self._taught_clock = response
        return True

    def _follow_region(self, response: Response, used: str) -> bool:
        """Turn to the region the store names, once; True when sending again can help.

        Rule 12: no redirect is followed. The name of a region goes into the signature, and into a
        host name only where that stays within the provider's own hosts.
        """
        if response.status not in (301, 307, 308, 400, 403):
            return False
        region = failures.read_failure(response).region
        if not region or region == used or not _REGION.fullmatch(region):
            return False
        if self._retired:
            return region == self._signer.region
        origin = self._origin_in(region)
        if origin is None:
            return False
        retired, skew = self._client, self._signer.skew_seconds
        self._connect(origin, region)
        self._signer.skew_seconds = skew
        self._client.statistics = retired.statistics
        self._retired.append(retired)
        return True

    def _origin_in(self, region: str) -> str | None:
        """Where to send for `region`; None when this endpoint cannot be moved."""
        template = self._dialect.regional_host
        if not template:
            return self._origin
        parts = urlsplit(self._origin)
        own = (template.format(region=self._signer.region), self._dialect.global_host)
        if parts.netloc not in own:
            return None
        return f"{parts.scheme}://{template.format(region=region)}"


def _quote(key: str) -> str:
    return quote_from_bytes(key.encode("utf-8", "surrogateescape"), _KEY_SAFE)
