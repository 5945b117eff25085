"""Checksums against their published check values, and combined from parts."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.objectstore import checksums
from slurper.objectstore.checksums import Algorithm

# The "check" value of each algorithm: of the ASCII digits 1 to 9.
CHECK = {
    Algorithm.CRC64NVME: "ae8b14860a799888",
    Algorithm.CRC32C: "e3069283",
    Algorithm.CRC32: "cbf43926",
    Algorithm.MD5: "25f9e794323b453885f5181f1b624d0b",
}


@pytest.mark.parametrize("algorithm", Algorithm)
def test_published_check_values(algorithm: Algorithm) -> None:
    for chunks in ([b"123456789"], [b"1234", b"", b"56789"]):
        value = checksums.encode(algorithm, chunks)
        assert base64.b64decode(value).hex() == CHECK[algorithm]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_piece_by_piece_it_is_the_same(algorithm: Algorithm) -> None:
    make = checksums.running(algorithm)
    if algorithm is Algorithm.MD5:
        assert make is None
        return
    assert make is not None
    first, second = make(), make()
    for piece in (bytearray(b"1234"), memoryview(b""), b"56789"):
        first.update(piece)
    assert base64.b64decode(first.encoded()).hex() == CHECK[algorithm]
    assert second.encoded() == checksums.encode(algorithm, [])


def test_without_an_algorithm_nothing_is_computed() -> None:
    assert checksums.running(None) is None


def test_headers_by_which_stores_verify() -> None:
    assert checksums.header_of(Algorithm.MD5) == "content-md5"
    assert checksums.header_of(Algorithm.CRC64NVME) == "x-amz-checksum-crc64nvme"


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_the_whole_from_its_parts(parts: list[bytes]) -> None:
    algorithm = Algorithm.CRC64NVME
    values = [(checksums.encode(algorithm, [part]), len(part)) for part in parts]
    assert checksums.combine_crc64nvme(values) == checksums.encode(algorithm, parts)
