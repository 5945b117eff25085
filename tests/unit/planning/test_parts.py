from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.objectstore import dialects
from slurper.objectstore.base import Body, ObjectHeaders, ObjectMeta, Part, StoredObject
from slurper.objectstore.checksums import COMBINABLE, Algorithm, Told, encode
from slurper.objectstore.dialects import GENERIC, Dialect
from slurper.planning.parts import (
    PartPlan,
    SourceSum,
    plan_parts,
    sum_of_whole,
    sums_of_parts,
)
from slurper.settings import GIB, KIB, MIB, TIB

SCALEWAY_LIKE = Dialect(name="few-parts", max_parts=1000, max_put_bytes=5 * GIB)
DIALECTS = [*dialects.BY_PROVIDER, dialects.GENERIC, SCALEWAY_LIKE]

sizes = st.one_of(
    st.integers(0, 64 * MIB),
    st.integers(0, 5 * TIB),
    st.integers(5 * TIB - 5 * GIB, 5 * TIB),
    # Just around a multiple of the part count, where rounding down gives one part too many.
    st.builds(lambda n, d: n * 10_000 * MIB + d, st.integers(1, 500), st.integers(-2, 2)),
)


@given(
    size=sizes,
    dialect=st.sampled_from(DIALECTS),
    part_bytes=st.integers(1, 600 * MIB),
)
def test_parts_are_equal_but_the_last_and_within_every_limit(
    size: int, dialect: Dialect, part_bytes: int
) -> None:
    if size > dialect.max_parts * dialect.max_put_bytes:
        with pytest.raises(errors.ConfigurationError):
            plan_parts(size, dialect, part_bytes=part_bytes)
        return
    plan = plan_parts(size, dialect, part_bytes=part_bytes)
    last = plan.byte_range(plan.count)
    assert 1 <= plan.count <= dialect.max_parts
    assert plan.part_size <= dialect.max_put_bytes
    assert plan.count == 1 or plan.part_size >= max(
        dialect.min_part_bytes, min(part_bytes, dialect.max_put_bytes)
    )
    assert last.end == size
    assert 0 <= len(last) <= plan.part_size
    assert (plan.count - 1) * plan.part_size + len(last) == size


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_the_largest_object_of_every_store_fits(dialect: Dialect) -> None:
    largest = min(dialect.max_object_bytes, dialect.max_parts * dialect.max_put_bytes)
    plan = plan_parts(largest, dialect, part_bytes=16 * MIB)
    sizes = [len(plan.byte_range(number)) for number in range(1, plan.count + 1)]
    assert len(sizes) == plan.count <= dialect.max_parts
    assert set(sizes[:-1]) == {plan.part_size}
    assert sum(sizes) == largest


@given(size=st.integers(0, 40 * KIB), part_size=st.integers(1, 4 * KIB))
def test_parts_tile_the_object(size: int, part_size: int) -> None:
    plan = PartPlan(size, part_size)
    position = 0
    for number in range(1, plan.count + 1):
        byte_range = plan.byte_range(number)
        assert byte_range.start == position
        assert number == 1 or len(byte_range) > 0
        position = byte_range.end
    assert position == size


def test_the_largest_r2_object_fits() -> None:
    plan = plan_parts(5 * TIB - 5 * GIB, dialects.R2, part_bytes=16 * MIB)
    assert plan.count <= 10_000
    assert plan.part_size == 524 * MIB


def test_an_object_beyond_all_parts_is_refused() -> None:
    tiny = Dialect(name="tiny", max_parts=2, max_put_bytes=8 * MIB)
    with pytest.raises(errors.ConfigurationError, match="limits of tiny"):
        plan_parts(16 * MIB + 1, tiny, part_bytes=5 * MIB)


# What a source tells of an object


def described(size: int, etag: str = '"e"', told: Told | None = None) -> StoredObject:
    return StoredObject(ObjectMeta("k", size, etag, None, ""), ObjectHeaders(), told=told)


@given(
    st.sampled_from(sorted(COMBINABLE)),
    st.binary(min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(1, 70),
    st.booleans(),
)
def test_a_crc_is_found_again_from_parts_of_any_size(
    algorithm: Algorithm, body: bytes, ours: int, theirs: int, of_parts: bool
) -> None:
    pieces = [body[start : start + theirs] for start in range(0, len(body), theirs)]
    if of_parts:
        values = [encode(algorithm, [piece]) for piece in pieces]
        joined = b"".join(map(base64.b64decode, values))
        told = SourceSum(algorithm, f"{encode(algorithm, [joined])}-{len(pieces)}", theirs)
    else:
        told = SourceSum(algorithm, encode(algorithm, [body]), len(body))
    parts: list[Part] = []
    plan = PartPlan(len(body), ours)
    for number in range(1, plan.count + 1):
        byte_range = plan.byte_range(number)
        chunk = Body([body[byte_range.start : byte_range.end]])
        sums = chunk.sums(algorithm, told.cut(byte_range))
        parts.append(Part(number, chunk.length, "e", source_sums=sums))
    assert told.part_bytes is None
    assert told.of(parts) == told.value
    assert told.of([*parts[:-1], replace(parts[-1], source_sums=())]) is None


def test_an_empty_object_has_a_sum_too() -> None:
    told = sum_of_whole(described(0, told=Told(Algorithm.CRC32C, "AAAAAA==")))
    assert told is not None
    assert told.of([Part(1, 0, "e", source_sums=("AAAAAA==",))]) == "AAAAAA=="


@pytest.mark.parametrize("algorithm", Algorithm)
def test_only_a_crc_of_the_whole_is_found_again(algorithm: Algorithm) -> None:
    found = sum_of_whole(described(9, told=Told(algorithm, "v")))
    assert found == (SourceSum(algorithm, "v", 9) if algorithm in COMBINABLE else None)
    assert sum_of_whole(described(9)) is None


HEX = "0123456789abcdef0123456789abcdef"
IN_BASE64 = base64.b64encode(bytes.fromhex(HEX)).decode()
CRC, SHA = Told(Algorithm.CRC32, "v-3"), Told(Algorithm.SHA256, "v")


@pytest.mark.parametrize(
    ("told", "etag", "part_mib", "count", "kinds"),
    [
        # told by a header, ETag, the source's first part, how many: what is compared first
        (CRC, f'"{HEX}-3"', 8, 3, [("crc32", "v-3"), ("md5", f"{IN_BASE64}-3")]),
        (SHA, f'"{HEX}-3"', 8, 3, [("md5", f"{IN_BASE64}-3"), ("sha256", "v-3")]),
        (None, f'"{HEX}-3"', 8, 3, [("md5", f"{IN_BASE64}-3")]),
        (None, f'"{HEX}"', 8, 3, []),
        (None, f'"{HEX}-2"', 8, 3, []),  # SeaweedFS counts its own pieces there
        (CRC, '"e"', 9, 3, [("crc32", "v-3")]),
        (CRC, '"e"', 8, 2, []),  # not all of them had that size
        (CRC, '"e"', 0, 3, []),
        # Parts of a copy can be neither as short nor as long; a CRC does not need that.
        (CRC, f'"{HEX}-24"', 1, 24, [("crc32", "v-3")]),
        (SHA, f'"{HEX}-24"', 1, 24, []),
    ],
)
def test_what_a_source_made_of_its_parts(
    told: Told | None, etag: str, part_mib: int, count: int, kinds: list[tuple[str, str]]
) -> None:
    stored = described(24 * MIB, etag)
    stored.told_of_parts = told
    found = list(sums_of_parts(stored, GENERIC, part_mib * MIB, count))
    assert [(each.algorithm.value, each.value) for each in found] == kinds
    assert all(each.piece_bytes == part_mib * MIB for each in found)


def test_parts_that_lie_in_memory_are_not_as_long_as_those_of_any_source() -> None:
    stored = described(1000 * MIB, f'"{HEX}-2"')
    assert list(sums_of_parts(stored, GENERIC, 500 * MIB, 2)) == []


def test_etags_of_encrypted_objects_tell_nothing_of_their_parts() -> None:
    stored = described(24 * MIB, f'"{HEX}-3"')
    stored.etag_may_be_md5 = False
    assert list(sums_of_parts(stored, GENERIC, 8 * MIB, 3)) == []
