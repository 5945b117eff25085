"""Compares what arrived, and what a store says it has, with what it should be (design rule 3)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from slurper import errors
from slurper.http.messages import Response
from slurper.objectstore import checksums, documents, entity_tags
from slurper.objectstore.base import Body, ByteRange, Part, SourceMd5, StoredObject
from slurper.objectstore.checksums import Algorithm, Running, Told
from slurper.objectstore.texts import cleaned

_CONTENT_RANGE = re.compile(r"bytes[ =]([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)
_FRAMES = frozenset({"content-length", "transfer-encoding"})
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_MD5_DIGITS = 32
_MADE_OF_MD5 = re.compile(r"[0-9a-f]{32}(?:-[0-9]+)?")
_MD5_OF_PARTS = re.compile(r"([0-9a-fA-F]{32})(-[1-9]\d*)")


def whole_size(response: Response, body: Body, wanted: ByteRange) -> int:
    """Check that an answer is the `wanted` range of an object; return the size of the whole.

    The range in the answer counts, not its status: some proxies say 200 instead of 206.
    """
    announced = response.headers.get("content-range", "")
    if not announced and response.status == 200 and (0, body.length) == (wanted.start, wanted.end):
        return body.length
    found = _CONTENT_RANGE.fullmatch(announced)
    got = (int(found[1]), int(found[2]) + 1) if found else None
    if response.status not in (200, 206) or found is None or got != (wanted.start, wanted.end):
        raise errors.IntegrityError(
            f"asked for bytes {wanted.start}-{wanted.end - 1}, got HTTP {response.status} "
            f"with {cleaned(announced) or 'no content-range'}"
        )
    if body.length != len(wanted):
        raise errors.IntegrityError(f"{body.length} bytes came for {cleaned(announced)}")
    return int(found[3])


def is_whole(response: Response) -> bool:
    """Whether the answer to a request without a range is the whole object, even with status 206."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if response.status != 206 or found is None:
        return response.status == 200
    first, last, size = map(int, found.groups())
    return (first, last + 1) == (0, size) and response.length == size


def told_size(response: Response) -> int | None:
    """The size of the object, as the answer to a request for its first byte tells it."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is not None:
        return int(found[3])
    # A body that ends with its connection may have been cut off.
    is_framed = not response.headers.keys().isdisjoint(_FRAMES)
    return response.length if response.status == 200 and is_framed else None


class CompressedError(errors.IntegrityError):
    """A body came with a content coding, and not with the length of its object."""

    advice = (
        "switch off what compresses, then try it again by key; if the object has this coding, it "
        "is damaged at its source or on the way"
    )


def refuse_compressed(headers: Mapping[str, str], body: Body, size: int) -> None:
    """Explain a wrong length by a content coding, before the checksum is compared.

    `size` is the length that the body should have.

    Raises:
        CompressedError: it came with a coding that the object may not have.
    """
    coding = headers.get("content-encoding")
    if coding is not None:
        raise CompressedError(
            f"read {body.length} bytes of an object listed with {size}; they came with "
            f"Content-Encoding {cleaned(coding)}: if the object has none, the source or a proxy "
            "before it compresses"
        )


def md5_of(stored: StoredObject) -> str:
    """The MD5 that a store tells of an object, base64; empty where it tells none.

    If the object was written in one request, it is the ETag, unless the answer shows that the ETag
    is something else. Not every store makes its ETags this way: see `slurper.transfer.etags`.
    """
    if stored.told is not None and stored.told.algorithm is Algorithm.MD5:
        return stored.told.value
    return md5_of_etag(stored.meta.etag) if stored.etag_may_be_md5 else ""


HeadTest = Callable[[Mapping[str, str]], bool]
"""A question about the head of an answer."""


def told_as(stored: StoredObject, algorithms: Collection[Algorithm]) -> Told | None:
    """A checksum of the whole object in one of these algorithms, if the store tells one."""
    if stored.told is not None and stored.told.algorithm in algorithms:
        return stored.told
    md5 = md5_of(stored) if Algorithm.MD5 in algorithms else ""
    return Told(Algorithm.MD5, md5) if md5 else None


def check_length(headers: Mapping[str, str], size: int) -> None:
    """Check that an answer announces `size` bytes. Raises IntegrityError, CompressedError."""
    announced = headers.get("content-length", "")
    if announced != str(size):
        coding = headers.get("content-encoding")
        error = errors.IntegrityError if coding is None else CompressedError
        raise error(
            f"the answer announces {cleaned(announced) or 'no number of'} bytes for an object "
            f"listed with {size}"
            + ("" if coding is None else f", with Content-Encoding {cleaned(coding)}")
        )


def announces_range(headers: Mapping[str, str], wanted: ByteRange, size: int) -> bool:
    """Whether an answer is the `wanted` range of an object of `size` bytes, by its head."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    got = None if found is None else tuple(map(int, found.groups()))
    is_range = got == (wanted.start, wanted.end - 1, size)
    return is_range and headers.get("content-length") == str(len(wanted))


def tells_something(stored: StoredObject) -> bool:
    """Whether a description may say something about the bytes, by a checksum or by its ETag."""
    has_checksum = stored.told is not None or stored.told_of_parts is not None
    return has_checksum or len(stored.meta.etag) >= _MD5_DIGITS


def etag_of_parts(stored: StoredObject) -> Told | None:
    """The MD5 that S3 makes of the MD5s of an object's parts, with their number; None: not told.

    If the object was uploaded in parts, it is the ETag, with the same exceptions as in `md5_of`.
    """
    if not stored.etag_may_be_md5:
        return None
    found = _MD5_OF_PARTS.fullmatch(entity_tags.opaque(stored.meta.etag))
    return None if found is None else Told(Algorithm.MD5, _base64_of(found[1]) + found[2])


async def compare_with_parts(told: Told, body: Body, part_bytes: int, count: int) -> None:
    """Compare a body with a checksum that its source made of the checksums of its parts.

    The source had `count` parts, and the first had `part_bytes`. Nothing is compared if the parts
    cannot all have had that size. Raises ChecksumDisagrees.
    """
    value, size = numbered(told.value, count), body.length
    if not value.endswith(f"-{count}") or part_bytes < 1 or -(-size // part_bytes) != count:
        return
    sizes = [min(part_bytes, size - start) for start in range(0, size, part_bytes)]
    seen = checksums.composite(told.algorithm, await body.computed_sums(told.algorithm, sizes))
    if seen != value:
        raise disagreement(told, seen)


def numbered(value: str, count: int) -> str:
    """A checksum made of the checksums of parts, with their number added if the store omits it."""
    return value if "-" in value else f"{value}-{count}"


def md5_of_etag(etag: str) -> str:
    """An ETag as a base64 MD5; empty if the ETag is no MD5."""
    digits = etag.strip('"')
    if len(digits) != _MD5_DIGITS:  # called for every object, so the common case must be quick
        digits = entity_tags.opaque(etag) if len(digits) > _MD5_DIGITS else ""
    if len(digits) != _MD5_DIGITS:
        return ""
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        return ""
    whole = len(digest) * 2 == _MD5_DIGITS  # `fromhex` skips blanks between digits
    return binascii.b2a_base64(digest, newline=False).decode() if whole else ""


def _base64_of(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


def follower(
    described: Callable[[Mapping[str, str]], StoredObject],
    checksum: Algorithm | None,
    md5: SourceMd5,
) -> Callable[[Mapping[str, str]], Running | None]:
    """Return a function from an answer's headers to the checksums that its body needs.

    These are the checksum that the source tells, and the one that goes with the write, if any. They
    are computed while the body comes in.
    """

    def follow(headers: Mapping[str, str]) -> Running | None:
        stored = described(headers)
        told = None if stored.told is None else stored.told.algorithm
        is_spared = md5 is SourceMd5.INSTEAD and told not in checksums.QUICK and md5_of(stored)
        return checksums.running((told, None if is_spared else checksum))

    return follow


async def compare_with_told(stored: StoredObject, body: Body) -> bool:
    """Compare a body with the checksum that the source tells of the whole object, if there is one.

    Return whether it was compared. A slow checksum is skipped if the target will compare an MD5.

    Raises:
        ChecksumDisagrees: they differ.
    """
    told = stored.told
    if told is None or (body.source_md5 and told.algorithm not in checksums.QUICK):
        return False
    seen = await body.computed(told.algorithm)
    if seen != told.value:
        raise disagreement(told, seen)
    return True


def disagreement(told: Told, seen: str) -> errors.ChecksumDisagrees:
    """The error with the checksum that was told, and the one that the bytes have."""
    name = f"x-amz-checksum-{told.algorithm}"
    text = f"the bytes read have {name} {seen}, the source announces {cleaned(told.value)}"
    return errors.ChecksumDisagrees(text, seen, told.algorithm)


async def compare_with_source_md5(body: Body) -> None:
    """Compare a body with the MD5 that its source tells. Raises BytesRefused."""
    seen = await body.computed(Algorithm.MD5)
    if seen != body.source_md5:
        told = cleaned(body.source_md5)
        raise errors.BytesRefused(f"the bytes have MD5 {seen}, the source tells {told}")


async def compare_written(body: Body, etag: str, headers: Mapping[str, str]) -> None:
    """Compare the ETag of an object just written with the MD5 that the source tells.

    If the ETag is no MD5, the MD5 of the bytes is computed and compared. Raises BytesRefused.
    """
    written = md5_of_etag(etag)
    if not written or headers.get("x-amz-server-side-encryption", "AES256") != "AES256":
        await compare_with_source_md5(body)
    elif written != body.source_md5:
        raise errors.BytesRefused(
            f"the store has written bytes with MD5 {written}, the source tells "
            f"{cleaned(body.source_md5)}"
        )


def told_by_google(headers: Mapping[str, str]) -> dict[Algorithm, str]:
    """What `x-goog-hash` tells of the whole object: CRC32C (every object has it), and MD5."""
    pairs = (item.strip().partition("=") for item in headers.get("x-goog-hash", "").split(","))
    announced = {name: value for name, _, value in pairs}
    kinds = (Algorithm.CRC32C, Algorithm.MD5)
    return {algorithm: announced[algorithm] for algorithm in kinds if algorithm in announced}


async def compare_with_google(headers: Mapping[str, str], body: Body) -> None:
    """Compare a body with the CRC32C that Google tells, or with the MD5 if there is no CRC32C."""
    for algorithm, announced in told_by_google(headers).items():
        seen = await body.computed(algorithm)
        if announced != seen:
            raise errors.ChecksumDisagrees(
                f"the bytes have {algorithm} {seen}, the store announces {cleaned(announced)}", seen
            )
        return


def whole_checksum(parts: Sequence[Part]) -> str | None:
    """CRC64NVME of the object that these parts make; None if a part has no checksum."""
    if not all(part.checksum for part in parts):
        return None
    rows = ((part.checksum, part.size) for part in parts)
    return checksums.combine(Algorithm.CRC64NVME, rows)


def compare_whole(answer: str, whole: str) -> None:
    """Compare `whole` with the checksum of the whole object in `answer`, if it has one.

    `answer` is a CompleteMultipartUploadResult.
    """
    stored = documents.element(answer, "ChecksumCRC64NVME")
    composite = documents.element(answer, "ChecksumType").upper() == "COMPOSITE"
    if stored and not composite and "-" not in stored and stored != whole:
        raise errors.IntegrityError(
            f"the parts make an object with CRC64NVME {whole}, the store has one with "
            f"{cleaned(stored)}"
        )


def multipart_etag(parts: Sequence[Part]) -> str | None:
    """The ETag that S3 gives an object of these parts; None if an ETag of a part is no MD5."""
    digests = [tag for part in parts if _MD5.fullmatch(tag := entity_tags.opaque(part.etag))]
    if len(digests) < len(parts):
        return None
    joined = hashlib.md5(bytes.fromhex("".join(digests)), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(parts)}"


def proves_copy(source: StoredObject, copy: str, headers: Mapping[str, str]) -> bool:
    """Whether the ETag `copy` proves that its object is a copy of `source`.

    False: the two ETags prove nothing. For example, one object is encrypted, or was uploaded in
    parts.

    Raises:
        IntegrityError: the ETags prove that it is no copy. A store that ignores the condition on
            the source may have copied another version.
    """
    of_source, of_copy = entity_tags.opaque(source.meta.etag), entity_tags.opaque(copy)
    if of_source == of_copy:
        return of_source != ""
    are_md5 = source.etag_may_be_md5 and _MD5.fullmatch(of_source) and _MD5.fullmatch(of_copy)
    if are_md5 and headers.get("x-amz-server-side-encryption", "AES256") == "AES256":
        raise errors.IntegrityError(
            f"the copy has the ETag {cleaned(copy)}, its source had {cleaned(source.meta.etag)}"
        )
    return False


def same_bytes(one: str, other: str) -> bool:
    """Whether two ETags prove that two objects of equal size have equal bytes.

    The objects may be at different stores. False: the ETags prove nothing. One object may be
    encrypted, or may have been uploaded in parts. The ETag of encrypted bytes looks like an MD5,
    but is not one.
    """
    mine, theirs = entity_tags.opaque(one).lower(), entity_tags.opaque(other).lower()
    return mine == theirs and _MADE_OF_MD5.fullmatch(mine) is not None
