"""Checks one side of a job before it is made: can what was given do what the job needs?

`probes` asks the questions. Nothing is left behind at either side, or a note names it. A check has
few retries and ends within `CHECK_SECONDS` + `clean_up.SECONDS`. Both sides of a new job are
checked at the same time, so the client is answered long before it gives up. A question that the
job can do without is left out when there is no time for it. A problem is told with the step that
found it, the field to change, and how to change it. Notes tell what works and is worth knowing:
clocks that differ, checksums that are not verified. The job keeps what was found out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from slurper import errors
from slurper.errors import PrecheckProblem
from slurper.http.client import TransportOptions
from slurper.job.model import Capabilities, Jurisdiction, Location, Vendor
from slurper.objectstore import advice, factory
from slurper.objectstore.advice import Field
from slurper.objectstore.base import ObjectStore, StoreAddress
from slurper.objectstore.checksums import Algorithm
from slurper.secrets import Credentials
from slurper.service import probes
from slurper.service.probes import Course
from slurper.settings import Settings

CHECK_SECONDS = 7.5

_ANSWERS = (
    errors.StoreError,
    errors.TransportError,
    errors.IntegrityError,
    errors.ListingError,
)


class Side(StrEnum):
    """Which half of a job; the value is the member of the create request."""

    SOURCE = "source"
    TARGET = "target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came of the check of a side."""

    problems: tuple[PrecheckProblem, ...]
    """Why it cannot be used; when it can, what is worth knowing."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    """What was found out of its store."""


Check = Callable[[Sequence[ObjectStore], Course], Awaitable[None]]
"""Asks one bucket, open in each dialect that it may speak."""


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
    ) -> Checked:
        """Find out whether the source can be read."""

        async def check(stores: Sequence[ObjectStore], course: Course) -> None:
            if keys:
                await probes.check_keys(stores[0], keys, course)
            else:
                await probes.check_listed(stores[0], prefix, course)

        return await self._run(Side.SOURCE, location, [address], check)

    async def target(
        self,
        location: Location,
        address: StoreAddress,
        *,
        asks_condition: bool = True,
        asks_what_is_kept: bool = True,
    ) -> Checked:
        """Find out whether the target can be listed and written to.

        `asks_condition`: find out too whether it obeys conditions on writes, if that is not known.
        `asks_what_is_kept`: find out too which keys and headers it keeps, if that is not known.
        """

        async def check(stores: Sequence[ObjectStore], course: Course) -> None:
            await probes.check_target(
                stores,
                course,
                asks_condition=asks_condition,
                asks_what_is_kept=asks_what_is_kept,
            )

        return await self._run(Side.TARGET, location, _spoken_at(address), check)

    async def _run(
        self, side: Side, location: Location, addresses: Sequence[StoreAddress], check: Check
    ) -> Checked:
        once = replace(_impatient(self._settings), request_retries=0)

        def open_hasty(store: ObjectStore) -> ObjectStore:
            return factory.open_store(replace(addresses[0], dialect=store.dialect), once)

        course = Course(asyncio.get_running_loop().time() + CHECK_SECONDS, open_hasty)
        blocking = await self._find_problem(side, location, addresses, check, course)
        if blocking is not None:
            return Checked(problems=(blocking,))
        pointer = f"/{side}/{_address_field(location)}"
        notes = tuple(PrecheckProblem(pointer, note, blocks=False) for note in course.notes)
        return Checked(problems=notes, capabilities=course.found)

    async def _find_problem(
        self,
        side: Side,
        location: Location,
        addresses: Sequence[StoreAddress],
        check: Check,
        course: Course,
    ) -> PrecheckProblem | None:
        """Run a check and return why the side cannot be used."""
        options = _impatient(self._settings)
        stores = [factory.open_store(address, options) for address in addresses]
        try:
            await check(stores, course)
            for address, store in zip(addresses, stores, strict=True):
                seen = factory.found_since(address.dialect, store.dialect)
                course.found = course.found.with_found(seen)
        except TimeoutError:
            text = (
                f"gave no answer within {CHECK_SECONDS:g} seconds ({course.step}); try again, or "
                "check it"
            )
            pointer = _address_field(location)
            return PrecheckProblem(f"/{side}/{pointer}", f"The {side}'s {pointer} {text}")
        except probes.LeftError as left:
            problem = explain(side, location, left.cause, course.step)
            return replace(problem, message=f"{problem.message}; {left}")
        except _ANSWERS as error:
            return explain(side, location, error, course.step)
        finally:
            for store in stores:
                await store.close()
        return None


def _spoken_at(address: StoreAddress) -> list[StoreAddress]:
    """The address, and where its dialect is only assumed, with the oldest checksum too."""
    dialect = address.dialect
    if not dialect.assumed:
        return [address]
    return [address, replace(address, dialect=replace(dialect, checksum=Algorithm.MD5))]


def explain(
    side: Side, location: Location, error: errors.SlurperError, step: str = ""
) -> PrecheckProblem:
    """Say which field of the request an error points at, what was seen, why, and what to do.

    What answers mean stands in one table, `objectstore.advice`.
    """
    found = advice.find(error)
    cause = f"{found.cause}: " if found.cause else ""
    fix = found.advice or _usual_fix(found.field, side, location, error)
    when = f" ({step})" if step else ""
    sentence = f"The {side} bucket {location.bucket} cannot be used{when}: {error}; {cause}{fix}"
    return PrecheckProblem(f"/{side}/{_pointer(found.field, location)}", sentence)


def _pointer(field: Field, location: Location) -> str:
    """The member of the request that is meant."""
    match field:
        case Field.SECRET | Field.PERMISSION:
            return "secret"
        case Field.BUCKET:
            return "bucket"
        case Field.REGION:
            return "jurisdiction" if location.vendor is Vendor.R2 else "region"
        case Field.ADDRESS:
            return _address_field(location)


def _usual_fix(field: Field, side: Side, location: Location, error: errors.SlurperError) -> str:
    """What to do where the table knows no more than the field."""
    match field:
        case Field.SECRET:
            return _secret_fix(location)
        case Field.PERMISSION:
            return f"give these credentials permission to {_NEEDS[side]}"
        case Field.BUCKET:
            return _bucket_fix(location)
        case Field.REGION:
            return _region_fix(location)
        case Field.ADDRESS:
            return _answer_fix(location, error)


def _secret_fix(location: Location) -> str:
    if location.vendor is Vendor.GCS:
        return "check clientEmail and privateKey, and that the key was not deleted or disabled"
    return "check the access key id and secret, and that they have not expired"


def _answer_fix(location: Location, error: errors.SlurperError) -> str:
    if isinstance(error, errors.TransportError):
        return error.advice or "check the address and the network"
    if location.vendor is Vendor.GCS:
        return "see what Google says of this, and try again"
    return "check that this is an S3-compatible endpoint"


_NEEDS = {
    Side.SOURCE: "list the bucket and read its objects",
    Side.TARGET: "list the bucket and write objects, multipart uploads included",
}


def _address_field(location: Location) -> str:
    """Return the request field that decided where the requests went."""
    if location.endpoint is not None:
        return "endpoint"
    if location.vendor is Vendor.GCS:
        return "bucket"
    if location.vendor is Vendor.R2:
        return "bucket" if location.jurisdiction in {None, Jurisdiction.DEFAULT} else "jurisdiction"
    return "endpoint" if location.region is None else "region"


def _region_fix(location: Location) -> str:
    if location.vendor is Vendor.R2:
        return "give the jurisdiction the bucket was made in"
    given = f"it is not in {location.region}" if location.region else "none was given"
    return f"give the region the bucket is in ({given})"


def _bucket_fix(location: Location) -> str:
    if location.vendor is Vendor.R2:
        jurisdiction = location.jurisdiction or Jurisdiction.DEFAULT
        return f"check its name, account and jurisdiction (looked in: {jurisdiction})"
    if location.vendor is Vendor.GCS:
        return "check its name"
    return "check its name, and that it is at this endpoint and in this region"


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
