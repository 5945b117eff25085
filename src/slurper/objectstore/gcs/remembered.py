"""Keeps the resources of listed objects until the objects are copied."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from slurper import errors
from slurper.objectstore.base import ObjectMeta
from slurper.objectstore.gcs import resources
from slurper.objectstore.gcs.resources import Resource

_MOST = 4096
"""The tasks of a process list about this many objects before they copy them."""


class RememberedResources:
    """Resources by key. The oldest are dropped when there are too many."""

    def __init__(self) -> None:
        self._resources: OrderedDict[str, Resource] = OrderedDict()

    def add(self, items: Sequence[Resource]) -> list[ObjectMeta]:
        """Remember resources; return what a listing says of them. Raises ListingError."""
        try:
            objects = [resources.to_meta(item) for item in items]
        except (ValueError, TypeError, LookupError) as error:
            raise errors.ListingError(f"the listing holds what is no object: {error}") from error
        for item in items:
            self._resources[item["name"]] = item
        while len(self._resources) > _MOST:
            self._resources.popitem(last=False)
        return objects

    def find(self, key: str, etag: str | None) -> Resource | None:
        """The resource of the version `etag`; None if it is not remembered, or `etag` is empty."""
        resource = self._resources.get(key)
        if resource is None or not etag:
            return None
        return resource if resources.etag_of(resource.get("generation")) == etag else None
