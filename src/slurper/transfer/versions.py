"""Which version of an object does the source have now, and is it to be copied?"""

from __future__ import annotations

from slurper import errors
from slurper.objectstore import entity_tags
from slurper.objectstore.base import ObjectHeaders, ObjectMeta, StoredObject
from slurper.planning import selection
from slurper.transfer.attempts import SourceChangedError
from slurper.transfer.diagnosis import failure_text
from slurper.transfer.ledger import Failed, Outcome, Skipped
from slurper.transfer.route import Route


class Versions:
    """Asks the source of a task for versions of its objects."""

    def __init__(self, route: Route, rules: selection.Rules) -> None:
        self._source = route.source
        self._rules = rules

    async def look_again(self, key: str) -> ObjectMeta | Outcome:
        """The version that is there now; an outcome if it is not to be copied any more."""
        try:
            stored = await self._source.head(key)
        except errors.NotFound as error:
            return Failed(failure_text(error, 1))
        decision = selection.from_listing(stored.meta, None, self._rules)
        if isinstance(decision, selection.Skip):
            return Skipped(decision.log_type, decision.message)
        return stored.meta

    async def describe(
        self, meta: ObjectMeta, *, with_checksums: bool = False
    ) -> StoredObject | Skipped:
        """The object with its headers; Skipped if its headers or first bytes say to leave it out.

        `with_checksums` asks for checksums too; that needs the permission to read the object. HEAD
        tells archive tiers and restores, which a listing does not tell.

        Raises:
            SourceChangedError: it is no longer this version.
        """
        stored = await self.head(meta, with_checksums=with_checksums)
        archive = selection.in_archive(stored.meta, self._rules.source)
        if archive is not None:
            return Skipped(archive.log_type, archive.message)
        if self._rules.looks_at_content:
            first = await self._source.get(
                meta.key, if_match=meta.etag, byte_range=selection.FIRST_BYTES
            )
            skip = self.skip_by_content(stored.headers, bytes(first.body))
            if skip is not None:
                return skip
        return stored

    def skip_by_content(self, headers: ObjectHeaders, first: bytes) -> Skipped | None:
        """Why an object is left out for its content type or its first bytes; None: it is copied."""
        kind = headers.content.get("content-type", "")
        decision = selection.from_content(kind, first, self._rules.options)
        if isinstance(decision, selection.Skip):
            return Skipped(decision.log_type, decision.message)
        return None

    async def confirm(self, meta: ObjectMeta) -> None:
        """Return if the source still has this version.

        It is called when a store refused a condition on the version. Some refuse one that is true.

        Raises:
            SourceChangedError: the source has another version, or none any more.
        """
        try:
            await self.head(meta)
        except errors.NotFound as error:
            raise SourceChangedError(str(error)) from error

    async def head(self, meta: ObjectMeta, *, with_checksums: bool = False) -> StoredObject:
        """Describe this version.

        Raises:
            SourceChangedError: the source has another version.
        """
        stored = await self._source.head(meta.key, with_checksums=with_checksums)
        if stored.meta.size != meta.size or not _is_same(stored.meta, meta):
            raise SourceChangedError("HEAD shows another version than the listing")
        if not stored.meta.etag:  # what follows is done under a condition on the listed tag
            stored.meta = stored.meta._replace(etag=meta.etag)
        return stored


def _is_same(shown: ObjectMeta, wanted: ObjectMeta) -> bool:
    """Whether HEAD shows the version that was listed.

    Some proxies drop the tag. Then the date counts. HEAD tells whole seconds, and a listing may
    tell parts of them.
    """
    if shown.etag or not wanted.etag or shown.last_modified is None:
        return entity_tags.same(shown.etag, wanted.etag)
    listed = wanted.last_modified
    return listed is not None and listed.replace(microsecond=0) == shown.last_modified
