"""An HTTP server that speaks R2's part of the S3 interface: signatures, headers, XML."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from typing_extensions import override

from slurper.demo.servers import HOST, S3Server
from slurper.objectstore.s3 import signing
from tests.servers import signatures
from tests.servers.r2.bucket import Bucket, PartOf, Refusal, Stored, shown_metadata

ACCESS_KEY_ID, SECRET_ACCESS_KEY = "r2-token-id", "r2-token-hash-of-64-characters"
REGIONS = ("auto", "us-east-1", "")
"""The last two are aliases of the first."""
_SKEW_SECONDS = 15 * 60
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]*)/s3/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PROLOGUE = '<?xml version="1.0" encoding="UTF-8"?>\n'


class R2Stub(ThreadingHTTPServer):
    """R2 on a loopback port. `buckets` may be looked at, and `pairs` be added to."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.buckets: dict[str, Bucket] = {}
        self.pairs = {ACCESS_KEY_ID: SECRET_ACCESS_KEY}
        """The key pairs that may do everything."""
        self.lock = threading.Lock()

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when a client is gone, as one that a test has killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # as it came

    @property
    def address(self) -> S3Server:
        """Where and with which key pair to reach it."""
        return S3Server(
            endpoint=f"http://{HOST}:{self.server_address[1]}",
            access_key_id=ACCESS_KEY_ID,
            secret_access_key=SECRET_ACCESS_KEY,
            region="auto",
        )


@contextmanager
def running() -> Iterator[R2Stub]:
    """Serve from a thread until the block ends."""
    stub = R2Stub()
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stub
    finally:
        stub.shutdown()
        thread.join()
        stub.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "cloudflare"
    sys_version = ""
    timeout = 30
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    server: R2Stub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - names of the base class

    def handle_expect_100(self) -> bool:
        """R2 does not answer with 100, but boto3 would wait a second for it; ours never asks."""
        proceed = super().handle_expect_100()
        self.wfile.flush()
        return proceed

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        self.given = {name.lower(): value for name, value in self.headers.items()}
        length = self.given.get("content-length", "0")
        self.body = self.rfile.read(int(length))
        path, _, query = self.path.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        bucket, _, key = path.removeprefix("/").partition("/")
        try:
            self._authenticate(path, query)
            with self.server.lock:
                self._perform(unquote(bucket), unquote(key, errors="surrogateescape"))
        except Refusal as refusal:
            self._refuse(refusal)
        self._write()  # without the lock: a client may read one object while it writes another

    def _refuse(self, refusal: Refusal) -> None:
        text = f"<Code>{refusal.code}</Code><Message>{escape(str(refusal))}</Message>"
        headers = {"retry-after": "1"} if refusal.status == 429 else {}
        self._send(refusal.status, f"{_PROLOGUE}<Error>{text}</Error>".encode(), headers)

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.reply = (status, body, headers)

    def _write(self) -> None:
        status, body, headers = self.reply
        self.send_response(status)
        described = {"content-type": "application/xml", "content-length": str(len(body))}
        if status == 204:
            described = {}
        for name, value in (described | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    # Signatures

    def _authenticate(self, path: str, query: str) -> None:
        found = _AUTHORIZATION.fullmatch(self.given.get("authorization", ""))
        if found is None:
            raise Refusal(400, "InvalidArgument", "Authorization")
        key_id, day, region, names, signature = found.groups()
        secret = self.server.pairs.get(key_id)
        if secret is None:
            raise Refusal(401, "Unauthorized")
        if region not in REGIONS:
            raise Refusal(400, "InvalidRegionName", f"region {region!r}; use auto")
        self._check_clock()
        payload = self.given.get("x-amz-content-sha256", "")
        if payload.startswith("STREAMING-"):
            raise Refusal(501, "NotImplemented", payload)
        known = (signing.UNSIGNED_PAYLOAD, hashlib.sha256(self.body).hexdigest())
        if payload not in known:
            raise Refusal(400, "XAmzContentSHA256Mismatch")
        headers = {name: self.given.get(name, "") for name in names.split(";")}
        unsigned = [n for n in self.given if n.startswith("x-amz-") and n not in headers]
        if unsigned or "host" not in headers:
            raise Refusal(403, "AccessDenied", f"not signed: {unsigned}")
        canonical = signatures.canonical_request(
            self.command, path, _sorted(query), headers, payload
        )
        key = signing.signing_key(secret, day, region)
        scope = f"{day}/{region}/s3/aws4_request"
        text = signatures.string_to_sign(self.given["x-amz-date"], scope, canonical)
        if not hmac.compare_digest(signatures.signature(key, text), signature):
            raise Refusal(403, "SignatureDoesNotMatch")

    def _check_clock(self) -> None:
        try:
            moment = datetime.strptime(self.given.get("x-amz-date", ""), "%Y%m%dT%H%M%S%z")
        except ValueError:
            raise Refusal(403, "AccessDenied", "x-amz-date") from None
        if abs(moment.timestamp() - time.time()) > _SKEW_SECONDS:
            raise Refusal(403, "RequestTimeTooSkewed")

    # Operations

    def _perform(self, bucket_name: str, key: str) -> None:
        if self.command == "PUT" and not key and not self.query:
            self.server.buckets.setdefault(bucket_name, Bucket())
            return self._send(200)
        bucket = self.server.buckets.get(bucket_name)
        if bucket is None:
            raise Refusal(404, "NoSuchBucket")
        for name in ("tagging", "acl", "versioning", "versions", "retention", "legal-hold"):
            if name in self.query:
                raise Refusal(501, "NotImplemented", name)
        if not key:
            return self._bucket_operation(bucket_name, bucket)
        return self._object_operation(bucket, key)

    def _bucket_operation(self, name: str, bucket: Bucket) -> None:
        match self.command:
            case "GET" if "uploads" in self.query:
                self._list_uploads(bucket)
            case "GET":
                self._list(name, bucket)
            case "HEAD":
                self._send(200)
            case "DELETE":
                del self.server.buckets[name]
                self._send(204)
            case _:
                raise Refusal(501, "NotImplemented")

    def _object_operation(self, bucket: Bucket, key: str) -> None:
        upload_id = self.query.get("uploadId")
        match self.command:
            case "GET" | "HEAD":
                self._get(bucket.get(key))
            case "PUT" if "x-amz-copy-source" in self.given:
                self._copy(bucket, key)
            case "PUT" if upload_id is not None:
                number = int(self.query["partNumber"])
                part = bucket.put_part(key, upload_id, number, self.given, self.body)
                self._send(200, b"", {"etag": f'"{part.etag}"'})
            case "PUT":
                self._send(200, b"", _identity(bucket.put(key, self.given, self.body)))
            case "POST" if "uploads" in self.query:
                self._begin(bucket, key)
            case "POST" if upload_id is not None:
                self._complete(bucket, key, upload_id)
            case "DELETE" if upload_id is not None:
                bucket.abort(key, upload_id)
                self._send(204)
            case "DELETE":
                bucket.delete(key)
                self._send(204)
            case _:
                raise Refusal(501, "NotImplemented")

    def _get(self, stored: Stored) -> None:
        wanted = self.given.get("if-match")
        if wanted is not None and wanted.strip('"') != stored.etag:
            raise Refusal(412, "PreconditionFailed")
        headers = _identity(stored) | dict(stored.content)
        headers.setdefault("content-type", "application/octet-stream")
        headers |= {f"x-amz-meta-{n}": shown_metadata(v) for n, v in stored.metadata.items()}
        headers |= {
            "accept-ranges": "bytes",
            "last-modified": email.utils.format_datetime(stored.modified, usegmt=True),
            "x-amz-storage-class": stored.storage_class,
        }
        status, body = 200, stored.body
        asked = _RANGE.fullmatch(self.given.get("range", ""))
        if asked is not None:
            start, end = int(asked[1]), min(int(asked[2] or 1 << 62), len(body) - 1)
            if start >= len(body):
                raise Refusal(416, "InvalidRange")
            headers["content-range"] = f"bytes {start}-{end}/{len(body)}"
            status, body = 206, body[start : end + 1]
        elif stored.checksum is None or "x-amz-checksum-mode" not in self.given:
            headers = {n: v for n, v in headers.items() if not n.startswith("x-amz-checksum")}
        self._send(status, body, headers)

    def _copy(self, bucket: Bucket, key: str) -> None:
        named = unquote(self.given["x-amz-copy-source"], errors="surrogateescape")
        name, _, source_key = named.removeprefix("/").partition("/")
        origin = self.server.buckets.get(name)
        if origin is None:
            raise Refusal(404, "NoSuchBucket")
        stored = origin.get(source_key)
        conditions = [n for n in self.given if n.startswith("x-amz-copy-source-if-")]
        if "uploadId" not in self.query:
            wanted = self.given.get("x-amz-copy-source-if-match")
            if wanted is not None and wanted.strip('"') != stored.etag:
                raise Refusal(412, "PreconditionFailed")
            made: Stored | PartOf = bucket.copy(key, self.given, stored)
        elif conditions:
            raise Refusal(501, "NotImplemented", f"UploadPartCopy with {conditions[0]}")
        else:
            made = bucket.copy_part(
                key, self.query["uploadId"], int(self.query["partNumber"]), self.given, stored
            )
        root = "CopyPartResult" if isinstance(made, PartOf) else "CopyObjectResult"
        moment = _moment(bucket.now())
        rows = f"<ETag>&quot;{made.etag}&quot;</ETag><LastModified>{moment}</LastModified>"
        self._send_xml(root, rows)

    def _begin(self, bucket: Bucket, key: str) -> None:
        upload_id = bucket.begin(key, self.given)
        algorithm, kind = bucket.kind_of(upload_id)
        told = {}
        if algorithm is not None:
            told = {"x-amz-checksum-algorithm": algorithm.upper(), "x-amz-checksum-type": kind}
        self._send_xml("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>", told)

    def _complete(self, bucket: Bucket, key: str, upload_id: str) -> None:
        listed = []
        for row in ET.fromstring(self.body):  # noqa: S314 - the tests' own clients
            leaves = {leaf.tag.rpartition("}")[2]: leaf.text or "" for leaf in row}
            checksum = next((v for n, v in leaves.items() if n.startswith("Checksum")), "")
            listed.append((int(leaves["PartNumber"]), leaves["ETag"], checksum))
        stored = bucket.complete(key, upload_id, self.given, listed)
        rows = f"<ETag>&quot;{stored.etag}&quot;</ETag>"
        if stored.checksum is not None:
            name = f"Checksum{stored.checksum.algorithm.upper()}"
            rows += f"<{name}>{stored.checksum.value}</{name}>"
            rows += f"<ChecksumType>{stored.checksum.kind}</ChecksumType>"
        self._send_xml("CompleteMultipartUploadResult", rows)

    def _list(self, name: str, bucket: Bucket) -> None:
        start_after = self.query.get("start-after", "")
        if token := self.query.get("continuation-token"):
            start_after = base64.urlsafe_b64decode(token).decode("utf-8", "surrogateescape")
        most = min(int(self.query.get("max-keys", "1000")), 1000)
        after = bucket.after(self.query.get("prefix", ""), start_after)
        found = list(islice(after, most + 1))
        shown, more = found[:most], len(found) > most
        encode = self._encoder()
        rows = [f"<Name>{escape(name)}</Name><KeyCount>{len(shown)}</KeyCount>"]
        rows.append(f"<IsTruncated>{str(more).lower()}</IsTruncated>")
        if "encoding-type" in self.query:
            rows.append("<EncodingType>url</EncodingType>")
        if more:
            last = shown[-1].shown_key.encode("utf-8", "surrogateescape")
            token = base64.urlsafe_b64encode(last).decode()
            rows.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
        rows += [
            f"<Contents><Key>{encode(stored.shown_key)}</Key><Size>{len(stored.body)}</Size>"
            f"<LastModified>{_moment(stored.modified)}</LastModified>"
            f"<ETag>&quot;{stored.etag}&quot;</ETag>"
            f"<StorageClass>{stored.storage_class}</StorageClass></Contents>"
            for stored in shown
        ]
        self._send_xml("ListBucketResult", "".join(rows))

    def _list_uploads(self, bucket: Bucket) -> None:
        encode = self._encoder()
        rows = [
            f"<Upload><Key>{encode(key)}</Key><UploadId>{upload_id}</UploadId>"
            f"<Initiated>{_moment(begun_at)}</Initiated></Upload>"
            for key, upload_id, begun_at in bucket.uploads(self.query.get("prefix", ""))
        ]
        body = f"<IsTruncated>false</IsTruncated>{''.join(rows)}"
        self._send_xml("ListMultipartUploadsResult", body)

    def _encoder(self) -> Callable[[str], str]:
        if self.query.get("encoding-type") == "url":
            return lambda key: quote(key.encode("utf-8", "surrogateescape"), safe="/")
        return escape

    def _send_xml(self, root: str, inner: str, headers: dict[str, str] | None = None) -> None:
        body = (
            f'{_PROLOGUE}<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{root}>'
        )
        self._send(200, body.encode(), headers)


def _identity(stored: Stored) -> dict[str, str]:
    headers = {"etag": f'"{stored.etag}"'}
    if stored.checksum is not None:
        headers[f"x-amz-checksum-{stored.checksum.algorithm}"] = stored.checksum.value
        headers["x-amz-checksum-type"] = stored.checksum.kind
    return headers


def _sorted(query: str) -> str:
    pairs = (item if "=" in item else f"{item}=" for item in query.split("&") if item)
    return "&".join(sorted(pairs))


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
