"""Checksums that stores verify on arrival, computed by the AWS common runtime (SIMD)."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import cast

from awscrt import checksums as crt


class Algorithm(StrEnum):
    """Checksum algorithms; the value is the name in `x-amz-checksum-<name>`."""

    CRC64NVME = "crc64nvme"
    CRC32C = "crc32c"
    CRC32 = "crc32"
    MD5 = "md5"
    """Sent as Content-MD5 (RFC 1864): 40 times the cost, for stores that know nothing else."""


_CRC: dict[Algorithm, tuple[Callable[[bytes, int], int], int]] = {
    Algorithm.CRC64NVME: (crt.crc64nvme, 8),
    Algorithm.CRC32C: (crt.crc32c, 4),
    Algorithm.CRC32: (crt.crc32, 4),
}


class RunningCrc:
    """A CRC of bytes that come piece by piece."""

    __slots__ = ("_update", "_value", "_width", "algorithm")

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self._update, self._width = _CRC[algorithm]
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the next bytes."""
        self._value = self._update(cast("bytes", data), self._value)  # whatever shows its bytes

    def encoded(self) -> str:
        """What `encode` makes of all bytes so far."""
        return _encoded(self._value, self._width)


def running(algorithm: Algorithm | None) -> Callable[[], RunningCrc] | None:
    """Make what follows an algorithm piece by piece; None where that saves nothing.

    A CRC takes about as long as to fetch its bytes from memory, MD5 twenty times as long.
    """
    return _RUNNING.get(algorithm)


_RUNNING: dict[Algorithm | None, Callable[[], RunningCrc]] = {
    algorithm: functools.partial(RunningCrc, algorithm) for algorithm in _CRC
}


def encode(algorithm: Algorithm, chunks: Sequence[bytes]) -> str:
    """Base64 of the checksum of the joined chunks, CRCs as big-endian integers."""
    if algorithm is Algorithm.MD5:
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in chunks:
            digest.update(chunk)
        return base64.b64encode(digest.digest()).decode()
    update, width = _CRC[algorithm]
    value = functools.reduce(lambda crc, chunk: update(chunk, crc), chunks, 0)
    return _encoded(value, width)


def _encoded(value: int, width: int) -> str:
    return base64.b64encode(value.to_bytes(width, "big")).decode()


_HEADERS = {
    algorithm: "content-md5" if algorithm is Algorithm.MD5 else f"x-amz-checksum-{algorithm}"
    for algorithm in Algorithm
}


def header_of(algorithm: Algorithm) -> str:
    """Name of the header that makes a store verify the checksum, and in which it repeats it."""
    return _HEADERS[algorithm]


def combine_crc64nvme(parts: Iterable[tuple[str, int]]) -> str:
    """CRC64NVME of an object from those of its parts, in order: base64 value and size in bytes."""
    return _combine(crt.combine_crc64nvme, 8, parts)


def combine_crc32c(parts: Iterable[tuple[str, int]]) -> str:
    """CRC32C of an object from those of its parts, as above."""
    return _combine(crt.combine_crc32c, 4, parts)


def _combine(
    join: Callable[[int, int, int], int], width: int, parts: Iterable[tuple[str, int]]
) -> str:
    whole = 0
    for value, size in parts:
        part = int.from_bytes(base64.b64decode(value), "big")
        whole = join(whole, part, size)
    return _encoded(whole, width)
