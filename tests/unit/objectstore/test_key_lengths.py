"""A listing with a key that no store can hold is refused: no index could hold it either."""

from __future__ import annotations

import pytest

from slurper import errors
from slurper.objectstore import listings
from slurper.objectstore.dialects import KeyOrder


@pytest.mark.parametrize("order", [KeyOrder.BYTES, KeyOrder.OWN, KeyOrder.NONE])
@pytest.mark.parametrize("key", ["k" * 2_501, "ü" * 1_251, "\U0001f600" * 626, "\udcff" * 2_501])
def test_a_key_that_is_too_long_is_refused_and_not_shown_as_a_whole(
    key: str, order: KeyOrder
) -> None:
    with pytest.raises(errors.ListingError, match="no store holds keys of more than 2,500") as told:
        listings.check_keys(["a", key], "", None, order)
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("key", ["k" * 2_500, "ü" * 1_250, "\udcff" * 2_500])
def test_a_key_that_fits_is_taken(key: str) -> None:
    listings.check_keys(["a", key], "", None)
