"""Removes from a target everything that a check has written there, even if the check fails."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from slurper import errors
from slurper.objectstore import own_keys
from slurper.objectstore.base import ProbedStore

SECONDS = 2.0
"""How long a check may take to remove what it has written, after its own time is over."""

STALE_SECONDS = 60.0
"""A running check removes its objects sooner. So older ones were left by a check that died."""


async def abort_all(store: ProbedStore, key: str) -> None:
    """Abort every upload of a key that only this check uses."""
    for upload in await store.list_uploads(prefix=key):
        await store.abort_upload(upload.key, upload.upload_id)


async def delete_below(
    store: ProbedStore, name: str, written: Iterable[str], *, is_faithful: bool
) -> None:
    """Delete everything whose key begins with `name`, a name of ours, or with a slash and `name`.

    `written` are keys that may exist even if no listing shows them. `is_faithful`: the store is
    known to keep these keys unchanged. Otherwise we look for keys that the store may have made from
    them. It may also have made folders. Those are deleted last, the deepest first.
    """
    keys = set(written)
    answers = await _delete_all(store, keys)
    if not is_faithful:
        # Delete before listing: a key that breaks a listing would hide the others.
        pages = await asyncio.gather(_keys(store, name), _keys(store, f"/{name}"))
        others = {*pages[0], *pages[1]} - keys
        answers += await _delete_all(store, others)
        await _delete_folders(store, keys | others)
    _raise_first(answers)


async def _delete_all(store: ProbedStore, keys: Collection[str]) -> list[BaseException | None]:
    """Delete objects side by side; return for each its error, or None."""
    return await asyncio.gather(*map(store.delete, keys), return_exceptions=True)


def _raise_first(answers: Iterable[object]) -> None:
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer


async def _delete_folders(store: ProbedStore, keys: Collection[str]) -> None:
    for folders in _folders(keys):
        await _delete_all(store, folders)  # these folders may not exist, so errors do not count


async def _keys(store: ProbedStore, prefix: str) -> list[str]:
    try:
        page = await store.list_page(prefix=prefix)
    except (errors.ListingError, errors.StoreError) as error:
        if error.retryable:
            raise
        return []  # the store refuses the prefix, or changes it
    return [meta.key for meta in page.objects]


def _folders(keys: Collection[str]) -> list[set[str]]:
    """The folders that a store may have made for files of these keys, the deepest first."""
    found: dict[int, set[str]] = {}
    for key in keys:
        names = [name for name in key.replace("\\", "/").split("/")[:-1] if name.strip(".")]
        for depth in range(1, len(names) + 1):
            found.setdefault(depth, set()).add("/".join(names[:depth]) + "/")
    return [found[depth] for depth in sorted(found, reverse=True)]


async def remove_stale_uploads(store: ProbedStore, spared: Collection[str]) -> None:
    """Abort the uploads of checks whose process was killed. Raises TimeoutError.

    Uploads of `spared` keys belong to the running check: a store may be wrong about their age.
    """
    async with asyncio.timeout(SECONDS):
        for upload in await store.list_uploads(prefix=own_keys.PREFIX):
            if upload.age_seconds > STALE_SECONDS and upload.key not in spared:
                await store.abort_upload(upload.key, upload.upload_id)


async def remove_stale_objects(store: ProbedStore, spared: Collection[str]) -> None:
    """Delete the objects of checks whose process was killed. Raises TimeoutError.

    Objects with a `spared` name in their key belong to the running check.
    """
    async with asyncio.timeout(SECONDS):
        prefixes = own_keys.PREFIXES
        await asyncio.gather(*(_delete_stale(store, prefix, spared) for prefix in prefixes))


async def _delete_stale(store: ProbedStore, prefix: str, spared: Collection[str]) -> None:
    try:
        page = await store.list_page(prefix=prefix)
    except (errors.ListingError, errors.StoreError):  # as in `_keys`, or no answer
        return
    now = page.served_at or datetime.now(UTC)
    stale = [
        meta.key
        for meta in page.objects
        if meta.last_modified is not None
        and own_keys.is_own(meta.key)
        and not any(name in meta.key for name in spared)
        and (now - meta.last_modified).total_seconds() > STALE_SECONDS
    ]
    _raise_first(await _delete_all(store, stale))
    await _delete_folders(store, stale)
