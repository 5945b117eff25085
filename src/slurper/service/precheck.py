"""Checks one side of a job before the job is made: can it do what the job needs?

`probes` asks the questions. A check leaves nothing behind at the store, or the answer names it. A
check has few retries and ends within `CHECK_SECONDS` + `clean_up.SECONDS`. Both sides of a
new job are checked at the same time, so the client gets an answer long before it gives up. If the
job does not need an answer and there is no time, the question is left out. A problem comes with the
step that found it, the field to change, and how to change it. Notes tell facts that are no problem:
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
from slurper.http.places import Owner
from slurper.http.pool import Pools
from slurper.job.model import Capabilities, Jurisdiction, Location, Vendor
from slurper.objectstore import advice, factory
from slurper.objectstore.advice import Field
from slurper.objectstore.base import ProbedStore, StoreAddress
from slurper.objectstore.checksums import Algorithm
from slurper.secrets import Credentials
from slurper.service.probes.check import Check, StepFailed
from slurper.service.probes.source import check_keys, check_listed
from slurper.service.probes.target import check_target
from slurper.settings import Settings

CHECK_SECONDS = 7.5

_ANSWERS = (
    errors.StoreError,
    errors.TransportError,
    errors.IntegrityError,
    errors.ListingError,
)


class Side(StrEnum):
    """A side of a job. The value is its member in the create request."""

    SOURCE = "source"
    TARGET = "target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The result of the check of a side."""

    problems: tuple[PrecheckProblem, ...]
    """Why the side cannot be used; if it can be used, notes about it."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    """What was found out about its store."""


Probe = Callable[[Sequence[ProbedStore], Check], Awaitable[None]]
"""Asks one bucket its questions. The bucket is open in each dialect that it may speak."""


class Precheck:
    """Opens a side as a worker would, and asks it what the job will ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def resolve(
        self, side: Side, owner: Owner, location: Location, credentials: Credentials
    ) -> StoreAddress:
        """Return the address of a side. `owner` is who asks.

        Raises:
            InvalidField: the location is not valid; the pointer names the side.
            ConfigurationError: the server's settings are wrong.
        """
        try:
            return factory.resolve(
                location,
                credentials,
                account_id=owner.account,
                token=owner.token,
                settings=self._settings,
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

        async def probe(stores: Sequence[ProbedStore], check: Check) -> None:
            if keys:
                await check_keys(stores[0], keys, check)
            else:
                await check_listed(stores[0], prefix, check)

        return await self._run(Side.SOURCE, location, [address], probe)

    async def target(
        self,
        location: Location,
        address: StoreAddress,
        *,
        asks_condition: bool = True,
        asks_what_is_kept: bool = True,
    ) -> Checked:
        """Find out whether the target can be listed and written to.

        `asks_condition`: also find out whether it obeys conditions on writes, if that is unknown.
        `asks_what_is_kept`: also find out which keys and headers it keeps, if that is unknown.
        """

        async def probe(stores: Sequence[ProbedStore], check: Check) -> None:
            await check_target(
                stores,
                check,
                asks_condition=asks_condition,
                asks_what_is_kept=asks_what_is_kept,
            )

        return await self._run(Side.TARGET, location, _spoken_at(address), probe)

    async def _run(
        self, side: Side, location: Location, addresses: Sequence[StoreAddress], probe: Probe
    ) -> Checked:
        pools = Pools()
        options = replace(_impatient(self._settings), pools=pools)
        once = replace(options, request_retries=0)

        def open_hasty(store: ProbedStore) -> ProbedStore:
            return factory.open_store(replace(addresses[0], dialect=store.dialect), once)

        now = asyncio.get_running_loop().time()
        check = Check(began=now, deadline=now + CHECK_SECONDS, open_hasty=open_hasty)
        stores = [factory.open_store(address, options) for address in addresses]
        try:
            try:
                await probe(stores, check)
                failed = None
            except StepFailed as error:
                # The probe may hold ten thousand keys. It would hold the error, and the error it.
                failed = error.with_traceback(None)
            for address, store in zip(addresses, stores, strict=True):
                seen = factory.found_since(address.dialect, store.dialect)
                check.found = check.found.with_found(seen)
        finally:
            try:
                await check.end()
            finally:
                for store in stores:
                    await store.close()
                await pools.close()
        pointer = f"/{side}/{_address_field(location)}"
        if failed is None:
            told = [PrecheckProblem(pointer, text, blocks=False) for text in check.notes]
            told += [PrecheckProblem(pointer, text, blocks=False) for text in check.left]
            return Checked(problems=tuple(told), capabilities=check.found)
        problem = _explain_step(side, location, failed)
        message = "; ".join([problem.message, *check.left])
        return Checked(problems=(replace(problem, message=message),))


def _explain_step(side: Side, location: Location, failed: StepFailed) -> PrecheckProblem:
    cause = failed.cause
    if isinstance(cause, TimeoutError):
        field = _address_field(location)
        text = (
            f"The {side}'s {field} gave no answer within {CHECK_SECONDS:g} seconds "
            f"({failed.step}); try again, or check it"
        )
        return PrecheckProblem(f"/{side}/{field}", text)
    if not isinstance(cause, _ANSWERS) or isinstance(cause, errors.TooManyOpenFiles):
        raise cause  # nothing was found out about the side
    return explain(side, location, cause, failed.step)


def _spoken_at(address: StoreAddress) -> list[StoreAddress]:
    """The address; if its dialect is only assumed, also the same with the oldest checksum."""
    dialect = address.dialect
    if not dialect.assumed:
        return [address]
    return [address, replace(address, dialect=replace(dialect, checksum=Algorithm.MD5))]


def explain(
    side: Side, location: Location, error: errors.SlurperError, step: str = ""
) -> PrecheckProblem:
    """Say to which field of the request an error points, what was seen, why, and what to do.

    One table, `objectstore.advice`, says what answers mean.
    """
    found = advice.find(error)
    cause = f"{found.cause}: " if found.cause else ""
    fix = found.advice or _usual_fix(found.field, side, location, error)
    when = f" ({step})" if step else ""
    sentence = f"The {side} bucket {location.bucket} cannot be used{when}: {error}; {cause}{fix}"
    return PrecheckProblem(f"/{side}/{_pointer(found.field, location)}", sentence)


def _pointer(field: Field, location: Location) -> str:
    """The member of the request to which `field` belongs."""
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
    """What to do when the table names only the field."""
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
    """Return the transport of the settings with one retry, short waits and short answers."""
    patient = TransportOptions.from_settings(settings)
    return replace(
        patient,
        connect_timeout_seconds=min(patient.connect_timeout_seconds, 3.0),
        idle_timeout_seconds=min(patient.idle_timeout_seconds, 5.0),
        request_retries=min(patient.request_retries, 1),
        retry_deadline_seconds=min(patient.retry_deadline_seconds, 4.0),
        answers_others=True,
    )
