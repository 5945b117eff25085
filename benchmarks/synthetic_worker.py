"""A worker whose stores are made up; in a module of its own, so that it loads nothing else."""

from __future__ import annotations

from tests.memory.made_up import DiscardingStore, SyntheticStore

from slurper.http.client import TransportOptions
from slurper.objectstore.base import ObjectStore, StoreAddress
from slurper.settings import Settings
from slurper.transfer.worker import Worker


def open_store(address: StoreAddress, _: TransportOptions) -> ObjectStore:
    """The source's bucket names how many objects it has."""
    count = address.bucket.removeprefix("objects-")
    return SyntheticStore(int(count)) if count.isdecimal() else DiscardingStore()


def make_worker(settings: Settings) -> Worker:
    """What the worker process runs."""
    return Worker(settings, open_store=open_store)
