"""Finds out which checksum a target verifies, with parts of an upload that is then aborted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, replace

from slurper import errors
from slurper.http.streams import StreamBroken, StreamDeclined
from slurper.objectstore import error_answers, texts
from slurper.objectstore.base import Body, CreatedUpload, ObjectHeaders, Part, ProbedStore
from slurper.objectstore.checksums import QUICK, Algorithm
from slurper.objectstore.streamed import StreamedPart, StreamingStore
from slurper.service.probes import clean_up
from slurper.service.probes.check import Cause, Check, StepFailed, side_by_side

CONTENT = b"precheck"

_ID_SHOWN = 1024
"""So much of an upload's id is shown. It is of use only as a whole."""


@dataclass(frozen=True, slots=True)
class OnePartUpload:
    """An upload with a single part, which the store has accepted."""

    key: str
    created: CreatedUpload
    part: Part


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a store has answered to parts of an upload."""

    upload: OnePartUpload
    verifies: bool
    """Whether it verifies the checksum of its dialect."""
    verifies_md5: bool | None
    verifies_trailing: bool
    """Whether it does so also when the checksum comes behind the bytes."""


async def find_checksum(
    stores: Sequence[ProbedStore], check: Check, begun: contextlib.AsyncExitStack
) -> tuple[ProbedStore, OnePartUpload | None]:
    """Return the first of `stores` that verifies its checksum, else the first that can be used.

    Also return an upload, if one can be completed. `begun` aborts every upload that was begun.
    Raises StepFailed: no store can be used.
    """
    # Where each answer takes long, nobody waits for one store's before the next is asked.
    is_far = stores[0].statistics.is_far
    ahead = [asyncio.ensure_future(_check_upload(one, check, begun)) for one in stores if is_far]
    try:
        return await _first_verified(stores, ahead, check, begun)
    finally:
        for answer in ahead:  # what is not needed any more must not use up the time of the check
            answer.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


async def _first_verified(
    stores: Sequence[ProbedStore],
    ahead: Sequence[Awaitable[_Answers]],
    check: Check,
    begun: contextlib.AsyncExitStack,
) -> tuple[ProbedStore, OnePartUpload | None]:
    """Do as `find_checksum`; `ahead` are the answers of the stores if they were asked already."""
    unverified: list[ProbedStore] = []
    refusal: StepFailed | None = None
    for number, store in enumerate(stores):
        try:
            asked = ahead[number] if ahead else _check_upload(store, check, begun)
            found = await asked
        except StepFailed as failed:
            if _is_not_understood(failed.cause):
                refusal = refusal or failed
            elif unverified:  # a store that can be used is known already
                check.notes.append(
                    f"whether the target verifies {_checksum_name(store)} could not be found out "
                    f"({failed})"
                )
            else:
                raise
            continue
        if found.verifies:
            if store.dialect.assumed:
                check.found = replace(check.found, verifies_md5=found.verifies_md5)
            check.found = replace(check.found, trailing_checksum=found.verifies_trailing)
            return _with_checksum(store, check, verifies=True), found.upload
        unverified.append(store)
    if unverified:
        tried = " or ".join(map(_checksum_name, unverified))
        check.notes.append(
            f"the target took bytes with a wrong {tried}: it verifies no checksums, so bytes that "
            "change on the way to it go unnoticed"
        )
        # Its upload also holds the wrong parts, so it is not returned.
        return _with_checksum(unverified[0], check, verifies=False), None
    assert refusal is not None  # noqa: S101 - there is at least one store
    if not error_answers.lacks_uploads(refusal.cause):
        raise refusal
    check.notes.append(
        f"the target knows no uploads in parts ({refusal.reason}): objects over "
        "SLURPER_MULTIPART_THRESHOLD_BYTES are written in one request, and fail if they do not fit "
        "into SLURPER_IN_FLIGHT_BYTES; whether it verifies checksums could not be found out"
    )
    # Such a store most likely knows only the oldest checksum.
    return _with_checksum(stores[-1], check, verifies=None), None


def _is_not_understood(cause: Cause) -> bool:
    return isinstance(cause, errors.StoreError) and (
        cause.code in error_answers.NOT_UNDERSTOOD or error_answers.lacks_uploads(cause)
    )


def _checksum_name(store: ProbedStore) -> str:
    return "checksum" if store.dialect.checksum is None else store.dialect.checksum.upper()


def _with_checksum(store: ProbedStore, check: Check, *, verifies: bool | None) -> ProbedStore:
    checksum = None if verifies is False else store.dialect.checksum
    check.found = replace(
        check.found,
        checksum=None if checksum is None else checksum.value,
        verifies_checksum=verifies,
    )
    return store


@contextlib.asynccontextmanager
async def begin(store: ProbedStore, key: str, check: Check) -> AsyncIterator[CreatedUpload]:
    """Begin an upload, and abort it at the end in every case. Raises StepFailed."""
    try:
        async with check.step("beginning an upload"):
            created = await store.create_upload(key, ObjectHeaders())
    except BaseException as error:
        cause = error.cause if isinstance(error, StepFailed) else error
        # There was no answer, or none in time: an upload of unknown id may exist.
        if not isinstance(cause, errors.StoreError) or cause.retryable:
            left = f"an upload of the check may be left: abort those of the key {key}"
            check.remove(clean_up.abort_all(store, key), left)
        raise
    try:
        yield created
    finally:
        left = (
            f"an upload of the check is left: abort {texts.cleaned(created.upload_id, _ID_SHOWN)} "
            f"of the key {key}, or have a rule of the bucket do it"
        )
        check.aborts.append(check.remove(store.abort_upload(key, created.upload_id), left))


async def see_aborted(check: Check) -> None:
    """Wait for the aborts. Raises StepFailed: the target did not let us abort any upload."""
    answers = await asyncio.shield(asyncio.gather(*check.aborts))
    failed = [answer for answer in answers if answer is not None]
    if failed and len(failed) == len(answers):
        raise StepFailed("aborting the upload", failed[0])


async def take_part(
    store: ProbedStore, key: str, created: CreatedUpload, check: Check
) -> OnePartUpload:
    """Write a part. Raises StepFailed."""
    async with check.step("writing a part"):
        part = await store.put_part(key, created.upload_id, 1, Body([CONTENT]))
    return OnePartUpload(key, created, part)


async def _check_upload(
    store: ProbedStore, check: Check, begun: contextlib.AsyncExitStack
) -> _Answers:
    """Write parts, to see which checksums the store verifies. Raises StepFailed."""
    key = check.new_key()
    created = await begun.enter_async_context(begin(store, key, check))
    upload_id = created.upload_id

    async def refusals() -> tuple[bool, bool | None]:
        return await side_by_side(
            _refuses_wrong_checksum(store, key, upload_id, check),
            _refuses_wrong_md5(store, key, upload_id, check),
        )

    async def parts() -> tuple[OnePartUpload, bool]:
        return await side_by_side(
            take_part(store, key, created, check),
            _verifies_trailing(store, key, upload_id, check),
        )

    (upload, trailing), (verifies, verifies_md5) = await side_by_side(parts(), refusals())
    return _Answers(upload, verifies, verifies_md5, verifies and trailing)


async def _refuses_wrong_checksum(
    store: ProbedStore, key: str, upload_id: str, check: Check
) -> bool:
    """Whether the store refuses a part whose checksum is wrong."""
    algorithm = store.dialect.checksum
    if algorithm is None:
        return False
    try:
        async with check.step("writing a part whose checksum is wrong"):
            await store.put_part(key, upload_id, 2, Body.mislabelled([CONTENT], algorithm))
    except StepFailed as failed:
        if isinstance(failed.cause, errors.IntegrityError) or _is_bad_request(failed.cause):
            return True
        raise
    return False


async def _refuses_wrong_md5(
    store: ProbedStore, key: str, upload_id: str, check: Check
) -> bool | None:
    """Whether the store refuses a part with a right checksum and a wrong Content-MD5.

    The job does not need the answer, so the question may take only a share of the time. None: no
    answer.
    """
    dialect = store.dialect
    if dialect.checksum is Algorithm.MD5:
        return True
    if dialect.checksum is None or not dialect.assumed:
        return None
    try:
        async with check.step("writing a part whose Content-MD5 is wrong", share=1 / 3):
            await store.put_part(key, upload_id, 3, Body.with_wrong_md5([CONTENT]))
    except StepFailed as failed:
        if isinstance(failed.cause, errors.BytesRefused):
            return True
        return False if _is_bad_request(failed.cause) else None
    return False


async def _verifies_trailing(store: ProbedStore, key: str, upload_id: str, check: Check) -> bool:
    """Whether the store takes a part with its checksum behind it, and refuses a wrong one.

    The job does not need the answer, so the question may take only a share of the time.
    """
    algorithm = store.dialect.checksum
    if algorithm is None or algorithm not in QUICK or not isinstance(store, StreamingStore):
        return False

    async def write(number: int, *, mislabels: bool = False) -> Part:
        part = StreamedPart.held(CONTENT, algorithm, mislabels=mislabels)
        return await store.put_part_stream(key, upload_id, number, part)

    async def refuses_wrong() -> bool:
        try:
            await write(5, mislabels=True)
        except (errors.IntegrityError, errors.StoreError) as error:
            return isinstance(error, errors.IntegrityError) or error.status == 400
        return False

    try:
        async with check.step("writing a part with its checksum behind it", share=1 / 3):
            _, refuses = await side_by_side(write(4), refuses_wrong())
    except (StepFailed, StreamBroken, StreamDeclined):
        return False
    return refuses


def _is_bad_request(cause: Cause) -> bool:
    return isinstance(cause, errors.StoreError) and cause.status == 400
