"""Checksums against their published check values, and combined from parts."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.objectstore import checksums
from slurper.objectstore.base import Body
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from tests.unit.objectstore.answers import NO_HEADERS, PLAIN, Open, found

# The "check" value of each algorithm: of the ASCII digits 1 to 9.
CHECK = {
    Algorithm.CRC64NVME: "ae8b14860a799888",
    Algorithm.CRC32C: "e3069283",
    Algorithm.CRC32: "cbf43926",
    Algorithm.MD5: "25f9e794323b453885f5181f1b624d0b",
    Algorithm.SHA1: "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    Algorithm.SHA256: "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    Algorithm.SHA512: (
        "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274a"
        "d27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85"
    ),
}

# Of "abc", as the programs of xxHash's author have it.
CHECK_ABC = {
    Algorithm.XXHASH64: "44bc2cf5ad770999",
    Algorithm.XXHASH3: "78af5f94892f3950",
    Algorithm.XXHASH128: "06b05ab6733a618578af5f94892f3950",
}
VECTORS = [
    *((algorithm, b"123456789", value) for algorithm, value in CHECK.items()),
    *((algorithm, b"abc", value) for algorithm, value in CHECK_ABC.items()),
]


def test_there_is_a_vector_for_each() -> None:
    assert {algorithm for algorithm, _, _ in VECTORS} == set(Algorithm)


@pytest.mark.parametrize(("algorithm", "data", "digest"), VECTORS)
def test_published_check_values(algorithm: Algorithm, data: bytes, digest: str) -> None:
    for chunks in ([data], [data[:1], b"", data[1:]], [memoryview(bytearray(data))]):
        assert base64.b64decode(checksums.encode(algorithm, chunks)).hex() == digest


@pytest.mark.parametrize(("algorithm", "data", "digest"), VECTORS)
def test_piece_by_piece_it_is_the_same(algorithm: Algorithm, data: bytes, digest: str) -> None:
    running = checksums.running([algorithm, Algorithm.CRC32C, None])
    assert running is not None
    for piece in (bytearray(data[:2]), memoryview(b""), data[2:]):
        running.update(piece)
    found = running.encoded()
    assert found[Algorithm.CRC32C] == checksums.encode(Algorithm.CRC32C, [data])
    if algorithm in checksums.QUICK:
        assert base64.b64decode(found[algorithm]).hex() == digest
    else:
        assert algorithm not in found


@pytest.mark.parametrize("algorithms", [[], [None], [Algorithm.MD5], [Algorithm.SHA256, None]])
def test_nothing_that_takes_long_is_followed(algorithms: list[Algorithm | None]) -> None:
    assert checksums.running(algorithms) is None


def test_headers_by_which_stores_verify() -> None:
    assert checksums.header_of(Algorithm.MD5) == "content-md5"
    assert checksums.header_of(Algorithm.CRC64NVME) == "x-amz-checksum-crc64nvme"


@given(st.sampled_from(sorted(checksums.COMBINABLE)), st.lists(st.binary(max_size=50), max_size=5))
def test_the_whole_from_its_parts(algorithm: Algorithm, parts: list[bytes]) -> None:
    values = [(checksums.encode(algorithm, [part]), len(part)) for part in parts]
    assert checksums.combine(algorithm, values) == checksums.encode(algorithm, parts)


def test_what_s3_makes_of_the_checksums_of_parts() -> None:
    # Of the parts "a" and "b": CRC32 of the eight bytes of theirs.
    parts = [checksums.encode(Algorithm.CRC32, [part]) for part in (b"a", b"b")]
    assert [base64.b64decode(part).hex() for part in parts] == ["e8b7be43", "71beeff9"]
    joined = checksums.encode(Algorithm.CRC32, [bytes.fromhex("e8b7be4371beeff9")])
    assert checksums.composite(Algorithm.CRC32, parts) == f"{joined}-2"


@given(st.lists(st.binary(max_size=20), max_size=6), st.data())
def test_pieces_of_a_body(chunks: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(chunks)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    edges = [0, *cuts, len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
    for algorithm in (Algorithm.CRC32C, Algorithm.SHA1):
        expected = tuple(checksums.encode(algorithm, [piece]) for piece in pieces)
        assert Body(chunks).sums(algorithm, [len(piece) for piece in pieces]) == expected


async def test_what_takes_long_is_the_same_in_a_thread() -> None:
    chunks = [bytes(1 << 20), b"more"]
    for algorithm in Algorithm:
        assert await Body(chunks).computed(algorithm) == checksums.encode(algorithm, chunks)


@pytest.mark.parametrize(
    ("dialect", "algorithm"),
    [
        (replace(PLAIN, checksum=Algorithm.MD5), Algorithm.MD5),
        (replace(PLAIN, checksum=Algorithm.SHA256), Algorithm.SHA256),
        (replace(PLAIN, checksum=None, wants_md5=True), Algorithm.MD5),
    ],
)
@pytest.mark.parametrize(("size", "is_on_the_loop"), [(256 << 10, True), (1 << 20, False)])
async def test_what_takes_long_is_not_computed_on_the_event_loop(
    open_s3: Open,
    monkeypatch: pytest.MonkeyPatch,
    dialect: Dialect,
    algorithm: Algorithm,
    size: int,
    is_on_the_loop: bool,
) -> None:
    computed: list[tuple[Algorithm, bool]] = []
    encode = checksums.encode

    def noted(one: Algorithm, chunks: Iterable[bytes | memoryview]) -> str:
        computed.append((one, threading.current_thread() is threading.main_thread()))
        return encode(one, chunks)

    monkeypatch.setattr(checksums, "encode", noted)
    store, _ = await open_s3(found(), dialect=dialect)
    await store.put("k", Body([bytes(size)]), NO_HEADERS)
    await store.put_part("k", "u", 1, Body([bytes(size)]))
    assert computed == [(algorithm, is_on_the_loop)] * 2
