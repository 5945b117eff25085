"""Checksums that stores tell or verify.

The AWS common runtime computes CRC32C, CRC64NVME and the XXHASHes, zlib CRC32, OpenSSL the others.
Each is the fastest of the libraries that are installed anyway (decision 0020).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, cast

from awscrt import checksums as crt


class Algorithm(StrEnum):
    """Checksum algorithms; the value is the name in `x-amz-checksum-<name>`.

    The cheapest comes first. CRC64NVME costs about as much as fetching the bytes from memory, MD5
    seventeen times that (decision 0020).
    """

    CRC64NVME = "crc64nvme"
    CRC32C = "crc32c"
    XXHASH3 = "xxhash3"
    XXHASH128 = "xxhash128"
    XXHASH64 = "xxhash64"
    CRC32 = "crc32"
    SHA256 = "sha256"
    SHA1 = "sha1"
    SHA512 = "sha512"
    MD5 = "md5"
    """Sent as Content-MD5 (RFC 1864), which every store knows."""


class Told(NamedTuple):
    """A checksum of an object's bytes, as a store tells it."""

    algorithm: Algorithm
    value: str
    """Base64. If it is made of the checksums of the parts, "-" and their number follow."""


class _Sum(Protocol):
    """A checksum that takes in bytes piece by piece."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    __slots__ = ("_update", "_value", "_width")

    def __init__(self, algorithm: Algorithm) -> None:
        self._update, self._width = _CRC[algorithm]
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = self._update(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._width, "big")


class _XxHash:
    __slots__ = ("_hash",)

    def __init__(self, new: Callable[[], crt.XXHash]) -> None:
        self._hash = new()

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._hash.update(bytes(data))  # it takes only bytes

    def digest(self) -> bytes:
        return self._hash.finalize()


_CRC = cast(  # they take anything like bytes
    "dict[Algorithm, tuple[Callable[[bytes | bytearray | memoryview, int], int], int]]",
    {
        Algorithm.CRC64NVME: (crt.crc64nvme, 8),
        Algorithm.CRC32C: (crt.crc32c, 4),
        Algorithm.CRC32: (zlib.crc32, 4),
    },
)

_COMBINE: dict[Algorithm, Callable[[int, int, int], int]] = {
    Algorithm.CRC64NVME: crt.combine_crc64nvme,
    Algorithm.CRC32C: crt.combine_crc32c,
    Algorithm.CRC32: crt.combine_crc32,
}

_NEW: dict[Algorithm, Callable[[], _Sum]] = {
    **{algorithm: functools.partial(_Crc, algorithm) for algorithm in _CRC},
    Algorithm.XXHASH3: functools.partial(_XxHash, crt.XXHash.new_xxhash3_64),
    Algorithm.XXHASH128: functools.partial(_XxHash, crt.XXHash.new_xxhash3_128),
    Algorithm.XXHASH64: functools.partial(_XxHash, crt.XXHash.new_xxhash64),
    Algorithm.SHA256: hashlib.sha256,
    Algorithm.SHA1: functools.partial(hashlib.sha1, usedforsecurity=False),
    Algorithm.SHA512: hashlib.sha512,
    Algorithm.MD5: functools.partial(hashlib.md5, usedforsecurity=False),
}

COMBINABLE = frozenset(_CRC)
"""The checksum of an object can be computed from those of its parts."""

QUICK = frozenset(tuple(Algorithm)[: tuple(Algorithm).index(Algorithm.SHA256)])
"""These are computed in the event loop, also while a body comes in. The others are computed in a
thread if the body is long."""


class Running:
    """Checksums of bytes that come piece by piece."""

    __slots__ = ("_sums",)

    def __init__(self, algorithms: Iterable[Algorithm]) -> None:
        self._sums = [(algorithm, _NEW[algorithm]()) for algorithm in algorithms]

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the next bytes."""
        for _, one in self._sums:
            one.update(data)

    def encoded(self) -> dict[Algorithm, str]:
        """What `encode` returns for all bytes so far. To be called once."""
        return {algorithm: _base64(one.digest()) for algorithm, one in self._sums}


def running(algorithms: Iterable[Algorithm | None]) -> Running | None:
    """Begin the quick ones of these checksums; None if there are none.

    For slow ones this saves nothing: they take much longer than fetching the bytes from memory.
    """
    quick = QUICK.intersection(algorithms)
    return Running(quick) if quick else None


def encode(algorithm: Algorithm, chunks: Iterable[bytes | memoryview]) -> str:
    """Base64 of the checksum of the joined chunks, CRCs as big-endian integers."""
    if algorithm in _CRC:  # quicker for small objects than a `_Crc`
        update, width = _CRC[algorithm]
        value = functools.reduce(lambda crc, chunk: update(chunk, crc), chunks, 0)
        return base64.b64encode(value.to_bytes(width, "big")).decode()
    one = _NEW[algorithm]()
    for chunk in chunks:
        one.update(chunk)
    return _base64(one.digest())


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


_HEADERS = {
    algorithm: "content-md5" if algorithm is Algorithm.MD5 else f"x-amz-checksum-{algorithm}"
    for algorithm in Algorithm
}

TOLD_IN: Mapping[str, Algorithm] = {
    f"x-amz-checksum-{algorithm}": algorithm for algorithm in Algorithm
}
"""Names of the headers in which a store tells an object's checksums, the cheapest first."""


def header_of(algorithm: Algorithm) -> str:
    """Name of the header for a checksum: the store verifies it, and repeats it in its answer."""
    return _HEADERS[algorithm]


def combine(algorithm: Algorithm, parts: Iterable[tuple[str, int]]) -> str:
    """Compute the CRC of an object from its parts, in order: base64 CRC and size of each."""
    join, width = _COMBINE[algorithm], _CRC[algorithm][1]
    whole = 0
    for value, size in parts:
        part = int.from_bytes(base64.b64decode(value), "big")
        whole = join(whole, part, size)
    return _base64(whole.to_bytes(width, "big"))


def composite(algorithm: Algorithm, parts: Sequence[str]) -> str:
    """What S3 makes of the checksums of an object's parts: the checksum of the joined checksums."""
    joined = b"".join(base64.b64decode(value) for value in parts)
    return f"{encode(algorithm, [joined])}-{len(parts)}"
