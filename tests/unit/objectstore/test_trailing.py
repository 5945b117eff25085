"""Bodies in chunks with a checksum behind them, byte for byte."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.http.streams import BodyStream
from slurper.objectstore.checksums import Algorithm, encode
from slurper.objectstore.s3.trailing import CHUNK_BYTES, Trailed
from slurper.objectstore.streamed import StreamedPart

CRC = Algorithm.CRC32C


class Cut:
    """A body that comes in pieces of these sizes."""

    def __init__(self, body: bytes, cuts: Sequence[int]) -> None:
        edges = [0, *sorted(cuts), len(body)]
        self._pieces = [body[a:b] for a, b in itertools.pairwise(edges) if a < b]
        self.length = len(body)

    async def open(self) -> BodyStream:
        return BodyStream.complete(self._pieces)


async def sent(feed: Trailed | StreamedPart) -> bytes:
    pieces, body = await feed.open(), b""
    while piece := await pieces.read():
        body += piece
    pieces.close()
    return body


def decoded(framed: bytes) -> tuple[bytes, bytes]:
    """The bytes of all chunks, and what follows them."""
    body = b""
    while True:
        head, _, framed = framed.partition(b"\r\n")
        size = int(head, 16)
        assert size <= CHUNK_BYTES
        if not size:
            return body, framed
        assert framed[size : size + 2] == b"\r\n"
        body += framed[:size]
        framed = framed[size + 2 :]


@st.composite
def cut_bodies(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    edge = draw(st.sampled_from([1, 7, CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES]))
    size = max(1, edge + draw(st.integers(-2, 2)))
    cuts = draw(st.lists(st.integers(0, size), max_size=6))
    near = [CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1]
    return bytes(size), cuts + draw(st.lists(st.sampled_from(near), max_size=3))


@given(cut=cut_bodies(), algorithm=st.sampled_from([CRC, Algorithm.CRC64NVME, Algorithm.CRC32]))
async def test_all_bytes_and_their_checksum_are_sent(
    cut: tuple[bytes, list[int]], algorithm: Algorithm
) -> None:
    body, cuts = cut
    cuts = [at for at in cuts if at <= len(body)]
    part = StreamedPart(Cut(body, cuts), algorithm)
    trailed = Trailed(part, algorithm)
    framed = await sent(trailed)
    assert len(framed) == trailed.length
    value = encode(algorithm, [body])
    assert decoded(framed) == (body, f"x-amz-checksum-{algorithm}:{value}\r\n\r\n".encode())
    assert part.checksum == value


def test_the_headers_say_what_the_body_is() -> None:
    trailed = Trailed(StreamedPart(Cut(bytes(10), []), CRC), CRC)
    assert trailed.headers == {
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": "10",
        "x-amz-trailer": "x-amz-checksum-crc32c",
    }


async def test_a_small_body_is_framed_like_in_the_example_of_the_specification() -> None:
    trailed = Trailed(StreamedPart.held(b"a" * 26, CRC), CRC)
    value = encode(CRC, [b"a" * 26])
    expected = f"1a\r\n{'a' * 26}\r\n0\r\nx-amz-checksum-crc32c:{value}\r\n\r\n"
    assert await sent(trailed) == expected.encode()


async def test_a_body_that_is_sent_again_begins_anew() -> None:
    trailed = Trailed(StreamedPart(Cut(b"abc" * 9, [4, 5]), CRC, also=CRC, sizes=(20, 7)), CRC)
    pieces = await trailed.open()
    await pieces.read()
    pieces.close()
    assert await sent(trailed) == await sent(trailed)


@pytest.mark.parametrize("sizes", [(30,), (1, 29), (10, 10, 10), (29, 1)])
@pytest.mark.parametrize("cuts", [[], [1], [10, 20], [9, 11, 29]])
async def test_each_piece_has_its_checksum(sizes: tuple[int, ...], cuts: list[int]) -> None:
    body = bytes(range(30))
    part = StreamedPart(Cut(body, cuts), None, also=Algorithm.CRC32, sizes=sizes)
    assert await sent(part) == body
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    pieces = [body[at : at + size] for at, size in zip(starts, sizes, strict=True)]
    assert part.source_sums == tuple(encode(Algorithm.CRC32, [piece]) for piece in pieces)
    assert part.checksum == ""


async def test_a_mislabelled_part_tells_another_checksum() -> None:
    right, wrong = (StreamedPart.held(b"a", CRC, mislabels=lies) for lies in (False, True))
    bodies = await sent(Trailed(right, CRC)), await sent(Trailed(wrong, CRC))
    assert len(bodies[0]) == len(bodies[1])
    assert bodies[0] != bodies[1]
