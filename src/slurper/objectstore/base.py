"""The object store protocol: only what a resumable copy needs, in pages and parts.

An implementation guarantees, for every method:

- keys go over the wire byte for byte; no path or URL normaliser ever sees them;
- bodies arrive complete, and as they are stored: never decompressed. A body whose length or
  checksum differs from what the response announces raises `IntegrityError`;
- a request that can be repeated safely is repeated inside the method (a *retry*). An error that the
  method raises is final for that request. Only the caller makes new *attempts* at an object;
- errors are those of `slurper.errors`, and no error text holds a secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple, Protocol

from slurper.http.client import ClientStatistics
from slurper.http.messages import Response
from slurper.http.places import NOBODY, Owner
from slurper.objectstore import checksums
from slurper.objectstore.dialects import Dialect, KeyOrder
from slurper.secrets import Credentials

UNKNOWN_SIZE = -1
"""The size of an object that a listing shows without a size. HEAD tells it."""


class ObjectMeta(NamedTuple):
    """One line of a listing. A tuple, because listings build one per object."""

    key: str
    size: int
    """In bytes; `UNKNOWN_SIZE` if the listing does not show it."""
    etag: str
    """As sent by the store: an identity token (rule 3). Stores write the same tag in several ways;
    `entity_tags` compares them."""
    last_modified: datetime | None
    storage_class: str
    """Empty when the store names none, and for an archived object that the store shows as restored.
    For an Intelligent-Tiering object in an archive tier, HEAD gives that tier instead."""


@dataclass(slots=True)
class ObjectHeaders:
    """What a store keeps beside the bytes, apart from size and identity."""

    content: dict[str, str] = field(default_factory=dict)
    """Those of `CONTENT_HEADERS` that are set. Values are header text, one character per byte."""
    metadata: dict[str, str] = field(default_factory=dict)
    """User metadata: lower-case name without the provider's prefix, to value."""


CONTENT_HEADERS = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
    }
)
"""The headers that travel with an object (design rule 2)."""


class SourceMd5(Enum):
    """How we use the MD5 that a source tells of an object, most often as its ETag."""

    UNUSED = "unused"
    """The source's ETags are no MD5s."""
    BESIDE = "beside"
    """It is compared at the write, in addition to the checksum that goes with every write."""
    INSTEAD = "instead"
    """It is compared at the write, and no other checksum goes with the write."""


_INLINE_BYTES = 256 << 10
"""For a longer body, slow checksums are computed in a thread."""


class Body:
    """Bytes in memory, as the chunks they arrived in, with each checksum computed at most once."""

    __slots__ = ("_checksums", "chunks", "length", "source_md5")

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks
        self.length = sum(map(len, chunks))
        self.source_md5 = ""
        """Base64 of the MD5 that the source tells of these bytes. `put` compares it. Empty: there
        is none, or it is not needed."""
        self._checksums: dict[checksums.Algorithm, str] = {}

    @classmethod
    def received(cls, response: Response) -> Body:
        """The body of a response, with any checksums that were computed while it came in."""
        body = cls(response.body)
        digest = response.digest
        if digest is not None and isinstance(digest, checksums.Running):
            body._checksums = digest.encoded()
        return body

    @classmethod
    def mislabelled(cls, chunks: Sequence[bytes], algorithm: checksums.Algorithm) -> Body:
        """Bytes with the checksum of other bytes. A store that compares checksums refuses them."""
        body = cls(chunks)
        body._checksums[algorithm] = checksums.encode(algorithm, [*chunks, b"!"])
        return body

    @classmethod
    def with_wrong_md5(cls, chunks: Sequence[bytes]) -> Body:
        """Bytes with their own checksums, but with the MD5 of other bytes."""
        body = cls(chunks)
        body.source_md5 = checksums.encode(checksums.Algorithm.MD5, [*chunks, b"!"])
        return body

    def checksum(self, algorithm: checksums.Algorithm) -> str:
        """Base64 of the big-endian checksum, the form of the `x-amz-checksum-*` headers.

        On the event loop, `computed` is the one to use, unless the algorithm is known to be quick.
        """
        value = self._checksums.get(algorithm)
        if value is None:
            value = self._checksums[algorithm] = checksums.encode(algorithm, self.chunks)
        return value

    async def computed(self, algorithm: checksums.Algorithm) -> str:
        """The same as `checksum`, but in a thread if it takes long."""
        is_quick = algorithm in checksums.QUICK or self.length <= _INLINE_BYTES
        if is_quick or algorithm in self._checksums:
            return self.checksum(algorithm)
        return await asyncio.to_thread(self.checksum, algorithm)

    def sums(self, algorithm: checksums.Algorithm, sizes: Sequence[int]) -> tuple[str, ...]:
        """The checksum of each piece of the body. `sizes` are the sizes of all pieces, in bytes."""
        if len(sizes) == 1:
            return (self.checksum(algorithm),)
        return tuple(checksums.encode(algorithm, piece) for piece in _cut(self.chunks, sizes))

    async def computed_sums(
        self, algorithm: checksums.Algorithm, sizes: Sequence[int]
    ) -> tuple[str, ...]:
        """The same as `sums`, but in a thread if it takes long."""
        if algorithm in checksums.QUICK or self.length <= _INLINE_BYTES:
            return self.sums(algorithm, sizes)
        return await asyncio.to_thread(self.sums, algorithm, sizes)

    def beginning(self, size: int) -> bytes:
        """The first bytes, at most `size` of them. They may come from several chunks."""
        found = b""
        for chunk in self.chunks:
            found += chunk[: size - len(found)]
            if len(found) == size:
                break
        return found

    def __bytes__(self) -> bytes:
        return b"".join(self.chunks)


def _cut(chunks: Sequence[bytes], sizes: Sequence[int]) -> Iterator[list[memoryview]]:
    """The bytes of each piece, without copying them."""
    rest = (memoryview(chunk) for chunk in chunks if chunk)
    view = memoryview(b"")
    for size in sizes:
        piece, missing = list[memoryview](), size
        while missing:
            view = view or next(rest)
            piece.append(view[:missing])
            view, missing = view[missing:], missing - len(piece[-1])
        yield piece


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start <= i < end` of an object."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(slots=True)
class ListingPage:
    """One LIST response. Its keys strictly increase in `order`, and come after `start_after`."""

    objects: list[ObjectMeta]
    finished: bool
    """No key of the prefix comes after the last of this page."""
    order: KeyOrder = KeyOrder.BYTES
    served_at: datetime | None = None
    """When the store answered, by its own clock, cut to whole seconds; None when it does not say.
    """
    list_version: int | None = None
    """S3 only: which version of ListObjects was asked for, 1 or 2."""
    is_placed: bool = False
    """True: the page shows that it begins where it was asked to. False: it may do so, but does not
    show it."""
    token: str = ""
    """The token of the next page; empty if the store names none."""
    lacks_sizes: bool = False
    """Some of its objects have `UNKNOWN_SIZE`."""
    written: dict[str, str] = field(default_factory=dict)
    """Keys that decoding may change, each with its other possible spelling."""


class UploadMeta(NamedTuple):
    """A multipart upload that is neither completed nor aborted."""

    key: str
    upload_id: str
    age_seconds: float
    """How long ago it was begun, by the store's clock if the store tells its time."""


@dataclass(slots=True)
class StoredObject:
    """An object's description, from HEAD or GET."""

    meta: ObjectMeta
    headers: ObjectHeaders
    crc32c: str = ""
    """Base64, of the whole object. Only Google's descriptions have it."""
    told: checksums.Told | None = None
    """The checksum of all its bytes that is cheapest to compare; None: the store tells none."""
    told_of_parts: checksums.Told | None = None
    """A checksum that the store has made of the checksums of the parts."""
    etag_may_be_md5: bool = True
    """False if the answer shows that the ETag cannot be an MD5: the object is encrypted with a key
    of KMS or of the customer, or was appended to."""
    served_at: datetime | None = None
    """When the store answered, by its own clock, cut to whole seconds; None when it does not say.
    """


@dataclass(slots=True)
class Download:
    """A GET's answer. With a byte range `body` is that range; `stored.meta.size` is the whole."""

    stored: StoredObject
    body: Body


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part of a multipart upload."""

    number: int
    """From 1."""
    size: int
    etag: str
    checksum: str = ""
    """Base64, of the dialect's algorithm; empty when the dialect has none for parts."""
    source_sums: tuple[str, ...] = ()
    """Base64 checksums of the pieces of this part (`planning.parts.SourceSum`), in the algorithm of
    the source's checksum. Empty when the source tells none, or when the store copied the part by
    itself."""


@dataclass(frozen=True, slots=True)
class CreatedUpload:
    """A multipart upload that was just begun."""

    upload_id: str
    whole_checked: bool = False
    """The store promised to compare the checksum of the whole object at the end of the upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """Everything a worker needs to open a store; travels inside tasks."""

    origin: str
    """`scheme://host[:port]`, no path."""
    bucket: str
    region: str
    dialect: Dialect
    credentials: Credentials
    token_uri: str = ""
    """Where access tokens come from; empty for stores whose requests are signed."""
    requester_pays: bool = False
    """Requests say that their sender pays for them."""
    trusted: bool = False
    """The operator chose this address, so the endpoint policy does not apply to it."""
    owner: Owner = NOBODY
    """Whose job it is. Limits of what may be done at once count by it."""


class ObjectStore(Protocol):
    """One bucket of one store, opened with one set of credentials."""

    @property
    def dialect(self) -> Dialect:
        """Limits and quirks of this store, including those that its answers have shown so far."""
        ...

    @property
    def statistics(self) -> ClientStatistics:
        """What has been sent so far."""
        ...

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        """List the keys of `prefix` that come after `start_after`.

        Raises:
            ListingError: keys out of order or not after `start_after`; XML that is no listing.
        """
        ...

    async def list_on(self, *, prefix: str = "", token: str = "") -> ListingPage:
        """List the page of `prefix` that `token` names; without a token, the first page.

        The keys come in the store's own order, and a key may come again. A page that is not
        finished has the token of the next page.

        Raises:
            ListingError: keys that are not under `prefix`; XML that is no listing.
            StoreError: for example, the store does not accept the token, or no longer accepts it.
        """
        ...

    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:
        """Describe an object, and its checksums too if asked. Raises NotFound.

        Checksums may need another permission: for an encrypted object, the permission to use its
        key.
        """
        ...

    async def first_part_bytes(self, key: str) -> tuple[int, int] | None:
        """For an object uploaded in parts: the size of its first part, and the number of parts.

        None: the store does not tell.
        """
        ...

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
        """Read an object, or a range of it, into memory.

        `max_bytes` limits how much is read of a whole object: a store that ignores `if_match` may
        send a newer and much larger one. The caller will ask the body for the checksums `checksum`
        and `also`, so they may be computed while the bytes come in. `md5` says how to use the MD5
        that the store tells of a whole object. Other checksums that the store tells are compared,
        unless `compares` is false. With `etag_of_parts`, an ETag made of the MD5s of the parts is
        compared too.

        Raises:
            NotFound, PreconditionFailed (`if_match` no longer holds), RequiresRetrieval,
            IntegrityError (also for a body that goes far beyond `max_bytes`), ChecksumDisagrees.
        """
        ...

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        """Write an object in one request, with the dialect's checksum; return its ETag.

        The store compares the body's `source_md5`. If it does not, this method compares it with the
        store's answer or with the bytes.

        Raises:
            PreconditionFailed: `if_absent` is set, and the key exists. If `retries` is above 0, an
                earlier send of this same request may have created it.
            BytesRefused: the bytes do not match their checksum.
        """
        ...

    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        """Begin a multipart upload."""
        ...

    async def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        """Write part `number` (from 1) with the dialect's checksum."""
        ...

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        whole_checked: bool = False,
    ) -> str:
        """Join the parts into the object; return its ETag.

        A 200 answer that holds an error counts as that error. `whole_checked` is what
        `create_upload` returned.
        """
        ...

    async def copy_object(
        self, key: str, bucket: str, source: StoredObject, *, if_absent: bool = False
    ) -> str:
        """Let the store itself copy an object of one of its buckets; return the copy's ETag.

        `source` is what HEAD said of the object in `bucket`. The copy gets the headers that
        `source` names, and must have its size. It is made only while the object still has the ETag
        of `source`. A 200 answer that holds an error counts as that error.

        Raises:
            PreconditionFailed: the object has another ETag, or `if_absent` and the key exists.
            CopyUnfinished: the copy takes longer than is allowed for one object.
            IntegrityError: the copy differs from the object.
            NoSuchBucket, AccessDenied: these credentials cannot reach the object.
        """
        ...

    async def copy_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        bucket: str,
        source: ObjectMeta,
        byte_range: ByteRange,
    ) -> Part:
        """Let the store itself copy a range of an object of one of its buckets into a part.

        Where the dialect's `part_copy` is UNCONDITIONAL, the range may come from another version
        than `source`. Raises the same errors as `copy_object`.
        """
        ...

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts. An upload that is already gone is no error."""
        ...

    async def list_uploads(self, *, prefix: str = "") -> list[UploadMeta]:
        """List all open multipart uploads for keys of `prefix`, also those that others began.

        Raises:
            ListingError: XML that is no such listing.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class ProbedStore(ObjectStore, Protocol):
    """A store with the methods that only the probes of a check need."""

    async def keeps_versions(self) -> bool:
        """Whether a deleted object leaves something behind: a version, or a marker."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object that a check has written. One that does not exist is no error."""
        ...
