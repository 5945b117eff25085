"""Is one object broken, or is a store down?"""

from __future__ import annotations

from slurper import errors
from slurper.objectstore.base import ObjectStore


async def find_outage(source: ObjectStore, target: ObjectStore) -> errors.SlurperError | None:
    """Why no object at all can be copied now; None when both stores answer.

    An object that outlasted all its attempts is either broken itself or a sign that a store is
    down. Only in the first case may it be counted as failed (design rule 7).
    """
    try:
        await source.list_page(max_keys=1)
        await target.list_page(max_keys=1)
    except errors.SlurperError as error:
        return error
    return None
