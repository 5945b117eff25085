"""How far a store's clock is from ours, as its answers tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from slurper import errors
from slurper.objectstore.base import ObjectStore

_RESOLUTION = timedelta(seconds=1)
"""Of the Date header."""


async def ahead_of_ours(store: ObjectStore) -> timedelta:
    """By how much the store's clock is ahead of ours, at least; negative when it is behind.

    Zero if clocks that agree can explain the answer, or when there is no answer. Otherwise it is
    the smallest difference that explains it. So nothing that was stored after a moment of ours is
    taken for older.
    """
    asked_at = datetime.now(UTC)
    try:
        served_at = (await store.list_page(max_keys=1)).served_at
    except errors.SlurperError:
        return timedelta()  # whatever it is, the task meets it again
    if served_at is None:
        return timedelta()
    lower = served_at - datetime.now(UTC)
    upper = served_at + _RESOLUTION - asked_at
    return timedelta() if lower <= timedelta() <= upper else lower
