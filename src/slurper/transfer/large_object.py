"""The object of a parts task: what all steps of its copy need to know."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from slurper import errors
from slurper.objectstore import entity_tags, verification
from slurper.objectstore.base import ObjectMeta, Part
from slurper.objectstore.dialects import PartCopy
from slurper.planning import selection
from slurper.planning.parts import PartPlan
from slurper.transfer import clocks
from slurper.transfer.attempts import SourceChangedError
from slurper.transfer.copy import Copier
from slurper.transfer.ledger import Outcome, Skipped, Transferred
from slurper.transfer.route import Route
from slurper.transfer.server_side import may_exist
from slurper.transfer.task import BegunUpload, PartsTask

_TOO_SHORT = 416
"""The object no longer reaches as far as the range."""


def is_of_another_version(error: errors.StoreError) -> bool:
    """Whether the read of a range was refused because the source has another version."""
    return isinstance(error, errors.PreconditionFailed) or error.status == _TOO_SHORT


class LargeObject:
    """A large object in progress, at both of its stores."""

    def __init__(self, task: PartsTask, route: Route, copier: Copier) -> None:
        self.task = task
        self.meta = task.upload.meta
        self.source = route.source
        self.target = route.target
        self.target_key = route.target_key(self.meta.key)
        self.copier = copier
        self.attempts = copier.attempts
        self.versions = copier.versions

    def plan(self, begun: BegunUpload) -> PartPlan:
        """How the object is cut."""
        return PartPlan(self.meta.size, begun.part_size)

    @property
    def may_be_copied_inside(self) -> bool:
        """Whether the store may copy parts itself, here or in a process with other settings."""
        return may_exist(self.task)

    @property
    def copies_any_version(self) -> bool:
        """Whether the store may copy parts itself without a condition on their version."""
        unconditional = self.target.dialect.part_copy is PartCopy.UNCONDITIONAL
        return unconditional and self.may_be_copied_inside

    def check_version(self, begun: BegunUpload, got: ObjectMeta) -> None:
        """Refuse another version. Without If-Match, a store may send or copy parts of another one.

        Raises:
            SourceChangedError: it is not the version that the upload was begun with.
        """
        wanted = self.meta
        is_other = wanted.etag and got.etag and not entity_tags.same(wanted.etag, got.etag)
        dates = (begun.last_modified, got.last_modified)
        is_dated_otherwise = None not in dates and dates[0] != dates[1]
        if is_other or is_dated_otherwise or wanted.size != got.size:
            raise SourceChangedError("there is another version than HEAD showed at first")

    async def outcome_at_target(self, parts: Sequence[Part] = ()) -> Outcome | None:
        """The outcome, if the target has an object under the key already and must keep it.

        The key was absent when its slice was planned. The object there now was written by somebody
        else, or by this job in work whose report was lost. If it is made of these `parts`, it is
        ours.
        """
        task = self.task
        if task.overwrite:
            return None
        try:
            head = functools.partial(self.target.head, self.target_key)
            existing = (await self.attempts.repeat(head)).meta
        except (errors.NotFound, errors.AccessDenied):
            return None  # if we may not look, writing the object will show what is there
        may_be_ours = task.upload.attempt > 1
        if task.replayed_since is not None and not may_be_ours:
            since = task.replayed_since + await clocks.ahead_of_ours(self.target)
            may_be_ours = selection.may_be_ours(self.meta.size, existing, since)
        return await self._compare(existing, parts) if may_be_ours else Skipped()

    async def _compare(self, existing: ObjectMeta, parts: Sequence[Part]) -> Outcome:
        """Decide whether this job or somebody else has made the object."""
        made = verification.multipart_etag(parts) if parts else None
        if made is not None and verification.same_bytes(made, existing.etag):
            return Transferred(self.meta.size)
        decide = functools.partial(self.copier.ownership.decide, self.meta)
        return await self.attempts.repeat(decide)
