"""Folders beside files of the same name: at a target of files in folders only one of them stays.

An empty object `dir/` is a folder there. Where the source also has `dir`, a file, whichever comes
later is refused, or takes the place of the other without a word. So the file is copied and the
folder fails; what is in it is copied all the same. Only keys that end with a slash cost a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from slurper import errors
from slurper.objectstore.base import ObjectStore
from slurper.transfer.listing import HEADS_AT_ONCE


class Folders:
    """Finds for folders of the source the file that is copied in their stead."""

    def __init__(self, source: ObjectStore, *, prefix: str, active: bool) -> None:
        """Prepare for keys of `prefix`. Not `active`: the target keeps both."""
        self._source = source
        self._prefix = prefix
        self._active = active

    async def among(self, keys: Sequence[str]) -> dict[str, str]:
        """Of these keys, those that must not be copied, with the key that is.

        Raises:
            SlurperError: the source does not tell.
        """
        if not self._active:
            return {}
        least = max(len(self._prefix), 1)
        asked = [key for key in keys if key.endswith("/") and len(key) > least]
        found: dict[str, str] = {}
        for start in range(0, len(asked), HEADS_AT_ONCE):
            group = asked[start : start + HEADS_AT_ONCE]
            exist = await asyncio.gather(*(self._exists(key[:-1]) for key in group))
            found |= {key: key[:-1] for key, there in zip(group, exist, strict=True) if there}
        return found

    async def _exists(self, key: str) -> bool:
        try:
            await self._source.head(key)
        except (errors.NotFound, errors.Refused):  # what may not be read is not copied either
            return False
        return True
