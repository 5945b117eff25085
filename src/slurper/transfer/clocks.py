"""How far a store's clock is from ours, as its answers tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from slurper import errors
from slurper.objectstore.base import ObjectStore

_RESOLUTION = timedelta(seconds=1)
"""The resolution of the Date header."""


async def ahead_of_ours(store: ObjectStore) -> timedelta:
    """By how much the store's clock is ahead of ours, at least; negative if it is behind.

    Zero if the answer fits clocks that agree, or if there is no answer. Otherwise it is the lowest
    difference that fits the answer. So an object that was stored after a moment of our clock is
    never taken for older.
    """
    asked_at = datetime.now(UTC)
    try:
        served_at = (await store.list_page(max_keys=1)).served_at
    except errors.SlurperError:
        return timedelta()  # if the error lasts, the task meets it too
    if served_at is None:
        return timedelta()
    lower = served_at - datetime.now(UTC)
    upper = served_at + _RESOLUTION - asked_at
    return timedelta() if lower <= timedelta() <= upper else lower
