"""Finds out whether a target obeys `If-None-Match: *`, with writes over an existing object."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import replace

from slurper import errors
from slurper.objectstore import error_answers
from slurper.objectstore.base import Body, ObjectHeaders, ProbedStore
from slurper.service.probes import uploads
from slurper.service.probes.check import Check, StepFailed, side_by_side
from slurper.service.probes.uploads import OnePartUpload


async def ask(store: ProbedStore, upload: OnePartUpload | None, check: Check) -> None:
    """Try it with a PUT and with the completion of `upload` (None: of a new upload)."""
    key = check.new_key() if upload is None else upload.key
    written = asyncio.ensure_future(_write(store, key, check))

    async def ask_both() -> None:
        await side_by_side(
            _ask_put(store, key, check, written),
            _ask_completion(store, key, upload, check, written),
        )

    try:
        await side_by_side(written, ask_both())
    except StepFailed as failed:
        check.notes.append(
            "whether the target obeys conditions on writes could not be found out, and is assumed "
            f"({failed})"
        )
    finally:
        check.remove(store.delete(key), f"an object of the check is left: delete {key}")


async def _write(store: ProbedStore, key: str, check: Check) -> None:
    async with check.step("writing an object"):
        await store.put(key, _of_length(2), ObjectHeaders())


async def _ask_put(
    store: ProbedStore, key: str, check: Check, written: asyncio.Future[None]
) -> None:
    await asyncio.shield(written)
    async with check.step("writing an object unless it exists"):
        obeys = await _is_refused(store.put(key, _of_length(3), ObjectHeaders(), if_absent=True))
    check.found = replace(check.found, conditional_put=obeys)


async def _ask_completion(
    store: ProbedStore,
    key: str,
    upload: OnePartUpload | None,
    check: Check,
    written: asyncio.Future[None],
) -> None:
    try:
        async with contextlib.AsyncExitStack() as begun:
            if upload is None:
                created = await begun.enter_async_context(uploads.begin(store, key, check))
                upload = await uploads.take_part(store, key, created, check)
            await asyncio.shield(written)
            async with check.step("completing an upload unless the object exists"):
                obeys = await _is_refused(
                    store.complete_upload(
                        key,
                        upload.created.upload_id,
                        [upload.part],
                        if_absent=True,
                        whole_checked=upload.created.whole_checked,
                    )
                )
    except StepFailed as failed:
        if not error_answers.lacks_uploads(failed.cause):
            raise
    else:
        check.found = replace(check.found, conditional_completion=obeys)


def _of_length(times: int) -> Body:
    """A body longer than the part, so that the object differs from a completed upload."""
    return Body([uploads.CONTENT] * times)


async def _is_refused(write: Awaitable[str]) -> bool:
    """Whether a write over an existing object fails because of its condition.

    False also if the store refuses the write because it does not understand the condition.
    """
    try:
        await write
    except errors.PreconditionFailed:
        return True
    except errors.StoreError as error:
        if error.code not in error_answers.NOT_UNDERSTOOD:
            raise
    return False
