"""Compares what arrived, and what a store says it has, with what it should be (design rule 3)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from slurper import errors
from slurper.http.messages import Response
from slurper.objectstore import checksums, documents
from slurper.objectstore.base import Body, ByteRange, Part
from slurper.objectstore.checksums import Algorithm

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_MADE_OF_MD5 = re.compile(r'(?:W/)?"?([0-9a-f]{32}(?:-[0-9]+)?)"?', re.IGNORECASE)
_MD5_ETAG = re.compile(r'"?([0-9a-fA-F]{32})"?')

_READABLE_CHECKSUMS = (Algorithm.CRC64NVME, Algorithm.CRC32C, Algorithm.CRC32)
"""Of a source's own checksums, those that are cheap to compare; the first one found is."""


def whole_size(response: Response, body: Body, wanted: ByteRange) -> int:
    """The size of the object of which this is the `wanted` range, after checking that it is."""
    if response.status == 200 and wanted.start == 0 and body.length == len(wanted):
        return body.length
    announced = response.headers.get("content-range", "")
    found = _CONTENT_RANGE.fullmatch(announced)
    got = (int(found[1]), int(found[2]) + 1) if found else None
    if response.status != 206 or found is None or got != (wanted.start, wanted.end):
        raise errors.IntegrityError(
            f"asked for bytes {wanted.start}-{wanted.end - 1}, got HTTP {response.status} "
            f"with {announced or 'no content-range'}"
        )
    if body.length != len(wanted):
        raise errors.IntegrityError(f"{body.length} bytes came for {announced}")
    return int(found[3])


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
    digests = [found[1] for part in parts if (found := _MD5_ETAG.fullmatch(part.etag))]
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
    of_source, of_copy = _MD5_ETAG.fullmatch(source), _MD5_ETAG.fullmatch(copy)
    if source.strip('"') == copy.strip('"'):
        return True
    if of_source and of_copy and headers.get("x-amz-server-side-encryption", "AES256") == "AES256":
        raise errors.IntegrityError(f"the copy has the ETag {copy}, its source had {source}")
    return False


def same_bytes(one: str, other: str) -> bool:
    """Whether two ETags say that two objects of equal size, at whatever stores, have equal bytes.

    False: they say nothing. One of them may be of an upload in parts, or of encrypted bytes, which
    looks like an MD5 and is none.
    """
    mine, theirs = _MADE_OF_MD5.fullmatch(one), _MADE_OF_MD5.fullmatch(other)
    return mine is not None and theirs is not None and mine[1].lower() == theirs[1].lower()
