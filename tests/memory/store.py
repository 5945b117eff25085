"""A store in a dictionary.

It keeps the protocol's promises as S3 does, and fails when it is told to. One process uses it.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice, takewhile

from typing_extensions import override

from slurper import errors
from slurper.http.client import ClientStatistics
from slurper.objectstore import checksums, storable, urls, verification
from slurper.objectstore.base import (
    Body,
    ByteRange,
    CreatedUpload,
    Download,
    ListingPage,
    ObjectHeaders,
    ObjectMeta,
    Part,
    ProbedStore,
    SourceMd5,
    StoredObject,
    UploadMeta,
)
from slurper.objectstore.dialects import GENERIC, Dialect, PartCopy
from tests.memory.faults import Faults, raise_if


@dataclass(slots=True)
class Entry:
    """An object that the store holds."""

    stored: StoredObject
    body: bytes


@dataclass(slots=True)
class _Upload:
    key: str
    headers: ObjectHeaders
    begun_at: datetime
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class MemoryStore(ProbedStore):
    """An `ObjectStore` in a dictionary."""

    def __init__(
        self,
        *,
        dialect: Dialect = GENERIC,
        bucket: str = "memory",
        faults: Faults | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        neighbours: Sequence[MemoryStore] = (),
        versioned: bool = False,
    ) -> None:
        """Begin empty; `neighbours` are the other buckets of the same imaginary server."""
        self._versioned = versioned
        self._neighbours = {store.bucket: store for store in neighbours}
        self.faults = faults or Faults()
        self._dialect = dialect
        self._bucket = bucket
        self._now = now
        self._entries: dict[str, Entry] = {}
        self._sorted: list[str] = []
        self._uploads: dict[str, _Upload] = {}

    # Beside the protocol: what a test or demonstration looks at and prepares.

    @property
    def keys(self) -> Sequence[str]:
        """Every key, in listing order."""
        return tuple(self._sorted)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    @property
    def open_uploads(self) -> Sequence[str]:
        """Keys of the uploads that are neither completed nor aborted."""
        return tuple(upload.key for upload in self._uploads.values())

    def add(
        self,
        key: str,
        body: bytes = b"",
        headers: ObjectHeaders | None = None,
        *,
        storage_class: str = "STANDARD",
    ) -> ObjectMeta:
        """Put an object there, at once and without faults."""
        etag = f'"{_md5(body)}"'
        return self._keep(key, body, headers or ObjectHeaders(), etag, storage_class)

    def read(self, key: str) -> tuple[bytes, ObjectHeaders]:
        """The object's bytes and headers, at once and without faults. Raises KeyError."""
        entry = self._entries[key]
        return entry.body, entry.stored.headers

    def remove(self, key: str) -> None:
        """Delete an object, at once and without faults. Raises KeyError."""
        del self._entries[key]
        self._sorted.remove(key)

    # The protocol

    @property
    @override
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    @override
    def statistics(self) -> ClientStatistics:
        return ClientStatistics(requests=sum(self.faults.requests.values()))

    @override
    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        lost = await self.faults.begin("list_page")
        keys = self._sorted
        begin = bisect_left(keys, prefix)
        if start_after is not None:
            begin = max(begin, bisect_right(keys, start_after))
        rest = takewhile(lambda key: key.startswith(prefix), islice(keys, begin, None))
        found = list(islice(rest, max_keys + 1))
        raise_if(lost)
        return ListingPage(
            objects=[self._entries[key].stored.meta for key in found[:max_keys]],
            finished=len(found) <= max_keys,
            served_at=self._now().replace(microsecond=0),
            is_placed=True,
        )

    @override
    async def list_on(self, *, prefix: str = "", token: str = "") -> ListingPage:
        """The token is the key before the page."""
        page = await self.list_page(prefix=prefix, start_after=token or None)
        page.token = "" if page.finished else page.objects[-1].key
        return page

    @override
    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:
        lost = await self.faults.begin("head")
        entry = self._find("HeadObject", key)
        raise_if(lost)
        described = _copy(entry.stored)
        described.served_at = self._now().replace(microsecond=0)
        return described

    @override
    async def first_part_bytes(self, key: str) -> tuple[int, int] | None:
        return None

    @override
    async def get(
        self,
        key: str,
        *,
        if_match: str | None = None,
        byte_range: ByteRange | None = None,
        max_bytes: int | None = None,
        checksum: checksums.Algorithm | None = None,
        also: checksums.Algorithm | None = None,
        md5: SourceMd5 = SourceMd5.UNUSED,
        etag_of_parts: bool = False,
        compares: bool = True,
    ) -> Download:
        lost = await self.faults.begin("get")
        entry = self._find("GetObject", key)
        meta = entry.stored.meta
        if if_match and if_match != meta.etag:
            raise self._refusal(errors.PreconditionFailed, "GetObject", 412, key)
        if meta.storage_class in self._dialect.unreadable_storage_classes:
            raise self._refusal(
                errors.RequiresRetrieval, "GetObject", 403, key, code="InvalidObjectState"
            )
        body = entry.body
        if byte_range is not None:
            body = body[byte_range.start : byte_range.end]
            if len(body) != len(byte_range):
                raise self._refusal(errors.StoreError, "GetObject", 416, key, code="InvalidRange")
        elif max_bytes is not None and len(body) > max_bytes:
            raise errors.IntegrityError(f"the object exceeds {max_bytes} bytes")
        raise_if(lost)
        download = Download(_copy(entry.stored), Body([body] if body else []))
        if byte_range is None and md5 is not SourceMd5.UNUSED:
            download.body.source_md5 = verification.md5_of(download.stored)
        return download

    @override
    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        lost = await self.faults.begin("put")
        self._admit("PutObject", key, headers, size=body.length)
        if body.length > self._dialect.max_put_bytes:
            raise self._refusal(errors.StoreError, "PutObject", 400, key, code="EntityTooLarge")
        self._verify(body)
        if if_absent and self._dialect.conditional_put and self._name(key) in self._entries:
            raise self._refusal(errors.PreconditionFailed, "PutObject", 412, key)
        etag = self.add(key, bytes(body), headers).etag
        raise_if(lost)
        return etag

    @override
    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        lost = await self.faults.begin("create_upload")
        self._admit("CreateMultipartUpload", key, headers)
        upload_id = secrets.token_urlsafe(16)
        self._uploads[upload_id] = _Upload(self._name(key), _copied_headers(headers), self._now())
        raise_if(lost)
        return CreatedUpload(upload_id)

    @override
    async def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        lost = await self.faults.begin("put_part")
        part = self._take_part("UploadPart", key, upload_id, number, body)
        raise_if(lost)
        return part

    def _take_part(self, operation: str, key: str, upload_id: str, number: int, body: Body) -> Part:
        upload = self._upload(operation, key, upload_id)
        if not 1 <= number <= self._dialect.max_parts:
            raise self._refusal(errors.StoreError, operation, 400, key, code="InvalidArgument")
        self._verify(body)
        data = bytes(body)
        algorithm = self._dialect.checksum
        declared = algorithm is not None and algorithm is not checksums.Algorithm.MD5
        checksum = body.checksum(algorithm) if algorithm is not None and declared else ""
        part = Part(number, len(data), f'"{_md5(data)}"', checksum)
        upload.parts[number] = part, data
        return part

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
        lost = await self.faults.begin("complete_upload")
        upload = self._upload("CompleteMultipartUpload", key, upload_id)
        self._check_parts(key, upload, parts)
        is_asked = if_absent and self._dialect.conditional_completion
        if is_asked and self._name(key) in self._entries:
            raise self._refusal(errors.PreconditionFailed, "CompleteMultipartUpload", 412, key)
        del self._uploads[upload_id]
        data = [upload.parts[part.number][1] for part in parts]
        digests = b"".join(hashlib.md5(chunk, usedforsecurity=False).digest() for chunk in data)
        etag = f'"{_md5(digests)}-{len(parts)}"'
        self._keep(key, b"".join(data), upload.headers, etag, "STANDARD")
        raise_if(lost)
        return etag

    @override
    async def copy_object(
        self, key: str, bucket: str, source: StoredObject, *, if_absent: bool = False
    ) -> str:
        """`bucket` is this one or a neighbour."""
        lost = await self.faults.begin("copy_object")
        self._admit("CopyObject", key, source.headers, size=source.meta.size)
        entry = self._neighbour("CopyObject", bucket, source.meta)
        if len(entry.body) > self._dialect.max_copy_bytes:
            raise self._refusal(errors.StoreError, "CopyObject", 400, key, code="InvalidRequest")
        if if_absent and self._dialect.conditional_copy and self._name(key) in self._entries:
            raise self._refusal(errors.PreconditionFailed, "CopyObject", 412, key)
        etag = self.add(key, entry.body, source.headers).etag
        raise_if(lost)
        return etag

    @override
    async def copy_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        bucket: str,
        source: ObjectMeta,
        byte_range: ByteRange,
    ) -> Part:
        """`bucket` is this one or a neighbour."""
        lost = await self.faults.begin("copy_part")
        if self._dialect.part_copy is not PartCopy.CONDITIONAL:
            source = source._replace(etag="")
        entry = self._neighbour("UploadPartCopy", bucket, source)
        data = entry.body[byte_range.start : byte_range.end]
        if len(data) != len(byte_range):
            raise self._refusal(errors.StoreError, "UploadPartCopy", 416, key, code="InvalidRange")
        part = self._take_part("UploadPartCopy", key, upload_id, number, Body([data]))
        raise_if(lost)
        return part

    def _neighbour(self, operation: str, bucket: str, meta: ObjectMeta) -> Entry:
        store = self if bucket == self._bucket else self._neighbours.get(bucket)
        if store is None:
            raise self._refusal(errors.Misdirected, operation, 404, meta.key, code="NoSuchBucket")
        entry = store._find(operation, meta.key)
        if meta.etag and entry.stored.meta.etag != meta.etag:
            raise self._refusal(errors.PreconditionFailed, operation, 412, meta.key)
        return entry

    @override
    async def abort_upload(self, key: str, upload_id: str) -> None:
        lost = await self.faults.begin("abort_upload")
        self._uploads.pop(upload_id, None)
        raise_if(lost)

    @override
    async def list_uploads(self, *, prefix: str = "") -> list[UploadMeta]:
        lost = await self.faults.begin("list_uploads")
        now = self._now()
        uploads = [
            UploadMeta(upload.key, upload_id, (now - upload.begun_at).total_seconds())
            for upload_id, upload in self._uploads.items()
            if upload.key.startswith(prefix)
        ]
        raise_if(lost)
        return uploads

    @override
    async def keeps_versions(self) -> bool:
        """It keeps none. If `versioned` was set, it says that it does."""
        lost = await self.faults.begin("keeps_versions")
        raise_if(lost)
        return self._versioned

    @override
    async def delete(self, key: str) -> None:
        lost = await self.faults.begin("delete")
        if self._name(key) in self._entries:
            self.remove(self._name(key))
        raise_if(lost)

    @override
    async def close(self) -> None:
        """Nothing to close; the objects stay."""

    # Rules of the store

    def _name(self, key: str) -> str:
        """The key under which the store knows this one."""
        return unicodedata.normalize("NFC", key) if self._dialect.normalises_keys else key

    def _keep(
        self, key: str, body: bytes, headers: ObjectHeaders, etag: str, storage_class: str
    ) -> ObjectMeta:
        key = self._name(key)
        meta = ObjectMeta(key, len(body), etag, self._now(), storage_class)
        if key not in self._entries:
            insort(self._sorted, key)
        self._entries[key] = Entry(StoredObject(meta, _copied_headers(headers)), body)
        return meta

    def _verify(self, body: Body) -> None:
        """Compare the bytes with the checksums that came with them."""
        md5 = checksums.Algorithm.MD5
        if body.source_md5 and body.source_md5 != checksums.encode(md5, body.chunks):
            raise errors.BytesRefused("the bytes do not have the MD5 that their source tells")
        algorithm = self._dialect.checksum
        if algorithm is None:
            return
        if body.checksum(algorithm) != checksums.encode(algorithm, body.chunks):
            raise errors.BytesRefused(f"the bytes do not have the {algorithm} they came with")

    def _find(self, operation: str, key: str) -> Entry:
        entry = self._entries.get(self._name(key))
        if entry is None:
            raise self._refusal(errors.NotFound, operation, 404, key, code="NoSuchKey")
        return entry

    def _upload(self, operation: str, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != self._name(key):
            raise self._refusal(errors.NotFound, operation, 404, key, code="NoSuchUpload")
        return upload

    def _admit(
        self,
        operation: str,  # noqa: ARG002 - for stores that refuse
        key: str,
        headers: ObjectHeaders,
        *,
        size: int | None = None,
    ) -> None:
        """Raise if this object must not be written."""
        storable.check(urls.not_empty(key), headers, self._dialect, size=size)

    def _check_parts(self, key: str, upload: _Upload, parts: Sequence[Part]) -> None:
        operation = "CompleteMultipartUpload"
        numbers = [part.number for part in parts]
        if not parts or numbers != sorted(set(numbers)):
            raise self._refusal(errors.StoreError, operation, 400, key, code="InvalidPartOrder")
        for part in parts:
            if part.number not in upload.parts or upload.parts[part.number][0] != part:
                raise self._refusal(errors.StoreError, operation, 400, key, code="InvalidPart")
        if any(part.size < self._dialect.min_part_bytes for part in parts[:-1]):
            raise self._refusal(errors.StoreError, operation, 400, key, code="EntityTooSmall")

    def _refusal(
        self, kind: type[errors.StoreError], operation: str, status: int, key: str, code: str = ""
    ) -> errors.StoreError:
        name = code or kind.__name__
        return kind(operation, status=status, code=name, bucket=self._bucket, key=key)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _copied_headers(headers: ObjectHeaders) -> ObjectHeaders:
    return ObjectHeaders(dict(headers.content), dict(headers.metadata))


def _copy(stored: StoredObject) -> StoredObject:
    return StoredObject(stored.meta, _copied_headers(stored.headers))
