from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.objectstore import dialects
from slurper.objectstore.dialects import GIB, KIB, MIB, TIB, Dialect
from slurper.planning.parts import PartPlan, plan_parts

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
    sizes = [len(byte_range) for _, byte_range in plan]
    assert len(sizes) == plan.count <= dialect.max_parts
    assert set(sizes[:-1]) == {plan.part_size}
    assert sum(sizes) == largest


@given(size=st.integers(0, 40 * KIB), part_size=st.integers(1, 4 * KIB))
def test_parts_tile_the_object(size: int, part_size: int) -> None:
    plan = PartPlan(size, part_size)
    position = 0
    for expected_number, (number, byte_range) in enumerate(plan, start=1):
        assert number == expected_number
        assert byte_range.start == position
        position = byte_range.end
    assert position == size
    assert plan.count == expected_number


def test_the_largest_r2_object_fits() -> None:
    plan = plan_parts(5 * TIB - 5 * GIB, dialects.R2, part_bytes=16 * MIB)
    assert plan.count <= 10_000
    assert plan.part_size == 524 * MIB


def test_an_object_beyond_all_parts_is_refused() -> None:
    tiny = Dialect(name="tiny", max_parts=2, max_put_bytes=8 * MIB)
    with pytest.raises(errors.ConfigurationError, match="limits of tiny"):
        plan_parts(16 * MIB + 1, tiny, part_bytes=5 * MIB)
