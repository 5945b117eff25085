"""Provider differences as data: limits, quirks and checksums. No logic branches on a host name."""

from __future__ import annotations

from dataclasses import dataclass, field

from slurper.objectstore.checksums import Algorithm

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one provider's S3 interface allows and expects. Sizes are bytes."""

    name: str
    max_object_bytes: int = 5 * TIB
    max_put_bytes: int = 5 * GIB
    """Largest single PUT and largest part."""
    min_part_bytes: int = 5 * MIB
    max_parts: int = 10_000
    max_key_bytes: int = 1024
    virtual_hosted: bool = False
    """Address as `bucket.host` where the bucket name allows it, else `host/bucket`."""
    encoding_type_url: bool = True
    """ListObjectsV2 understands encoding-type=url, the only form that carries every key."""
    checksum: Algorithm | None = Algorithm.CRC32C
    """What goes with every PUT and part, for the store to verify. The CRCs only where the store is
    known to know them."""
    full_object_checksum: bool = False
    """Multipart uploads take CRC64NVME of the whole object (checksum type FULL_OBJECT)."""
    conditional_put: bool = True
    """If-None-Match: * on PutObject and CompleteMultipartUpload."""
    unreadable_storage_classes: frozenset[str] = field(default_factory=frozenset)
    """Classes whose objects must be restored before a GET succeeds."""


AWS = Dialect(
    name="aws",
    virtual_hosted=True,
    checksum=Algorithm.CRC64NVME,
    full_object_checksum=True,
    unreadable_storage_classes=frozenset({"GLACIER", "DEEP_ARCHIVE"}),
)

R2 = Dialect(
    name="r2",
    max_object_bytes=5 * TIB - 5 * GIB,
    max_put_bytes=5 * GIB - 5 * MIB,
    checksum=Algorithm.CRC64NVME,
    full_object_checksum=True,
)

GENERIC = Dialect(
    name="generic",
    unreadable_storage_classes=frozenset({"GLACIER", "DEEP_ARCHIVE"}),
)
