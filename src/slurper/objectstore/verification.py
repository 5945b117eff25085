"""Compares what arrived, and what a store says it has, with what it should be (design rule 3)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from slurper import errors
from slurper.http.messages import Response
from slurper.objectstore import checksums, documents, entity_tags
from slurper.objectstore.base import Body, ByteRange, Part
from slurper.objectstore.checksums import Algorithm

_CONTENT_RANGE = re.compile(r"bytes[ =](\d+)-(\d+)/(\d+)", re.IGNORECASE)
_FRAMES = frozenset({"content-length", "transfer-encoding"})
_MD5 = re.compile(r"[0-9a-fA-F]{32}")

_READABLE_CHECKSUMS = (Algorithm.CRC64NVME, Algorithm.CRC32C, Algorithm.CRC32)
"""Of a source's own checksums, those that are cheap to compare; the first one found is."""


def whole_size(response: Response, body: Body, wanted: ByteRange) -> int:
    """The size of the object of which this is the `wanted` range, after checking that it is.

    The range that the answer names counts, and not its status: some proxies say 200 for 206.
    """
    announced = response.headers.get("content-range", "")
    if not announced and response.status == 200 and (0, body.length) == (wanted.start, wanted.end):
        return body.length
    found = _CONTENT_RANGE.fullmatch(announced)
    got = (int(found[1]), int(found[2]) + 1) if found else None
    if response.status not in (200, 206) or found is None or got != (wanted.start, wanted.end):
        raise errors.IntegrityError(
            f"asked for bytes {wanted.start}-{wanted.end - 1}, got HTTP {response.status} "
            f"with {announced or 'no content-range'}"
        )
    if body.length != len(wanted):
        raise errors.IntegrityError(f"{body.length} bytes came for {announced}")
    return int(found[3])


def is_whole(response: Response) -> bool:
    """Whether an answer to a request for no range is the object, although it may not say 200."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if response.status != 206 or found is None:
        return response.status == 200
    first, last, size = map(int, found.groups())
    return (first, last + 1) == (0, size) and response.length == size


def told_size(response: Response) -> int | None:
    """The size of the object, by an answer to a request for its first byte."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is not None:
        return int(found[3])
    # A body that only the end of its connection ends may have been cut.
    is_framed = not response.headers.keys().isdisjoint(_FRAMES)
    return response.length if response.status == 200 and is_framed else None


def refuse_compressed(headers: Mapping[str, str], body: Body, size: int) -> None:
    """Say of a body of another length than `size` why that may be, before its checksum is compared.

    Raises:
        IntegrityError: it came in a coding, which may not be the object's own.
    """
    coding = headers.get("content-encoding")
    if coding is not None:
        raise errors.IntegrityError(
            f"read {body.length} bytes of an object listed with {size}; they came with "
            f"Content-Encoding {coding}: if the object has none, the source or a proxy before it "
            "compresses, which must be switched off"
        )


def compare_with_announced(headers: Mapping[str, str], body: Body) -> None:
    """Compare with the source's own checksum, where it gives one of the whole object."""
    if headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE":
        return
    for algorithm in _READABLE_CHECKSUMS:
        name = checksums.header_of(algorithm)
        announced = headers.get(name)
        if announced is not None and "-" not in announced:
            if announced != body.checksum(algorithm):
                raise errors.IntegrityError(
                    f"the bytes read have {name} {body.checksum(algorithm)}, the source announces "
                    f"{announced}"
                )
            return


def compare_with_google(headers: Mapping[str, str], body: Body) -> None:
    """Compare with `x-goog-hash` of the whole object: CRC32C, which every one has, or MD5."""
    pairs = (item.strip().partition("=") for item in headers.get("x-goog-hash", "").split(","))
    announced = {name: value for name, _, value in pairs}
    for algorithm in (Algorithm.CRC32C, Algorithm.MD5):
        if algorithm in announced:
            if announced[algorithm] != body.checksum(algorithm):
                raise errors.IntegrityError(
                    f"the bytes have {algorithm} {body.checksum(algorithm)}, the store announces "
                    f"{announced[algorithm]}"
                )
            return


def whole_checksum(parts: Sequence[Part]) -> str | None:
    """CRC64NVME of the object these parts make; None unless every part brings its own."""
    if not all(part.checksum for part in parts):
        return None
    return checksums.combine_crc64nvme((part.checksum, part.size) for part in parts)


def compare_whole(answer: str, whole: str) -> None:
    """Compare with the checksum in a CompleteMultipartUploadResult, if it is of the object."""
    stored = documents.element(answer, "ChecksumCRC64NVME")
    composite = documents.element(answer, "ChecksumType").upper() == "COMPOSITE"
    if stored and not composite and "-" not in stored and stored != whole:
        raise errors.IntegrityError(
            f"the parts make an object with CRC64NVME {whole}, the store has one with {stored}"
        )


def multipart_etag(parts: Sequence[Part]) -> str | None:
    """The ETag S3 gives an object of these parts, where their own ETags are MD5s."""
    digests = [tag for part in parts if _MD5.fullmatch(tag := entity_tags.opaque(part.etag))]
    if len(digests) < len(parts):
        return None
    joined = hashlib.md5(bytes.fromhex("".join(digests)), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(parts)}"


def proves_copy(source: str, copy: str, headers: Mapping[str, str]) -> bool:
    """Whether these two ETags tell that the one object is a copy of the other.

    False: they tell nothing, as when one of them is of a multipart upload or of encrypted bytes.

    Raises:
        IntegrityError: they tell that it is not; a store that knows no condition on the source may
            have copied another version.
    """
    of_source, of_copy = entity_tags.opaque(source), entity_tags.opaque(copy)
    if of_source == of_copy:
        return of_source != ""
    are_md5 = _MD5.fullmatch(of_source) and _MD5.fullmatch(of_copy)
    if are_md5 and headers.get("x-amz-server-side-encryption", "AES256") == "AES256":
        raise errors.IntegrityError(f"the copy has the ETag {copy}, its source had {source}")
    return False
