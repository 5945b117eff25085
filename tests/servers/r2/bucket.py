"""Buckets that keep R2's documented rules, strictly: what R2 refuses, these refuse.

Sources: developers.cloudflare.com/r2, pages S3 API compatibility, extensions, limits, multipart
objects, unicode interoperability and error codes. Where those are silent, S3's behaviour is taken.
"""

from __future__ import annotations

import base64
import email.header
import hashlib
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from awscrt import checksums as crt

MIB, GIB = 1 << 20, 1 << 30
MAX_KEY_BYTES = 1024
MAX_METADATA_BYTES = 8192
MIN_PART_BYTES = 5 * MIB
MAX_PARTS = 10_000
MAX_SEND_BYTES = 5 * GIB - 5 * MIB
UPLOAD_LIFETIME = timedelta(days=7)
WRITES_APART_SECONDS = 1.0

CONTENT_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)
_COPY_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_METADATA = "x-amz-meta-"
_CHECKSUM = "x-amz-checksum-"
_NOT_THERE = (
    "x-amz-tagging",
    "x-amz-object-lock-",
    "x-amz-website-redirect-location",
    "x-amz-request-payer",
    "x-amz-expected-bucket-owner",
    "x-amz-grant-",
    "x-amz-server-side-encryption-aws-kms-key-id",
)


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.status = status
        self.code = code


def _crc(update: Callable[[bytes], int], width: int) -> Callable[[bytes], bytes]:
    return lambda data: update(data).to_bytes(width, "big")


ALGORITHMS: Mapping[str, Callable[[bytes], bytes]] = {
    "crc64nvme": _crc(crt.crc64nvme, 8),
    "crc32": _crc(crt.crc32, 4),
    "crc32c": _crc(crt.crc32c, 4),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


@dataclass(frozen=True)
class Checksum:
    """A checksum that R2 keeps with an object."""

    algorithm: str
    value: str
    kind: str
    """FULL_OBJECT or COMPOSITE."""


@dataclass(frozen=True)
class Stored:
    """An object."""

    shown_key: str
    """The spelling it was last written with; that it is kept under is NFC."""
    body: bytes
    etag: str
    content: Mapping[str, str]
    metadata: Mapping[str, str]
    """Decoded."""
    storage_class: str
    modified: datetime
    checksum: Checksum | None


@dataclass(frozen=True)
class PartOf:
    """A part of an upload."""

    body: bytes
    etag: str
    checksum: str


@dataclass
class Begun:
    """A multipart upload."""

    shown_key: str
    description: tuple[dict[str, str], dict[str, str], str]
    algorithm: str | None
    kind: str
    begun_at: datetime
    parts: dict[int, PartOf] = field(default_factory=dict)


class Bucket:
    """Objects and uploads of one bucket; a test may turn its clocks."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.now = now
        self.monotonic: Callable[[], float] = time.monotonic
        self._objects: dict[str, Stored] = {}
        self._uploads: dict[str, Begun] = {}
        self._written_at: dict[str, float] = {}

    # Objects

    def get(self, key: str) -> Stored:
        stored = self._objects.get(_name(key))
        if stored is None:
            raise Refusal(404, "NoSuchKey")
        return stored

    def put(self, key: str, headers: Mapping[str, str], body: bytes) -> Stored:
        _check_key(key)
        if len(body) > MAX_SEND_BYTES:
            raise Refusal(400, "EntityTooLarge")
        description = _describe(headers)
        checksum = _verified(headers, body)
        self._check_condition(key, headers)
        self._check_pace(key)
        return self._keep(key, body, _md5(body), description, checksum)

    def copy(self, key: str, headers: Mapping[str, str], source: Stored) -> Stored:
        """Copy an object; its description is taken over unless the headers are to REPLACE it."""
        _check_key(key)
        description = _describe(headers)
        directive = headers.get("x-amz-metadata-directive", "COPY")
        if directive == "COPY":
            description = dict(source.content), dict(source.metadata), source.storage_class
        elif directive != "REPLACE":
            raise Refusal(501, "NotImplemented", f"metadata directive {directive}")
        if "if-none-match" in headers:
            raise Refusal(501, "NotImplemented", "If-None-Match of CopyObject")
        self._check_pace(key)
        return self._keep(key, source.body, source.etag, description, source.checksum)

    def copy_part(
        self, key: str, upload_id: str, number: int, headers: Mapping[str, str], source: Stored
    ) -> PartOf:
        """Copy a range of an object into a part."""
        asked = _COPY_RANGE.fullmatch(headers.get("x-amz-copy-source-range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1) if asked else (0, len(source.body))
        if end > len(source.body):
            raise Refusal(416, "InvalidRange")
        part = self.put_part(key, upload_id, number, {}, source.body[start:end])
        algorithm = self._uploads[upload_id].algorithm
        if algorithm is not None:
            checksum = base64.b64encode(ALGORITHMS[algorithm](part.body)).decode()
            part = replace(part, checksum=checksum)
            self._uploads[upload_id].parts[number] = part
        return part

    def delete(self, key: str) -> None:
        self._objects.pop(_name(key), None)

    def after(self, prefix: str, start_after: str) -> Iterator[Stored]:
        """Objects in the order of the keys they are kept under."""
        prefix, start_after = _name(prefix), _name(start_after)
        for name in sorted(self._objects):
            if name.startswith(prefix) and name > start_after:
                yield self._objects[name]

    # Uploads

    def begin(self, key: str, headers: Mapping[str, str]) -> str:
        _check_key(key)
        algorithm = headers.get("x-amz-checksum-algorithm", "").lower() or None
        kind = headers.get("x-amz-checksum-type", "").upper()
        if algorithm is not None:
            if algorithm not in ALGORITHMS:
                raise Refusal(501, "NotImplemented", f"checksum algorithm {algorithm}")
            own = "FULL_OBJECT" if algorithm == "crc64nvme" else "COMPOSITE"
            if kind not in ("", own):
                raise Refusal(501, "NotImplemented", f"{algorithm} as {kind}")
            kind = own
        upload_id = secrets.token_urlsafe(24)
        self._uploads[upload_id] = Begun(key, _describe(headers), algorithm, kind, self.now())
        return upload_id

    def kind_of(self, upload_id: str) -> tuple[str | None, str]:
        """Checksum algorithm and type of an upload."""
        return self._uploads[upload_id].algorithm, self._uploads[upload_id].kind

    def put_part(
        self, key: str, upload_id: str, number: int, headers: Mapping[str, str], body: bytes
    ) -> PartOf:
        upload = self._upload(key, upload_id)
        if not 1 <= number <= MAX_PARTS:
            raise Refusal(400, "InvalidArgument", "part number")
        if len(body) > MAX_SEND_BYTES:
            raise Refusal(400, "EntityTooLarge")
        _refuse_what_is_not_there(headers)
        checksum = _verified(headers, body)
        if checksum is not None and checksum.algorithm != upload.algorithm:
            raise Refusal(400, "InvalidRequest", "not the upload's checksum algorithm")
        upload.parts[number] = PartOf(body, _md5(body), checksum.value if checksum else "")
        return upload.parts[number]

    def complete(
        self,
        key: str,
        upload_id: str,
        headers: Mapping[str, str],
        listed: Sequence[tuple[int, str, str]],
    ) -> Stored:
        """Join parts, given as number, ETag and checksum."""
        upload = self._upload(key, upload_id)
        parts = _chosen(upload, listed)
        body = b"".join(part.body for part in parts)
        whole = _whole_checksum(upload, parts, body)
        announced = headers.get(f"{_CHECKSUM}crc64nvme")
        if announced is not None and (whole is None or announced != whole.value):
            raise Refusal(400, "BadDigest", "the whole object has another checksum")
        self._check_condition(key, headers)
        self._check_pace(key)
        del self._uploads[upload_id]
        digests = b"".join(bytes.fromhex(part.etag) for part in parts)
        etag = f"{_md5(digests)}-{len(parts)}"
        return self._keep(upload.shown_key, body, etag, upload.description, whole)

    def abort(self, key: str, upload_id: str) -> None:
        self._upload(key, upload_id)
        del self._uploads[upload_id]

    def uploads(self, prefix: str) -> list[tuple[str, str, datetime]]:
        """Key, id and beginning of the uploads under way."""
        self._drop_expired()
        found = [
            (upload.shown_key, upload_id, upload.begun_at)
            for upload_id, upload in self._uploads.items()
            if _name(upload.shown_key).startswith(_name(prefix))
        ]
        return sorted(found)

    # Rules

    def _upload(self, key: str, upload_id: str) -> Begun:
        self._drop_expired()
        upload = self._uploads.get(upload_id)
        if upload is None or _name(upload.shown_key) != _name(key):
            raise Refusal(404, "NoSuchUpload")
        return upload

    def _drop_expired(self) -> None:
        oldest = self.now() - UPLOAD_LIFETIME
        self._uploads = {
            i: upload for i, upload in self._uploads.items() if upload.begun_at > oldest
        }

    def _check_condition(self, key: str, headers: Mapping[str, str]) -> None:
        there = self._objects.get(_name(key))
        if headers.get("if-none-match") == "*" and there is not None:
            raise Refusal(412, "PreconditionFailed")
        wanted = headers.get("if-match")
        if wanted is not None and (there is None or wanted.strip('"') != there.etag):
            raise Refusal(412, "PreconditionFailed")

    def _check_pace(self, key: str) -> None:
        """At most one write per second to a key."""
        now = self.monotonic()
        if now < self._written_at.get(_name(key), -1e9) + WRITES_APART_SECONDS:
            raise Refusal(429, "TooManyRequests", "reduce your rate of writes to this object")
        self._written_at[_name(key)] = now

    def _keep(
        self,
        key: str,
        body: bytes,
        etag: str,
        description: tuple[dict[str, str], dict[str, str], str],
        checksum: Checksum | None,
    ) -> Stored:
        content, metadata, storage_class = description
        stored = Stored(key, body, etag, content, metadata, storage_class, self.now(), checksum)
        self._objects[_name(key)] = stored
        return stored


def _name(key: str) -> str:
    return unicodedata.normalize("NFC", key)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _check_key(key: str) -> None:
    if len(_name(key).encode("utf-8", "surrogateescape")) > MAX_KEY_BYTES:
        raise Refusal(400, "KeyTooLongError")


def _refuse_what_is_not_there(headers: Mapping[str, str]) -> None:
    for name in headers:
        if name.startswith(_NOT_THERE):
            raise Refusal(501, "NotImplemented", f"Header '{name}' not implemented")
    if headers.get("x-amz-acl", "private") != "private":
        raise Refusal(501, "NotImplemented", "ACL other than private")
    if headers.get("x-amz-server-side-encryption", "AES256") != "AES256":
        raise Refusal(501, "NotImplemented", "server-side encryption with KMS")


def _describe(headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], str]:
    """Content headers, metadata and storage class of a new object."""
    _refuse_what_is_not_there(headers)
    storage_class = headers.get("x-amz-storage-class", "STANDARD")
    if storage_class not in ("STANDARD", "STANDARD_IA"):
        raise Refusal(501, "NotImplemented", f"storage class {storage_class}")
    metadata: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(_METADATA):
            if not value.isascii():
                raise Refusal(400, "InvalidArgument", f"{name} is not ASCII")
            metadata[name.removeprefix(_METADATA)] = _decoded(value)
    if sum(len(n) + len(v.encode()) for n, v in metadata.items()) > MAX_METADATA_BYTES:
        raise Refusal(400, "MetadataTooLarge")
    content = {name: headers[name] for name in CONTENT_HEADERS if name in headers}
    return content, metadata, storage_class


def _decoded(value: str) -> str:
    if "=?" not in value:
        return value
    return str(email.header.make_header(email.header.decode_header(value)))


def shown_metadata(value: str) -> str:
    """A value of metadata as a response header."""
    if value.isascii() and value.isprintable() and value == value.strip():
        return value
    words = base64.b64encode(value.encode()).decode()
    return f"=?UTF-8?B?{words}?="


def _verified(headers: Mapping[str, str], body: bytes) -> Checksum | None:
    """Compare the body with the one checksum it came with."""
    given = {
        name.removeprefix(_CHECKSUM): value
        for name, value in headers.items()
        if name.startswith(_CHECKSUM) and name not in (f"{_CHECKSUM}algorithm", f"{_CHECKSUM}type")
    }
    if len(given) > 1:
        raise Refusal(400, "InvalidRequest", "more than one checksum")
    md5 = headers.get("content-md5")
    if md5 is not None and md5 != base64.b64encode(bytes.fromhex(_md5(body))).decode():
        raise Refusal(400, "BadDigest", "Content-MD5")
    for algorithm, value in given.items():
        if algorithm not in ALGORITHMS:
            raise Refusal(501, "NotImplemented", f"checksum algorithm {algorithm}")
        if value != base64.b64encode(ALGORITHMS[algorithm](body)).decode():
            raise Refusal(400, "BadDigest", algorithm)
        return Checksum(algorithm, value, "FULL_OBJECT")
    return None


def _chosen(upload: Begun, listed: Sequence[tuple[int, str, str]]) -> list[PartOf]:
    numbers = [number for number, _, _ in listed]
    if not numbers or numbers != sorted(set(numbers)):
        raise Refusal(400, "InvalidPartOrder")
    parts = []
    for number, etag, checksum in listed:
        part = upload.parts.get(number)
        if part is None or etag.strip('"') != part.etag or checksum not in ("", part.checksum):
            raise Refusal(400, "InvalidPart")
        parts.append(part)
    sizes = [len(part.body) for part in parts]
    if any(size < MIN_PART_BYTES for size in sizes[:-1]):
        raise Refusal(400, "EntityTooSmall")
    if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
        raise Refusal(400, "InvalidPart", "All non-trailing parts must have the same length")
    return parts


def _whole_checksum(upload: Begun, parts: Sequence[PartOf], body: bytes) -> Checksum | None:
    algorithm = upload.algorithm
    if algorithm is None:
        return None
    compute = ALGORITHMS[algorithm]
    if upload.kind == "FULL_OBJECT":
        return Checksum(algorithm, base64.b64encode(compute(body)).decode(), upload.kind)
    joined = compute(b"".join(compute(part.body) for part in parts))
    value = f"{base64.b64encode(joined).decode()}-{len(parts)}"
    return Checksum(algorithm, value, upload.kind)
