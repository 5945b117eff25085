"""Bytes in memory, in chunks of any size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slurper.objectstore.base import Body


@given(chunks=st.lists(st.binary(max_size=5), max_size=6), size=st.integers(0, 20))
def test_the_beginning_does_not_depend_on_the_chunks(chunks: list[bytes], size: int) -> None:
    assert Body(chunks).beginning(size) == b"".join(chunks)[:size]
