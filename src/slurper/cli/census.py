"""Counts the source while it is being copied, so that progress and ETA have a total.

This costs one LIST request for every thousand objects. It is done only on a terminal.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.job.model import JobSpec
from slurper.objectstore import own_keys
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.factory import open_store
from slurper.planning.keyspace import KeyRange
from slurper.transfer.walk import walk


@dataclass(slots=True)
class Census:
    """How many objects the source was found to hold so far."""

    total: int | None = None
    final: bool = False

    @classmethod
    def of(cls, spec: JobSpec) -> Census:
        """Return what is known before a listing. The number of explicit keys is known."""
        return cls() if spec.keys is None else cls(total=len(spec.keys), final=True)

    async def take(self, address: StoreAddress, options: TransportOptions, prefix: str) -> None:
        """Count to the end. If the listing fails, the total is not final; the job reports why."""
        store = open_store(address, options)
        try:
            with suppress(errors.SlurperError):
                steps = walk(store, KeyRange(), prefix=prefix)
                finished = False
                while not finished:
                    page = await steps.next_page()
                    self.total = (self.total or 0) + len(own_keys.without_own(page.objects))
                    finished = page.finished
                    await asyncio.sleep(0)
                self.final = True
        finally:
            await store.close()
