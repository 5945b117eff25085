"""A strict Google Cloud Storage: JSON API, XML multipart uploads and token endpoint, in memory.

It enforces what Google documents and other servers of tests do not: tokens, preconditions,
checksums, names of objects, parts of at least 5 MiB, no preconditions on uploads in parts, and that
the pieces of a copy are all asked for in the same words. What it answers to a download tells, as at
Google, neither metadata nor the content headers that are kept.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import secrets
from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from slurper.objectstore import dialects
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.checksums import Algorithm, encode
from tests.servers.gcs.serving import (
    Answer,
    Receive,
    Scope,
    Send,
    headers_of,
    read_body,
    reply,
    serving,
)
from tests.servers.gcs.tokens import ACCOUNT, TokenEndpoint

MIN_PART_BYTES = 5 << 20
MAX_PARTS = 10_000
MAX_RESULTS = 1000
_SETTABLE = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "customTime",
    "metadata",
    "storageClass",
)
_XML_HEADERS = {
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "content-type": "contentType",
    "x-goog-custom-time": "customTime",
    "x-goog-storage-class": "storageClass",
}
_REWRITE = r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)"
_COMPRESSED = re.compile(r"(image|video|audio)/.*|application/(x-)?(gzip|zip|bzip2|7z-compressed)")
"""Types of content that counts as compressed; Google does not tell which they are."""
_WARNING = "214 UploadServer gunzipped"
_MADE_UP = {"cache-control": "no-cache, no-store, max-age=0", "content-disposition": "attachment"}


class Refused(Exception):
    """The answer is an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass
class Kept:
    data: bytes
    resource: dict[str, Any]


@dataclass
class Bucket:
    objects: dict[str, Kept] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Of the objects, in byte order."""


@dataclass
class Upload:
    bucket: str
    key: str
    resource: dict[str, Any]
    begun_at: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Rewrite:
    """A copy under way."""

    words: tuple[str, dict[str, str], bytes]
    """Path, parameters and body: the same in every request for it."""
    bytes_done: int = 0


@dataclass
class Asked:
    """A request."""

    method: str
    path: str
    """As on the wire."""
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class GcsServer:
    """The application, and what tests look at and prepare."""

    origin: str

    def __init__(self) -> None:
        self._tokens = TokenEndpoint()
        self.ca_file: Path | None = None
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, Upload] = {}
        self.asked: list[Asked] = []
        self.refusals: list[Refused] = []
        """Answered, first to last, to the next requests with a token."""
        self.rewritten_at_once: int | None = None
        """Bytes that a request for a copy moves; None: all, as within a location and class."""
        self.unlisted: dict[str, tuple[str, ...]] = {}
        """Members that listings leave out of the rows of these keys."""
        self.refuses_rewrites: Refused | None = None
        """Answered to every request for a copy."""
        self._rewrites: dict[str, Rewrite] = {}
        self._generation = 1_700_000_000_000_000

    @property
    def tokens(self) -> TokenEndpoint:
        return self._tokens

    @property
    def token_uri(self) -> str:
        return f"{self.origin}/token"

    @property
    def environment(self) -> dict[str, str]:
        """Settings by which the program takes this server for Google."""
        return {"SLURPER_GCS_ENDPOINT": self.origin, "SLURPER_GCS_TOKEN_URI": self.token_uri}

    def make_bucket(self) -> str:
        """A bucket that no other test has."""
        name = f"test-{secrets.token_hex(8)}"
        self.buckets[name] = Bucket()
        return name

    def add(self, bucket: str, key: str, data: bytes = b"", **resource: Any) -> Kept:  # noqa: ANN401
        """Put an object there, at once."""
        kept = self._keep(bucket, key, data, resource)
        kept.resource.update(resource)
        return kept

    def touch(self, bucket: str, key: str, **members: Any) -> None:  # noqa: ANN401
        """Change what is kept beside the bytes, which are the same version still."""
        resource = self.buckets[bucket].objects[key].resource
        resource.update(members)
        resource["metageneration"] = str(int(resource["metageneration"]) + 1)

    # Serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        asked = read_asked(scope, body)
        self.asked.append(asked)
        await reply(send, self._answer(asked))

    def _answer(self, asked: Asked) -> Answer:
        if asked.path == "/token":
            status, document = self.tokens.answer(asked.body)
            return json_answer(document, status)
        if not asked.path.startswith(("/storage/", "/upload/")):
            return self.answer_xml(asked, self.tokens)
        try:
            self._admit(asked, self.tokens)
            return self._json_api(asked)
        except Refused as refused:
            if asked.query.get("alt") == "media" and refused.status == 404:
                return Answer(404, refused.message.encode(), {"content-type": "text/html"})
            return json_error(refused)

    def answer_xml(self, asked: Asked, tokens: TokenEndpoint) -> Answer:
        """Answer a request of the XML API, if one of these tokens comes with it."""
        try:
            self._admit(asked, tokens)
            return self._xml(asked)
        except Refused as refused:
            return _xml_error(refused)

    def _admit(self, asked: Asked, tokens: TokenEndpoint) -> None:
        check_token(asked, tokens)
        if self.refusals:
            raise self.refusals.pop(0)

    # The JSON API

    def _json_api(self, asked: Asked) -> Answer:
        if (rewrite := re.fullmatch(_REWRITE, asked.path)) and asked.method == "POST":
            return self._rewrite(asked, *map(unquote, rewrite.groups()))
        found = re.fullmatch(r"(/upload)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?", asked.path)
        if found is None:
            raise Refused(404, "notFound", "Not Found")
        bucket, key = unquote(found[2]), unquote(found[3] or "", errors="strict")
        if found[1] and asked.method == "POST":
            return self._insert(bucket, asked)
        if asked.method not in ("GET", "PATCH", "DELETE"):
            raise Refused(405, "methodNotAllowed", "Method Not Allowed")
        if not key:
            return self._list(bucket, asked.query)
        kept = self._find(bucket, key)
        check_generation(asked.query.get("ifGenerationMatch"), _generation(kept))
        if asked.method == "DELETE":
            self._delete(bucket, key)
            return Answer(204)
        if asked.method == "PATCH":
            self._patch(bucket, key, json.loads(asked.body))
        if asked.query.get("alt") == "media":
            return _media(kept, asked.headers)
        return json_answer(_only(kept.resource, asked.query.get("fields")))

    def _rewrite(self, asked: Asked, bucket: str, key: str, to_bucket: str, to: str) -> Answer:
        if self.refuses_rewrites is not None:
            raise self.refuses_rewrites
        source, query = self._find(bucket, key), dict(asked.query)
        target = self._bucket(to_bucket).objects.get(to)
        check_generation(query.get("ifSourceGenerationMatch"), _generation(source))
        check_generation(query.get("ifGenerationMatch"), _generation(target))
        described = json.loads(asked.body) if asked.body else source.resource
        if not described.get("contentType"):
            raise Refused(400, "required", "Required")
        check_name(to)
        token, words = query.pop("rewriteToken", None), (asked.path, query, asked.body)
        under_way = Rewrite(words) if token is None else self._rewrites.pop(token, None)
        if under_way is None or under_way.words != words:
            raise Refused(400, "invalid", "The rewriteToken is invalid.")
        size = len(source.data)
        at_once = size if self.rewritten_at_once is None else self.rewritten_at_once
        under_way.bytes_done = min(under_way.bytes_done + at_once, size)
        answer: dict[str, Any] = {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": str(under_way.bytes_done),
            "objectSize": str(size),
            "done": under_way.bytes_done == size,
        }
        if answer["done"]:
            # An object of components has no MD5, and neither has its copy.
            made = self._keep(
                to_bucket, to, source.data, described, md5="md5Hash" in source.resource
            )
            fields = re.search(r"resource\((.*?)\)", query.get("fields", ""))
            answer["resource"] = _only(made.resource, fields[1] if fields else None)
        else:
            answer["rewriteToken"] = secrets.token_urlsafe(12)
            self._rewrites[answer["rewriteToken"]] = under_way
        return json_answer(answer)

    def _delete(self, bucket: str, key: str) -> None:
        self._find(bucket, key)
        del self.buckets[bucket].objects[key]
        self.buckets[bucket].names.remove(key)

    def _patch(self, bucket: str, key: str, changes: dict[str, Any]) -> None:
        metadata = self.buckets[bucket].objects[key].resource.get("metadata") or {}
        merged = {**metadata, **changes.pop("metadata", {})}
        kept = {name: value for name, value in merged.items() if value is not None}
        self.touch(bucket, key, metadata=kept, **changes)

    def _bucket(self, name: str) -> Bucket:
        if name not in self.buckets:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def _find(self, bucket: str, key: str) -> Kept:
        kept = self._bucket(bucket).objects.get(key)
        if kept is None:
            raise Refused(404, "notFound", f"No such object: {bucket}/{key}")
        return kept

    def _list(self, name: str, query: dict[str, str]) -> Answer:
        bucket = self._bucket(name)
        most = min(int(query.get("maxResults", MAX_RESULTS)), MAX_RESULTS)
        prefix, token = query.get("prefix", ""), query.get("pageToken")
        begin = bisect_left(bucket.names, max(prefix, query.get("startOffset", "")))
        if token:
            begin = bisect_left(bucket.names, base64.b64decode(token).decode())
        rest = bucket.names[begin : begin + most + 1]
        rest = [key for key in rest if key.startswith(prefix)]
        fields = re.search(r"items\((.*?)\)", query.get("fields", ""))
        shown = fields[1] if fields else None
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if rest:
            answer["items"] = [self._row(bucket, key, shown) for key in rest[:most]]
        if len(rest) > most:
            answer["nextPageToken"] = base64.b64encode(rest[most].encode()).decode()
        return json_answer(answer)

    def _row(self, bucket: Bucket, key: str, fields: str | None) -> dict[str, Any]:
        row = _only(bucket.objects[key].resource, fields)
        return {name: row[name] for name in row if name not in self.unlisted.get(key, ())}

    def _insert(self, bucket: str, asked: Asked) -> Answer:
        self._bucket(bucket)
        if asked.query.get("uploadType") != "multipart":
            raise Refused(400, "invalid", "this server knows uploadType=multipart")
        resource, data = read_related(asked)
        key = resource.get("name", "")
        _check_sums(resource.get("crc32c"), resource.get("md5Hash"), data)
        check_generation(
            asked.query.get("ifGenerationMatch"),
            _generation(self.buckets[bucket].objects.get(key)),
        )
        kept = self._keep(bucket, key, data, resource)
        return json_answer(_only(kept.resource, asked.query.get("fields")))

    def _keep(
        self, name: str, key: str, data: bytes, described: dict[str, Any], *, md5: bool = True
    ) -> Kept:
        check_name(key)
        bucket = self._bucket(name)
        self._generation += 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        kept = Kept(
            data,
            {
                "storageClass": "STANDARD",
                **{member: described[member] for member in _SETTABLE if described.get(member)},
                "kind": "storage#object",
                "name": key,
                "bucket": name,
                "size": str(len(data)),
                "generation": str(self._generation),
                "metageneration": "1",
                "timeCreated": now,
                "updated": now,
                "crc32c": encode(Algorithm.CRC32C, [data]),
            },
        )
        if md5:
            kept.resource["md5Hash"] = encode(Algorithm.MD5, [data])
        if key not in bucket.objects:
            insort(bucket.names, key)
        bucket.objects[key] = kept
        return kept

    # The XML API: uploads in parts

    def _xml(self, asked: Asked) -> Answer:
        bucket, _, path = asked.path[1:].partition("/")
        bucket, key, query = unquote(bucket), unquote(path, errors="strict"), asked.query
        if bucket not in self.buckets:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        if any(name.startswith("x-goog-if-") for name in asked.headers):
            raise Refused(400, "InvalidArgument", "Preconditions are not supported here.")
        match asked.method, "uploads" in query, "uploadId" in query:
            case "GET", True, False if not key:
                return self._list_uploads(bucket, query)
            case "POST", True, False:
                return self._begin_upload(bucket, key, asked.headers)
            case "PUT", False, True:
                return self._put_part(bucket, key, asked)
            case "POST", False, True:
                return self._complete(self._upload(bucket, key, query), asked)
            case "DELETE", False, True:
                self._upload(bucket, key, query)
                del self.uploads[query["uploadId"]]
                return Answer(204)
        raise Refused(400, "InvalidArgument", "this server knows uploads in parts only")

    def _upload(self, bucket: str, key: str, query: dict[str, str]) -> Upload:
        upload = self.uploads.get(query["uploadId"])
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise Refused(404, "NoSuchUpload", "The requested upload was not found.")
        return upload

    def _begin_upload(self, bucket: str, key: str, headers: dict[str, str]) -> Answer:
        check_name(key)
        resource: dict[str, Any] = {
            member: headers[name] for name, member in _XML_HEADERS.items() if name in headers
        }
        if not all(text.isascii() for text in headers.values()):
            raise Refused(400, "InvalidArgument", "What Google makes of other letters is not told.")
        resource["metadata"] = {
            name.removeprefix("x-goog-meta-"): text
            for name, text in headers.items()
            if name.startswith("x-goog-meta-")
        }
        upload_id = secrets.token_urlsafe(12)
        self.uploads[upload_id] = Upload(bucket, key, resource, datetime.now(UTC))
        return _xml_answer("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")

    def _put_part(self, bucket: str, key: str, asked: Asked) -> Answer:
        upload = self._upload(bucket, key, asked.query)
        number = int(asked.query["partNumber"])
        if not 1 <= number <= MAX_PARTS:
            raise Refused(400, "InvalidArgument", "Part number must be between 1 and 10000.")
        crc32c = encode(Algorithm.CRC32C, [asked.body])
        if asked.headers.get("x-goog-hash") not in (None, f"crc32c={crc32c}"):
            raise Refused(400, "BadDigest", "The CRC32C you specified did not match.")
        upload.parts[number] = asked.body
        return Answer(200, b"", {"etag": _etag(asked.body), "x-goog-hash": f"crc32c={crc32c}"})

    def _complete(self, upload: Upload, asked: Asked) -> Answer:
        rows = [
            (int(row.findtext("{*}PartNumber", "0")), row.findtext("{*}ETag", ""))
            for row in ET.fromstring(asked.body)  # noqa: S314 - of our own client
        ]
        numbers = [number for number, _ in rows]
        if not rows or any(one >= other for one, other in pairwise(numbers)):
            raise Refused(400, "InvalidPartOrder", "Parts must be in ascending order.")
        for number, etag in rows:
            if _etag(upload.parts.get(number, b"\0absent")) != etag:
                raise Refused(400, "InvalidPart", "A part could not be found.")
        if any(len(upload.parts[number]) < MIN_PART_BYTES for number in numbers[:-1]):
            raise Refused(400, "EntityTooSmall", "Your proposed upload is too small.")
        data = b"".join(upload.parts[number] for number in numbers)
        self._keep(upload.bucket, upload.key, data, upload.resource, md5=False)
        del self.uploads[asked.query["uploadId"]]
        etag = f'"{secrets.token_hex(8)}-{len(rows)}"'
        return _xml_answer("CompleteMultipartUploadResult", f"<ETag>{escape(etag)}</ETag>")

    def _list_uploads(self, bucket: str, query: dict[str, str]) -> Answer:
        rows = "".join(
            f"<Upload><Key>{escape(upload.key)}</Key><UploadId>{upload_id}</UploadId>"
            f"<Initiated>{upload.begun_at.isoformat()}</Initiated></Upload>"
            for upload_id, upload in self.uploads.items()
            if upload.bucket == bucket and upload.key.startswith(query.get("prefix", ""))
        )
        text = f"<IsTruncated>false</IsTruncated>{rows}"
        return _xml_answer("ListMultipartUploadsResult", text)


class Google(Protocol):
    """What stands in for Google."""

    origin: str
    ca_file: Path | None

    @property
    def tokens(self) -> TokenEndpoint: ...

    @property
    def token_uri(self) -> str: ...

    def make_bucket(self) -> str: ...


@dataclass
class Front:
    """Another way to a server."""

    server: GcsServer
    origin: str
    ca_file: Path

    @property
    def tokens(self) -> TokenEndpoint:
        return self.server.tokens

    @property
    def token_uri(self) -> str:
        return f"{self.origin}/token"

    def make_bucket(self) -> str:
        return self.server.make_bucket()


def address_of(server: Google, bucket: str) -> StoreAddress:
    """Where a bucket of it is, and what opens it."""
    return StoreAddress(
        origin=server.origin,
        bucket=bucket,
        region="auto",
        dialect=dialects.GCS,
        credentials=ACCOUNT,
        token_uri=server.token_uri,
        trusted=True,
    )


@contextmanager
def gcs_server() -> Iterator[GcsServer]:
    """Run a server."""
    server = GcsServer()
    with serving(server) as server.origin:
        yield server


def read_asked(scope: Scope, body: bytes) -> Asked:
    query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
    flat = {name: values[-1] for name, values in query.items()}
    path = scope["raw_path"].decode("ascii")
    return Asked(scope["method"], path, flat, headers_of(scope), body)


def quoted(key: str) -> str:
    """A key as one segment of a path."""
    return quote(key, safe="")


def check_name(key: str) -> None:
    if len(key.encode()) > 1024:
        raise Refused(400, "invalid", "The maximum object length is 1024 characters.")
    if not key or key in (".", "..") or "\n" in key or "\r" in key:
        raise Refused(400, "invalid", f"Invalid object name: {key!r}")


def _generation(kept: Kept | None) -> str:
    return kept.resource["generation"] if kept is not None else "0"


def check_token(asked: Asked, tokens: TokenEndpoint) -> None:
    if not tokens.admits(asked.headers.get("authorization", "")):
        raise Refused(401, "authError", "Invalid Credentials")


def check_generation(wanted: str | None, there: str) -> None:
    if wanted is not None and wanted != there:
        message = "At least one of the pre-conditions you specified did not hold."
        raise Refused(412, "conditionNotMet", message)


def _check_sums(crc32c: str | None, md5: str | None, data: bytes) -> None:
    for algorithm, given in ((Algorithm.CRC32C, crc32c), (Algorithm.MD5, md5)):
        found = encode(algorithm, [data])
        if given not in (None, found):
            name = algorithm.upper()
            message = f'Provided {name} "{given}" doesn\'t match calculated {name} "{found}".'
            raise Refused(400, "invalid", message)


def _only(resource: dict[str, Any], fields: str | None) -> dict[str, Any]:
    if fields is None:
        return resource
    return {name: resource[name] for name in fields.split(",") if name in resource}


def _media(kept: Kept, asked: dict[str, str]) -> Answer:
    resource, data = kept.resource, kept.data
    coding = resource.get("contentEncoding", "identity")
    headers = {
        **_MADE_UP,
        "content-type": resource.get("contentType", "application/octet-stream"),
        "x-goog-generation": resource["generation"],
        "x-goog-metageneration": resource["metageneration"],
        "x-goog-storage-class": resource["storageClass"] or "STANDARD",
        "x-goog-stored-content-encoding": coding,
        "x-goog-stored-content-length": str(len(data)),
        "x-goog-hash": f"crc32c={resource['crc32c']}",
    }
    if _is_unzipped(resource, asked):
        # Without Content-Encoding; the stored length and checksums are still told, a range is not
        # looked at (https://cloud.google.com/storage/docs/transcoding).
        return Answer(200, gzip.decompress(data), {**headers, "warning": _WARNING})
    if coding != "identity":
        headers["content-encoding"] = coding
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.get("range", ""))
    if wanted is None:
        return Answer(200, data, headers)
    begin, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
    if begin >= len(data):
        return Answer(416, b"", {"content-range": f"bytes */{len(data)}"})
    headers["content-range"] = f"bytes {begin}-{end - 1}/{len(data)}"
    return Answer(206, data[begin:end], headers)


def _is_unzipped(resource: dict[str, Any], asked: dict[str, str]) -> bool:
    """Whether an object is sent unzipped, as Google documents it.

    Its metadata say `gzip`, and nothing else: other codings are nobody's business but the readers'.
    """
    if resource.get("contentEncoding") != "gzip":
        return False
    if "no-transform" in resource.get("cacheControl", ""):
        return False
    twice = _COMPRESSED.fullmatch(resource.get("contentType", "")) is not None
    return twice or "gzip" not in asked.get("accept-encoding", "")


def read_related(asked: Asked) -> tuple[dict[str, Any], bytes]:
    kind, _, boundary = asked.headers.get("content-type", "").partition("boundary=")
    mark = f"--{boundary}".encode()
    # A part may have no headers: what ends the line of the mark then also begins the empty line.
    head, separator, rest = asked.body.partition(b"\r\n" + mark)
    media, end, tail = rest.rpartition(b"\r\n" + mark + b"--")
    if not (kind.startswith("multipart/related") and boundary and separator and end):
        raise Refused(400, "badRequest", "Malformed multipart body.")
    if tail.strip() or not head.startswith(mark):
        raise Refused(400, "badRequest", "Malformed multipart body.")
    about = json.loads(head.partition(b"\r\n\r\n")[2])
    named, _, data = media.partition(b"\r\n\r\n")
    named_kind = re.search(r"content-type: *([^\r\n]*)", named.decode(), re.IGNORECASE)
    return {**({"contentType": named_kind[1]} if named_kind else {}), **about}, data


def write_related(resource: dict[str, Any], data: bytes) -> tuple[str, bytes]:
    """Content type and body of a request that describes an object and brings its bytes."""
    mark, kind = secrets.token_hex(16), resource.get("contentType")
    about = f"--{mark}\r\ncontent-type: application/json\r\n\r\n{json.dumps(resource)}\r\n"
    media = f"--{mark}\r\n" + (f"content-type: {kind}\r\n" if kind else "") + "\r\n"
    content = (about + media).encode() + data + f"\r\n--{mark}--".encode()
    return f"multipart/related; boundary={mark}", content


def _etag(data: bytes) -> str:
    return f'"{base64.b64decode(encode(Algorithm.MD5, [data])).hex()}"'


def json_answer(document: object, status: int = 200) -> Answer:
    body = json.dumps(document).encode()
    return Answer(status, body, {"content-type": "application/json; charset=UTF-8"})


def json_error(refused: Refused) -> Answer:
    reason = {"message": refused.message, "domain": "global", "reason": refused.reason}
    about = {"code": refused.status, "message": refused.message, "errors": [reason]}
    return json_answer({"error": about}, refused.status)


def _xml_answer(root: str, text: str, status: int = 200) -> Answer:
    body = f"<?xml version='1.0' encoding='UTF-8'?><{root}>{text}</{root}>".encode()
    return Answer(status, body, {"content-type": "application/xml; charset=UTF-8"})


def _xml_error(refused: Refused) -> Answer:
    code = {"authError": "AuthenticationRequired", "invalid": "InvalidArgument"}
    named = code.get(refused.reason, refused.reason)
    text = f"<Code>{named}</Code><Message>{escape(refused.message)}</Message>"
    return _xml_answer("Error", text, refused.status)
