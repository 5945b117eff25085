"""Checks one side of a job before it is made: can what was given do what the job needs?

The source must list (or, with explicit keys, let one be described) and let a byte of an object be
read; the target must list, begin an upload and take a part of it. Nothing is left behind at either,
or it is named. A check has few retries and ends within `CHECK_SECONDS` + `CLEAN_UP_SECONDS`, so
that creating a job, which checks both sides at the same time, answers long before its client gives
up. What is found wrong is told with the step that found it, the field to change, and how; what
works and is worth knowing (clocks that differ, checksums that nobody verifies) is told too.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from slurper import errors
from slurper.errors import PrecheckProblem
from slurper.http.client import TransportOptions
from slurper.jobs.models import Jurisdiction, Location, Vendor
from slurper.objectstore import factory
from slurper.objectstore.base import (
    Body,
    ByteRange,
    ListingPage,
    ObjectHeaders,
    ObjectStore,
    StoreAddress,
)
from slurper.secrets import Credentials
from slurper.settings import Settings

CHECK_SECONDS = 7.5
CLEAN_UP_SECONDS = 2.0

STALE_SECONDS = 60.0
"""An upload of a check is older only if nobody is left to abort it."""

RESERVED_PREFIX = ".slurper-precheck-"
"""Keys that the target check begins an upload for, and never completes."""

_ANSWERS = (
    errors.StoreError,
    errors.TransportError,
    errors.IntegrityError,
    errors.ListingError,
)
_REGION_CODES = frozenset(
    {
        "IllegalLocationConstraintException",
        "InvalidRegionName",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
_BUCKET_CODES = frozenset({"InvalidBucketName", "AllAccessDisabled"})


_SKEW_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired"})

_FIRST_BYTE = ByteRange(0, 1)

_SKEW_NOTED_SECONDS = 60.0


@dataclass(slots=True)
class Course:
    """How a check goes: what it does now, for the text of what goes wrong, and what it noticed."""

    step: str = "reaching it"
    notes: list[str] = field(default_factory=list)


class Side(StrEnum):
    """Which half of a job; the value is the member of the create request."""

    SOURCE = "source"
    TARGET = "target"


class Precheck:
    """Opens a side as a worker would, and asks it for what the job will ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def resolve(
        self, side: Side, account_id: str, location: Location, credentials: Credentials
    ) -> StoreAddress:
        """Return the address of a side.

        Raises:
            InvalidField: the location cannot be one; the pointer names the side.
            ConfigurationError: the server's settings are at fault.
        """
        try:
            return factory.resolve(
                location, credentials, account_id=account_id, settings=self._settings
            )
        except errors.InvalidField as error:
            raise errors.InvalidField(f"/{side}{error.pointer}", error.message) from error

    async def source(
        self,
        location: Location,
        address: StoreAddress,
        *,
        prefix: str = "",
        keys: Sequence[str] | None = None,
    ) -> tuple[PrecheckProblem, ...]:
        """Return why the source cannot be read; when it can, what is worth knowing."""

        async def check(store: ObjectStore, course: Course) -> None:
            if keys:
                await _check_key(store, keys[0], course)
            else:
                await _check_listed(store, prefix, course)

        return await self._run(Side.SOURCE, location, address, check)

    async def target(
        self, location: Location, address: StoreAddress
    ) -> tuple[PrecheckProblem, ...]:
        """Return why the target cannot be listed and written to, or what is worth knowing."""
        return await self._run(Side.TARGET, location, address, _check_target)

    async def _run(
        self,
        side: Side,
        location: Location,
        address: StoreAddress,
        check: Callable[[ObjectStore, Course], Awaitable[None]],
    ) -> tuple[PrecheckProblem, ...]:
        store = factory.open_store(address, _impatient(self._settings))
        course = Course()
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await check(store, course)
        except TimeoutError:
            text = (
                f"gave no answer within {CHECK_SECONDS:g} seconds ({course.step}); try again, or "
                "check it"
            )
            pointer = _address_field(location)
            return (PrecheckProblem(f"/{side}/{pointer}", f"The {side}'s {pointer} {text}"),)
        except _Left as left:
            problem = explain(side, location, left.cause, course.step)
            return (replace(problem, message=f"{problem.message}; {left}"),)
        except _ANSWERS as error:
            return (explain(side, location, error, course.step),)
        finally:
            await store.close()
        pointer = f"/{side}/{_address_field(location)}"
        return tuple(PrecheckProblem(pointer, note, blocks=False) for note in course.notes)


class _Left(Exception):
    """Something of the check could not be removed from the target; the text says what."""

    def __init__(self, key: str, upload_id: str, cause: errors.SlurperError) -> None:
        super().__init__(
            f"an upload of the check is left: abort {upload_id} of the key {key}, or have a rule "
            "of the bucket do it"
        )
        self.cause = cause


def explain(
    side: Side, location: Location, error: errors.SlurperError, step: str = ""
) -> PrecheckProblem:
    """Say which field of the request an error points at, what was seen and what to do."""
    field, fix = _diagnose(side, location, error)
    when = f" ({step})" if step else ""
    sentence = f"The {side} bucket {location.bucket} cannot be used{when}: {error}; {fix}"
    return PrecheckProblem(f"/{side}/{field}", sentence)


def _diagnose(side: Side, location: Location, error: errors.SlurperError) -> tuple[str, str]:
    """Return the field to change, and how."""
    match error:
        case errors.StoreError() if _is_region_hint(error):
            return _region_fix(location)
        case errors.StoreError() if error.code in _SKEW_CODES:
            return _address_field(location), _CLOCK_FIX
        case errors.CredentialsRejected():
            return "secret", _secret_fix(location)
        case errors.AccessDenied():
            return "secret", f"give these credentials permission to {_NEEDS[side]}{_of_keys(error)}"
        case errors.NoSuchBucket() | errors.NotFound():
            return "bucket", _bucket_fix(location)
        case errors.StoreError() if error.code in _BUCKET_CODES:
            return "bucket", _bucket_fix(location)
        case errors.Throttled() | errors.UnavailableStore():
            return _address_field(location), "try again in a moment"
        case errors.StoreError() | errors.ListingError() | errors.IntegrityError():
            return _address_field(location), _answer_fix(location)
        case _:
            return _address_field(location), _network_fix(error)


def _network_fix(error: errors.SlurperError) -> str:
    if isinstance(error, errors.TlsRefused):
        return "correct the host name, or name the certificate's authority in SLURPER_CA_FILE"
    if isinstance(error, errors.TransportError) and "host name not found" in str(error):
        return "check how it is spelt, and the name server"
    return error.advice or "check the address and the network"


def _is_region_hint(error: errors.StoreError) -> bool:
    if error.code == "AuthorizationHeaderMalformed":  # also the answer to a mangled access key id
        return "region" in error.detail.casefold()
    return error.code in _REGION_CODES or 300 <= error.status < 400


def _secret_fix(location: Location) -> str:
    if location.vendor is Vendor.GCS:
        return "check clientEmail and privateKey, and that the key was not deleted or disabled"
    return "check the access key id and secret, and that they have not expired"


def _answer_fix(location: Location) -> str:
    if location.vendor is Vendor.GCS:
        return "see what Google says of this, and try again"
    return "check that this is an S3-compatible endpoint"


_NEEDS = {
    Side.SOURCE: "list the bucket and read its objects",
    Side.TARGET: "list the bucket and write objects, multipart uploads included",
}


_CLOCK_FIX = (
    "the clock of this machine and that of the store differ; set this one's (NTP), or see what "
    "changes the Date header on the way"
)


def _of_keys(error: errors.StoreError) -> str:
    """An object that is encrypted with a key of its own needs that key's permission as well."""
    return ", and kms:Decrypt with their key" if "kms" in error.detail.casefold() else ""


def _address_field(location: Location) -> str:
    """Return the request field that decided where the requests went."""
    if location.endpoint is not None:
        return "endpoint"
    if location.vendor is Vendor.GCS:
        return "bucket"
    if location.vendor is Vendor.R2:
        return "bucket" if location.jurisdiction in {None, Jurisdiction.DEFAULT} else "jurisdiction"
    return "endpoint" if location.region is None else "region"


def _region_fix(location: Location) -> tuple[str, str]:
    if location.vendor is Vendor.R2:
        return "jurisdiction", "give the jurisdiction the bucket was made in"
    given = f"it is not in {location.region}" if location.region else "none was given"
    return "region", f"give the region the bucket is in ({given})"


def _bucket_fix(location: Location) -> str:
    if location.vendor is Vendor.R2:
        jurisdiction = location.jurisdiction or Jurisdiction.DEFAULT
        return f"check its name, account and jurisdiction (looked in: {jurisdiction})"
    if location.vendor is Vendor.GCS:
        return "check its name"
    return "check its name, and that it is at this endpoint and in this region"


async def _check_listed(store: ObjectStore, prefix: str, course: Course) -> None:
    course.step = "listing it"
    page = await store.list_page(prefix=prefix, max_keys=1)
    _note_clock(page, course)
    for meta in page.objects:
        if meta.storage_class not in store.dialect.unreadable_storage_classes:
            await _read(store, meta.key, meta.size, course)


async def _read(store: ObjectStore, key: str, size: int, course: Course) -> None:
    """Read a byte. That the object is archived, or gone by now, is the business of its copy."""
    course.step = f"reading a byte of {key!a}"
    wanted = _FIRST_BYTE if size else None
    with contextlib.suppress(errors.NotFound, errors.RequiresRetrieval):
        await store.get(key, byte_range=wanted, max_bytes=None if size else 0)


async def _check_key(store: ObjectStore, key: str, course: Course) -> None:
    """Describe one explicit key; a missing key is fine, a missing bucket is not.

    An answer to HEAD has no body, hence no code that would tell those two apart, nor a bad
    signature from a lack of permission. Listing does; where it is not allowed, HEAD's word counts.
    """
    course.step = f"describing {key!a}"
    try:
        stored = await store.head(key)
    except errors.StoreError as seen:
        if not 400 <= seen.status < 500:
            raise
        try:
            await store.list_page(prefix=key, max_keys=1)
        except errors.AccessDenied:
            if not isinstance(seen, errors.NotFound):
                raise
            return
        if not isinstance(seen, errors.NotFound):
            raise
    else:
        await _read(store, key, stored.meta.size, course)


async def _check_target(store: ObjectStore, course: Course) -> None:
    course.step = "listing it"
    _note_clock(await store.list_page(max_keys=1), course)
    if not store.dialect.conditional_put:
        course.notes.append(
            "the target knows no condition for writes: with overwrite=false, what appears there "
            "between listing and writing is overwritten"
        )
    course.step = "beginning an upload"
    key = RESERVED_PREFIX + secrets.token_hex(16)
    try:
        upload_id = await store.create_upload(key, ObjectHeaders())
    except BaseException as error:
        # Without an answer, or out of time: there may be an upload whose id is not known.
        if not isinstance(error, errors.StoreError) or error.retryable:
            with contextlib.suppress(errors.SlurperError, TimeoutError):
                await _see_through(_abort_all(store, key))
        raise
    course.step = "writing a part"
    try:
        await store.put_part(key, upload_id, 1, Body([b"precheck"]))
        await _note_checksums(store, key, upload_id, course)
    except errors.SlurperError as error:
        await _clean_up(store, key, upload_id, error)
        raise
    except BaseException:
        course.step = f"removing the upload {upload_id} of the key {key}, which may be left"
        with contextlib.suppress(errors.SlurperError, TimeoutError):
            await _see_through(_abort(store, key, upload_id))
        raise
    course.step = "aborting the upload"
    await _clean_up(store, key, upload_id)
    with contextlib.suppress(errors.SlurperError, TimeoutError):
        await remove_stale(store)


def _note_clock(page: ListingPage, course: Course) -> None:
    if page.served_at is None:
        return
    skew = (page.served_at - datetime.now(UTC)).total_seconds()
    if abs(skew) > _SKEW_NOTED_SECONDS:
        course.notes.append(
            f"its clock is {abs(skew):.0f} seconds {'ahead of' if skew > 0 else 'behind'} this "
            "machine's; set the wrong one right"
        )


async def _note_checksums(store: ObjectStore, key: str, upload_id: str, course: Course) -> None:
    """Find out whether the store compares what it gets with its checksum."""
    algorithm = store.dialect.checksum
    if algorithm is None:
        return
    course.step = "writing a part whose checksum is wrong"
    try:
        await store.put_part(key, upload_id, 1, Body.mislabelled([b"precheck"], algorithm))
    except errors.IntegrityError:
        return
    course.notes.append(
        f"the target took bytes with a wrong {algorithm.upper()}: it verifies no checksums, so "
        "bytes that change on the way to it go unnoticed"
    )


async def _clean_up(
    store: ObjectStore, key: str, upload_id: str, cause: errors.SlurperError | None = None
) -> None:
    """Abort the upload. Raises _Left: it is still there."""
    try:
        await _see_through(_abort(store, key, upload_id))
    except errors.SlurperError as error:
        raise _Left(key, upload_id, cause or error) from error


async def _see_through(clean_up: Coroutine[Any, Any, None]) -> None:
    """Clean up to the end, although the check may run out of time just now."""
    task = asyncio.ensure_future(clean_up)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(errors.SlurperError, TimeoutError):
            await task
        raise


async def _abort(store: ObjectStore, key: str, upload_id: str) -> None:
    async with asyncio.timeout(CLEAN_UP_SECONDS):
        await store.abort_upload(key, upload_id)


async def remove_stale(store: ObjectStore) -> None:
    """Drop the uploads of checks whose process was killed in the middle of them."""
    async with asyncio.timeout(CLEAN_UP_SECONDS):
        for upload in await store.list_uploads(prefix=RESERVED_PREFIX):
            if upload.age_seconds > STALE_SECONDS:
                await store.abort_upload(upload.key, upload.upload_id)


async def _abort_all(store: ObjectStore, key: str) -> None:
    """Drop every upload of a key that nobody else can have thought of."""
    async with asyncio.timeout(CLEAN_UP_SECONDS):
        for upload in await store.list_uploads(prefix=key):
            await store.abort_upload(upload.key, upload.upload_id)


def _impatient(settings: Settings) -> TransportOptions:
    """Return the transport of the settings with one retry and short waits."""
    patient = TransportOptions.from_settings(settings)
    return replace(
        patient,
        connect_timeout_seconds=min(patient.connect_timeout_seconds, 3.0),
        idle_timeout_seconds=min(patient.idle_timeout_seconds, 5.0),
        request_retries=min(patient.request_retries, 1),
        retry_deadline_seconds=min(patient.retry_deadline_seconds, 4.0),
    )
