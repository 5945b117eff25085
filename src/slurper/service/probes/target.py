"""What a check asks a target, and in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from slurper.objectstore import own_keys
from slurper.objectstore.base import ProbedStore
from slurper.service.probes import clean_up, conditions, keys_and_headers, listing, uploads
from slurper.service.probes.check import Check, StepFailed, side_by_side
from slurper.service.probes.uploads import OnePartUpload


@dataclass(frozen=True, slots=True)
class _Questions:
    """The questions that must be answered by writing objects."""

    condition: bool
    what_is_kept: bool

    def __str__(self) -> str:
        kept = "which keys and headers the target keeps"
        condition = "whether it obeys conditions on writes"
        asked = [
            text
            for text, is_asked in ((kept, self.what_is_kept), (condition, self.condition))
            if is_asked
        ]
        return ", and ".join(asked)


async def check_target(
    stores: Sequence[ProbedStore],
    check: Check,
    *,
    asks_condition: bool,
    asks_what_is_kept: bool = True,
) -> None:
    """List a target, and write to it what can be removed again.

    `stores` are the same bucket in each dialect that it may speak, the most likely first. They
    differ in their checksums. Raises StepFailed: the target cannot do what the job needs, or an
    answer that the job needs did not come in time.
    """
    store = stores[0]
    page = await listing.first_page(store, "", check)
    check.in_background(clean_up.remove_stale_uploads(store, check.names))
    questions = _Questions(condition=asks_condition, what_is_kept=asks_what_is_kept)
    await side_by_side(
        _check_writing(stores, check, questions), listing.find_order(store, "", page, check)
    )
    if store.dialect.assumed:
        keys_and_headers.note_folders(check)
    _note_conditions(check)


async def _check_writing(
    stores: Sequence[ProbedStore], check: Check, questions: _Questions
) -> None:
    dialect = stores[0].dialect
    if not dialect.assumed:
        check.found = replace(
            check.found,
            conditional_put=dialect.conditional_put,
            conditional_completion=dialect.conditional_completion,
        )
    async with contextlib.AsyncExitStack() as begun:
        if dialect.assumed and (questions.condition or questions.what_is_kept):
            (store, upload), reason = await side_by_side(
                uploads.find_checksum(stores, check, begun), _reason_not_to_write(stores[0], check)
            )
            if reason is None and check.is_slow():
                reason = "it answers too slowly"
            if reason is None:
                await _ask_by_objects(store, upload, check, questions)
            else:
                check.notes.append(f"{questions} could not be found out, and is assumed ({reason})")
        else:
            await uploads.find_checksum(stores, check, begun)
    await uploads.see_aborted(check)


async def _reason_not_to_write(store: ProbedStore, check: Check) -> str | None:
    """Why a written object might not be removed completely; None: it would be."""
    try:
        async with check.step("asking whether it keeps versions"):
            keeps_versions = await store.keeps_versions()
        if keeps_versions:  # do not try a delete either: its marker would stay
            return "its bucket keeps versions, so a version of every object would stay"
        check.in_background(clean_up.remove_stale_objects(store, check.names))
        async with check.step("deleting a key that does not exist"):
            await store.delete(own_keys.new_key())
    except StepFailed as failed:
        return str(failed)
    return None


async def _ask_by_objects(
    store: ProbedStore, upload: OnePartUpload | None, check: Check, questions: _Questions
) -> None:
    async def ask_what_is_kept() -> None:
        if questions.what_is_kept:
            await keys_and_headers.ask(store, check)

    async def ask_condition() -> None:
        if questions.condition:
            await conditions.ask(store, upload, check)

    await side_by_side(ask_what_is_kept(), ask_condition())


def _note_conditions(check: Check) -> None:
    found = check.found
    if found.conditional_put is False:
        check.notes.append(
            "the target knows no condition for writes: with overwrite=false, what appears there "
            "between listing and writing is overwritten"
        )
    elif found.conditional_completion is False:
        check.notes.append(
            "the target knows no condition for the completion of uploads: with overwrite=false, "
            "what appears there in the moment before a large object is completed is overwritten"
        )
